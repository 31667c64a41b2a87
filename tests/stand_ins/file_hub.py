"""A hub as the stager sees it, with blobs, grants and an object storage, that misbehaves where it is told to.

Real sockets, one thread for each connection. `faults` maps a kind of request (`grants`, `get`, `head`, `patch`, `put`)
to what happens to the next ones: each is a function of the request that answers in its own way, or returns False to
have it answered as usual.
"""

import hashlib
import json
import re
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Fault = Callable[[Any], Any]
SECRET = "canary-signature"


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A line that was cut is what tests are about."""


class FileHub:
    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.partial: dict[str, bytearray] = {}
        self.objects: dict[str, bytes] = {}  # of the object storage
        self.jobs: dict[str, dict[str, bytes]] = {}  # source → path → content
        self.web: dict[str, bytes] = {}  # path → content, for anyone
        self.tags: dict[str, str] = {}
        self.credential = "wmw_canary-credential"
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.asked: list[tuple[str, str]] = []  # kind, path or what was asked
        self.grants: list[dict[str, Any]] = []
        self.good_for_ms = 600_000
        self.signatures = 0
        self.revoked: set[str] = set()
        self.ca = b""
        self._lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, data: bytes) -> str:
        sha256 = digest_of(data)
        self.blobs[sha256] = data
        return sha256

    def count(self, kind: str) -> int:
        with self._lock:
            return sum(1 for each in self.asked if each[0] == kind)

    def note(self, kind: str, what: str) -> None:
        with self._lock:
            self.asked.append((kind, what))

    def fault(self, kind: str) -> Fault | None:
        with self._lock:
            return self.faults[kind].pop(0) if self.faults[kind] else None

    # ------------------------------------------------------------ grants

    def sign(self, path: str) -> str:
        with self._lock:
            self.signatures += 1
            return f"{path}?sig={SECRET}-{self.signatures}"

    def is_signed(self, query: str) -> bool:
        (signature,) = parse_qs(query).get("sig", [""])
        return signature.startswith(SECRET) and signature not in self.revoked

    def revoke(self) -> None:
        """Every address that was given out has ended."""
        self.revoked = {f"{SECRET}-{number}" for number in range(1, self.signatures + 1)}

    def granted(self, body: dict[str, Any], now_ms: int) -> dict[str, Any]:
        self.grants.append(body)
        return {
            "get": [self._get(source) for source in body.get("get", [])],
            "put": [self._put(each) for each in body.get("put", [])],
            "until_ms": now_ms + self.good_for_ms,
        }

    def _get(self, source: str) -> dict[str, Any]:
        kind, _, rest = source.partition(":")
        if kind == "blob" and rest in self.blobs:
            size = len(self.blobs[rest])
            return {"files": [{"path": "", "url": self.sign(f"/v1/blobs/{rest}"), "size": size, "sha256": rest}]}
        if kind == "s3" and source in self.objects:
            tag = self.tags.get(source) or digest_of(self.objects[source])[:16]
            return {"files": [{"path": "", "url": self._object(source), "tag": tag, "size": len(self.objects[source])}]}
        if source in self.jobs:
            return {"files": [self._file(path, data) for path, data in self.jobs[source].items()]}
        return {"refused": {"code": "not-found", "text": f"there is no {source}"}}

    def _file(self, path: str, data: bytes) -> dict[str, Any]:
        sha256 = self.add(data)
        return {"path": path, "url": self.sign(f"/v1/blobs/{sha256}"), "size": len(data), "sha256": sha256}

    def _object(self, uri: str) -> str:
        return self.url + self.sign("/objects/" + uri.removeprefix("s3://"))

    def _put(self, told: dict[str, Any]) -> dict[str, Any]:
        if told["to"] == "hub":
            at = f"blob:{told['sha256']}"
            if told["sha256"] in self.blobs:
                return {"there": True, "at": at}
            return {"url": self.sign(f"/v1/blobs/{told['sha256']}"), "method": "PATCH", "at": at}
        if not told["to"].startswith("s3://"):
            return {"refused": {"code": "storage", "text": f"no storage {told['to']}"}}
        uri = told["to"] + told["path"]
        return {"url": self._object(uri), "method": "PUT", "headers": {"X-Meta": "yes"}, "at": uri}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: FileHub

    def log_message(self, *_: object) -> None:
        pass

    def says(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def says_json(self, status: int, value: Any, kind: str = "application/json") -> None:
        self.says(status, json.dumps(value).encode(), Content_Type=kind)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()

    # ------------------------------------------------------------

    def _act(self, kind: str, usual: Callable[[], None]) -> None:
        self.owner.note(kind, self.path)
        fault = self.owner.fault(kind)
        if fault is None or fault(self) is False:
            usual()

    def do_POST(self) -> None:
        self._act("grants", self._grants)

    def do_GET(self) -> None:
        if self.path == "/v1/ca.pem":
            return self.says(200, self.owner.ca)
        return self._act("get", self._content)

    def do_HEAD(self) -> None:
        self._act("head", self._head)

    def do_PATCH(self) -> None:
        self._act("patch", self._patch)

    def do_PUT(self) -> None:
        self._act("put", self._put_object)

    def _grants(self) -> None:
        import time

        body = json.loads(self.body())
        if self.headers["Authorization"] != f"Bearer {self.owner.credential}":
            problem = {"title": "Unauthorized", "code": "credential", "detail": "the credential is unknown"}
            return self.says_json(401, problem, "application/problem+json")
        return self.says_json(200, self.owner.granted(body, time.time_ns() // 1_000_000))

    def _found(self) -> tuple[bytes | None, str]:
        parts = urlsplit(self.path)
        if parts.path.startswith("/web/"):
            data = self.owner.web.get(parts.path)
            return data, self.owner.tags.get(parts.path, digest_of(data or b"")[:12])
        if not self.owner.is_signed(parts.query):
            return None, "403"
        if parts.path.startswith("/objects/"):
            uri = "s3://" + parts.path.removeprefix("/objects/")
            data = self.owner.objects.get(uri)
            return data, self.owner.tags.get(uri) or digest_of(data or b"")[:16]
        sha256 = parts.path.rpartition("/")[2]
        return self.owner.blobs.get(sha256), sha256

    def _content(self) -> None:
        data, tag = self._found()
        if data is None:
            return self.says(403 if tag == "403" else 404)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        marks = {"ETag": f'"{tag}"'} if tag else {}
        if asked and self.headers.get("If-Range") == f'"{tag}"' and int(asked[1]) < len(data):
            start = int(asked[1])
            return self.says(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}", **marks)
        return self.says(200, data, **marks)

    def _head(self) -> None:
        sha256 = urlsplit(self.path).path.rpartition("/")[2]
        if "/blobs/" not in self.path:
            return self._content()
        if not self.owner.is_signed(urlsplit(self.path).query):
            return self.says(403)
        if sha256 in self.owner.blobs:
            return self.says(200, self.owner.blobs[sha256])
        return self.says(404, Upload_Offset=str(len(self.owner.partial.get(sha256, b""))))

    def _patch(self) -> None:
        sha256 = urlsplit(self.path).path.rpartition("/")[2]
        if not self.owner.is_signed(urlsplit(self.path).query):
            self.body()
            return self.says(403)
        there = self.owner.partial.setdefault(sha256, bytearray())
        if int(self.headers["Upload-Offset"]) != len(there):
            self.body()
            return self.says(409, Upload_Offset=str(len(there)))
        there += self.body()
        if len(there) < int(self.headers["Upload-Length"]):
            return self.says(204, Upload_Offset=str(len(there)))
        data = bytes(self.owner.partial.pop(sha256))
        if digest_of(data) != sha256:
            return self.says(422)
        self.owner.blobs[sha256] = data
        return self.says(201, Upload_Offset=str(len(data)))

    def _put_object(self) -> None:
        parts = urlsplit(self.path)
        data = self.body()
        if not self.owner.is_signed(parts.query):
            return self.says(403)
        if self.headers["X-Meta"] != "yes":
            return self.says(400)
        self.owner.objects["s3://" + parts.path.removeprefix("/objects/")] = data
        return self.says(200)
