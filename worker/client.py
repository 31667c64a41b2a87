"""The agent's way to the hub: where it is, how to reach it, and what its answers mean.

Two kinds of failure, never mixed up: `Refused` is the hub's own no, in its own words (a problem document); anything
else, a cut line, silence, a proxy's page, garbage, an overloaded hub, is `Unreachable`, which is to be tried again.
"""

import json
import socket
from typing import Any, Dict, NamedTuple, Optional

from worker import http1

CONNECT_S = 10.0
EXCHANGE_S = 20.0


class Unreachable(Exception):
    """No answer of the hub: try again, not before `retry_after_ms` when it said so."""

    def __init__(self, text: str, retry_after_ms: int = 0) -> None:
        super().__init__(text)
        self.retry_after_ms = retry_after_ms


class Refused(Exception):
    """The hub said no, and will say it again."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class BadAddress(ValueError):
    """The hub's address cannot be used."""


class Endpoint(NamedTuple):
    """Where the hub is and how to know that it is the right one."""

    secure: bool
    host: str
    port: int
    base: str  # in front of every path, without a slash at its end
    fingerprint: str = ""  # SHA-256 of the certificate (the hub's own or its CA's), hex; "": the system's CAs

    @property
    def authority(self) -> str:
        host = "[%s]" % self.host if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else "%s:%d" % (host, self.port)

    def __str__(self) -> str:
        return "%s://%s%s" % ("https" if self.secure else "http", self.authority, self.base)


def endpoint(url: str, fingerprint: str = "") -> Endpoint:
    """From `http://host:port/base` or `https://…`; plain http only with this machine itself."""
    scheme, found, rest = url.partition("://")
    authority, _, base = rest.partition("/")
    if not found or scheme not in ("http", "https") or not authority or "@" in authority:
        raise BadAddress("%r is no address of a hub: write http://HOST:PORT or https://HOST[:PORT]" % url)
    if not url.isascii() or not url.isprintable() or set(url) & set(" ?#"):
        raise BadAddress("%r has characters that an address of a hub cannot have" % url)
    host, port = _host_and_port(authority, 443 if scheme == "https" else 80, url)
    base = ("/" + base).rstrip("/")
    if scheme == "http" and not _is_loopback(host):
        raise BadAddress("%s is not this machine, so the hub must be spoken to by https" % host)
    if fingerprint and scheme != "https":
        raise BadAddress("a CA fingerprint means nothing with http")
    return Endpoint(scheme == "https", host, port, base, _fingerprint(fingerprint))


def _host_and_port(authority: str, port: int, url: str) -> "tuple[str, int]":
    host, colon, text = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    if not colon:
        host = authority
    elif not text.isdigit() or not 0 < int(text) < 65536:
        raise BadAddress("%r has no usable port" % url)
    else:
        port = int(text)
    return host.strip("[]").lower(), port


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())


def _fingerprint(text: str) -> str:
    digits = text.lower()
    if digits.startswith("sha256:"):
        digits = digits[7:]
    digits = digits.replace(":", "")
    if digits and (len(digits) != 64 or set(digits) - set("0123456789abcdef")):
        raise BadAddress("a CA fingerprint is sha256: and 64 hex digits")
    return digits


def dial(to: Endpoint, timeout_s: float = CONNECT_S) -> socket.socket:
    """A connection that is ready for a request; blocks for `timeout_s` at the most for each step."""
    try:
        if to.secure:
            from worker.pinned import connect

            return connect(to, timeout_s)
        return plain(to, timeout_s)
    except (OSError, http1.Garbled) as error:
        raise Unreachable("cannot connect to %s: %s" % (to, error)) from None


def plain(to: Endpoint, timeout_s: float) -> socket.socket:
    connection = socket.create_connection((to.host, to.port), timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def exchange(connection: socket.socket, data: bytes, timeout_s: float = EXCHANGE_S) -> http1.Response:
    """One request and its response, waiting for each part `timeout_s` at the most."""
    connection.settimeout(timeout_s)
    reader = http1.Reader()
    try:
        connection.sendall(data)
        while True:
            part = connection.recv(65536)
            if not part:
                raise Unreachable("it closed the connection without an answer")
            response = reader.feed(part)
            if response is not None:
                return response
    except (OSError, http1.Garbled) as error:
        raise Unreachable(str(error) or type(error).__name__) from None


def post(to: Endpoint, path: str, token: str, body: Dict[str, Any]) -> bytes:
    text = json.dumps(body, separators=(",", ":"))
    return http1.request("POST", to.base + path, to.authority, token, text.encode())


def answer(response: http1.Response) -> Dict[str, Any]:
    """What the hub said. Raises Refused or Unreachable."""
    status = response.status
    if status in (408, 429) or status >= 500:
        text = "it answers %d: %s" % (status, _problem(response).get("detail") or "no reason given")
        raise Unreachable(text, _retry_after_ms(response))
    if 400 <= status < 500:
        problem = _problem(response)
        if not problem:
            raise Unreachable("something that is not the hub answers %d" % status)
        text = problem.get("detail") or problem.get("title") or "no reason given"
        raise Refused(status, str(problem.get("code") or ""), str(text)[:1000])
    if not 200 <= status < 300:
        raise Unreachable("it answers %d" % status)
    return _object(response.body)


def _object(body: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreachable("its answer is no JSON") from None
    if not isinstance(value, dict):
        raise Unreachable("its answer is no JSON object")
    return value


def _problem(response: http1.Response) -> Dict[str, Any]:
    """The problem document of an error; {} when there is none."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        return _object(response.body)
    except Unreachable:
        return {}


def _retry_after_ms(response: http1.Response) -> int:
    text: Optional[str] = response.headers.get("retry-after")
    return min(int(text), 3600) * 1000 if text and text.isascii() and text.isdigit() else 0
