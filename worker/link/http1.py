"""The little HTTP/1.1 that the agent speaks to its hub: JSON out, JSON back, one exchange at a time, kept alive.

Pure: bytes in, values out. `http.client` would do the same for 15 ms of imports (it parses headers as e-mail) and a
blocking socket; the agent has one loop and must answer its signals, its keeper and its lease while the hub is silent.
What is not understood here (other framings, endless headers) is `Garbled`, which the agent takes for "unreachable".
"""

from typing import Dict, NamedTuple, Optional

MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024


class Garbled(Exception):
    """What came over the connection is no answer of a hub."""


class Response(NamedTuple):
    status: int
    headers: Dict[str, str]  # names in lower case
    body: bytes
    keep: bool  # the connection may carry another exchange


def request(method: str, path: str, host: str, token: str, body: bytes) -> bytes:
    bearer = "Authorization: Bearer %s\r\n" % token if token else ""
    head = (
        "%s %s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/json\r\n"
        "Accept: application/json, application/problem+json\r\nContent-Length: %d\r\n\r\n"
    ) % (method, path, host, bearer, len(body))
    return head.encode("ascii") + body


class Reader:
    """Collects one response. `feed` returns it when it is complete."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._head: Optional[Response] = None  # without its body
        self._length: Optional[int] = None  # None: chunked
        self._whole = bytearray()  # of the chunks so far

    @property
    def began(self) -> bool:
        return bool(self._data) or self._head is not None

    def feed(self, data: bytes) -> Optional[Response]:
        self._data += data
        while self._head is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                if len(self._data) > MAX_HEAD:
                    raise Garbled("its headers do not end")
                return None
            head = _head(bytes(self._data[:end]))
            del self._data[: end + 4]
            if head.status >= 200:
                self._head = head
                self._length = _body_length(head)
        body = self._body()
        return None if body is None else self._head._replace(body=body)

    def _body(self) -> Optional[bytes]:
        if self._length is None:
            return self._unchunked()
        if len(self._data) > self._length:
            raise Garbled("more came than it announced")
        return bytes(self._data) if len(self._data) == self._length else None

    def _unchunked(self) -> Optional[bytes]:
        """The whole body of a chunked response (a proxy between us may choose that), None while it is incomplete. What
        was taken is not looked at again, however many chunks there are."""
        data, at = self._data, 0
        while True:
            line = data.find(b"\r\n", at)
            if line < 0:
                if len(data) - at > MAX_HEAD:
                    raise Garbled("its chunks do not end")
                break
            try:
                size = int(bytes(data[at:line]).split(b";")[0], 16)
            except ValueError:
                raise Garbled("a chunk has no size") from None
            if size < 0 or len(self._whole) + size > MAX_BODY:
                raise Garbled("its answer is too long")
            end = line + 2 + size
            if len(data) < end + 2:
                break
            if data[end : end + 2] != b"\r\n":
                raise Garbled("a chunk does not end where it should")
            if size == 0:
                return bytes(self._whole)
            self._whole += data[line + 2 : end]
            at = end + 2
        del data[:at]
        return None


def _head(data: bytes) -> Response:
    lines = data.decode("latin-1").split("\r\n")
    status = lines[0].split(" ", 2)
    if len(status) < 2 or not status[0].startswith("HTTP/1.") or len(status[1]) != 3 or not status[1].isdigit():
        raise Garbled("it does not speak HTTP/1.1")
    headers: Dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Garbled("a header line cannot be read")
        headers[name.lower()] = value.strip()
    keep = status[0] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Response(int(status[1]), headers, b"", keep)


def _body_length(head: Response) -> Optional[int]:
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        return None
    if head.status in (204, 304):
        return 0
    text = head.headers.get("content-length", "")
    if not text.isdigit() or not text.isascii():
        raise Garbled("it does not say how long its answer is")
    if int(text) > MAX_BODY:
        raise Garbled("its answer of %s bytes is too long" % text)
    return int(text)
