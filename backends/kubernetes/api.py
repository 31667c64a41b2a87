"""One HTTP request to the API server, with a deadline and without a second attempt. What it answers is not judged here.

The official client brings credentials, TLS and proxies; its models are left out: they refuse what a newer server adds,
and cost more than the network.
"""

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode

from backends.base import clipped

Result = TypeVar("Result")

MOST_BYTES = 256 * 2**20  # of one answer; a page of 1,000 pods has some 10 MiB


class NoAnswer(Exception):
    """None came, or one that makes no sense. What was asked may have happened, unless `sent` is False."""

    def __init__(self, text: str, sent: bool = True) -> None:
        super().__init__(clipped(text))
        self.sent = sent


class NoAccess(NoAnswer):
    """There are no credentials, or they cannot be read."""

    def __init__(self, text: str) -> None:
        super().__init__(text, sent=False)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def thing(self) -> dict[str, Any]:
        """The object that was answered. Raises NoAnswer: it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise NoAnswer(
                f"the API server answered {self.status} with something that is no object: {_start(self.body)}"
            )
        return found

    def words(self) -> str:
        """What it had to say, for people."""
        with contextlib.suppress(NoAnswer):
            found = self.thing()
            if isinstance(found.get("message"), str) and found["message"]:
                return clipped(found["message"])
        return clipped(_start(self.body)) or f"HTTP {self.status}"

    def reason(self) -> str:
        """The API's one-word reason of a refusal."""
        with contextlib.suppress(NoAnswer):
            return str(self.thing().get("reason") or "")
        return ""

    def retry_after_s(self) -> float | None:
        text = {name.lower(): value for name, value in self.headers.items()}.get("retry-after", "")
        return float(text) if text.isascii() and text.isdecimal() else None


Query = Sequence[tuple[str, str]]


class Api:
    """`configuration` is the official client's, with host, TLS and credentials in it."""

    def __init__(self, configuration: Any, namespace: str) -> None:
        from kubernetes.client.rest import RESTClientObject

        self.denied = False  # credentials that are no good (401): whoever made us should make another
        configuration.retries = False
        configuration.socket_options = _socket_options()
        self.namespace = namespace
        self.host = str(configuration.host).rstrip("/")
        self._configuration = configuration
        self._pool = RESTClientObject(configuration).pool_manager

    def place(self, group: str, kind: str, name: str = "", sub: str = "") -> str:
        """`group` is `api/v1` or `apis/…`; an object of our namespace, or the whole kind."""
        parts = [group, "namespaces", quote(self.namespace, safe=""), kind, quote(name, safe=""), sub]
        return "/" + "/".join(part for part in parts if part)

    def call(
        self, method: str, path: str, deadline: float, *, query: Query = (), body: Mapping[str, Any] | None = None
    ) -> Answer:
        """`deadline` by time.monotonic(). Raises NoAnswer."""
        with self._open(method, path, deadline, query, body) as response:
            pieces, size = [], 0
            for piece in response.stream(65536):
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES:
                    raise NoAnswer(f"{method} {path}: the answer has more than {MOST_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise NoAnswer(f"{method} {path}: the answer did not end in time")
            self.denied = self.denied or response.status == 401
            return Answer(response.status, b"".join(pieces), dict(response.headers))

    def tail(self, path: str, deadline: float, max_bytes: int, query: Query = ()) -> Answer:
        """The same for something long, of which only the end is kept."""
        kept = bytearray()
        with self._open("GET", path, deadline, query, None) as response:
            for piece in response.stream(65536):
                kept += piece
                del kept[:-max_bytes]
                if time.monotonic() > deadline:
                    break
            return Answer(response.status, bytes(kept), dict(response.headers))

    @contextlib.contextmanager
    def lines(self, path: str, seconds: float, query: Query = ()) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Status and lines of an answer that lasts. A silence of more than `seconds` raises NoAnswer."""
        with self._open("GET", path, time.monotonic() + seconds, query, None) as response:
            yield response.status, _lines(response)

    @contextlib.contextmanager
    def _open(
        self, method: str, path: str, deadline: float, query: Query, body: Mapping[str, Any] | None
    ) -> Iterator[Any]:
        """What goes wrong on the way is a NoAnswer, wherever it does."""
        from urllib3 import Timeout, exceptions

        headers = self._headers(deadline)
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoAnswer(f"{method} {path}: no time is left for it", sent=False)
        response = None
        try:
            response = self._pool.request(
                method,
                self.host + path + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=Timeout(total=left),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            yield response
        except (exceptions.HTTPError, OSError, ValueError) as failed:
            sent = response is not None or not _before_sending(failed)
            where = f"{method} {path}" if sent else f"{self.host} cannot be reached"
            raise NoAnswer(f"{where}: {_reason(failed)}", sent) from failed
        finally:
            if response is not None:
                response.close()  # what was read to its end is in the pool already

    def _headers(self, deadline: float) -> dict[str, str]:
        """The credentials are asked for each time: they may be renewed."""
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "worker-manager"}

        def ask() -> str:
            return self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""

        renews = self._configuration.refresh_api_key_hook is not None
        token = within(deadline, ask, "to renew the credentials") if renews else ask()
        return headers | ({"Authorization": token.strip()} if token else {})


def within(deadline: float, work: Callable[[], Result], what: str) -> Result:
    """In a thread that is left behind when it takes too long: a program that gives tokens may hang, and a server that
    renews them. Raises NoAccess, also for whatever goes wrong in it."""
    outcome: queue.SimpleQueue[tuple[Result | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except Exception as failed:  # what the client's loaders raise ranges from ConfigException to KeyError
            outcome.put((None, failed))

    threading.Thread(target=run, name=what, daemon=True).start()
    try:
        result, failed = outcome.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise NoAccess(f"it took too long {what}") from None
    if isinstance(failed, NoAccess):
        raise failed
    if failed is not None:
        raise NoAccess(f"not possible {what}: {failed}") from failed
    return cast(Result, result)


def _socket_options() -> list[tuple[int, int, int]]:
    """A peer that is gone without a word is noticed within half a minute, also by a watch that only listens."""
    tcp = socket.IPPROTO_TCP
    return [
        (tcp, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (tcp, socket.TCP_KEEPIDLE, 10),
        (tcp, socket.TCP_KEEPINTVL, 5),
        (tcp, socket.TCP_KEEPCNT, 3),
    ]


def _before_sending(failed: BaseException) -> bool:
    """Certainly: there was no connection, or its certificate was not believed."""
    from urllib3 import exceptions

    if isinstance(failed, exceptions.NewConnectionError | exceptions.ConnectTimeoutError):
        return True
    return isinstance(failed, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(failed)


def _lines(response: Any) -> Iterator[bytes]:
    rest = b""
    for piece in response.stream(65536):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _reason(failed: BaseException) -> str:
    """Without the address of an object in it."""
    return clipped(str(failed).rpartition(">: ")[2] or type(failed).__name__)


def _start(body: bytes) -> str:
    return body[:4000].decode("utf-8", "replace")
