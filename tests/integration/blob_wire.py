"""Blobs as a client of one owner speaks of them, and a line that can be cut in the middle of one."""

import hashlib
import re
import select
import socket
import struct
import time
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

import requests


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Sender:
    def __init__(self, hub: Any, owner: str = "alice", *scopes: str) -> None:
        self.hub = hub
        self.owner = owner
        self.token = hub.token(*(scopes or ("submit",)), owner=owner)

    def head(self, digest: str) -> requests.Response:
        return self._call("HEAD", digest)

    def get(self, digest: str, **headers: str) -> requests.Response:
        return self._call("GET", digest, headers=headers)

    def patch(self, digest: str, data: Any, offset: object, length: object, **headers: str) -> requests.Response:
        told = {"Upload-Offset": str(offset), "Upload-Length": str(length)}
        return self._call("PATCH", digest, headers={**told, **headers}, data=data)

    def send(self, data: bytes) -> str:
        reply = self.patch(sha(data), data, 0, len(data))
        assert reply.status_code == 201, reply.text
        return sha(data)

    def offset(self, digest: str) -> int:
        reply = self.head(digest)
        assert reply.status_code == 404, reply.status_code
        return int(reply.headers["Upload-Offset"])

    def _call(self, method: str, digest: str, **options: Any) -> requests.Response:
        return cast(requests.Response, self.hub.call(method, f"/v1/blobs/{digest}", by=self.token, **options))


class Line:
    """A PATCH of which the body comes as the test likes."""

    def __init__(self, sender: Sender, digest: str, offset: int, length: int) -> None:
        address = urlsplit(sender.hub.url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=60)
        head = [
            f"PATCH /v1/blobs/{digest} HTTP/1.1",
            "Host: hub",
            f"Authorization: Bearer {sender.token}",
            f"Content-Length: {length - offset}",
            f"Upload-Offset: {offset}",
            f"Upload-Length: {length}",
        ]
        self._socket.sendall("\r\n".join([*head, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def drip(self, every_s: float, at_most_s: float) -> bool:
        """A byte now and then, until there is an answer. False when none came."""
        deadline = time.monotonic() + at_most_s
        while time.monotonic() < deadline:
            self._socket.sendall(b"x")
            if select.select([self._socket], [], [], every_s)[0]:
                return True
        return False

    def cut(self) -> None:
        """As a line breaks: without a goodbye, but told at once."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def answer(self) -> tuple[int, str]:
        """(status, everything that came)."""
        text = b""
        while not _is_whole(text) and (block := self._socket.recv(65_536)):
            text += block
        return int(text.split(b" ")[1]) if text else 0, text.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def _is_whole(text: bytes) -> bool:
    head, end, body = text.partition(b"\r\n\r\n")
    declared = re.search(rb"content-length: *([0-9]+)", head.lower())
    return bool(end) and len(body) >= (int(declared[1]) if declared else 0)
