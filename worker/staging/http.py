"""A file over HTTP(S): streamed to disk and digested on its way, resumed where a line broke, tried again with pauses.

What is signed into a URL stays out of every message.
"""

import email.utils
import errno
import hashlib
import http.client
import os
import random
import socket
import ssl
import time
from typing import Callable, Dict, Mapping, NamedTuple, Optional
from urllib.parse import urljoin, urlsplit

from worker.cache.digests import Content
from worker.staging.errors import BrokeOff, Refused

PIECE = 2**20
TIMEOUT_S = 60.0
REDIRECTS = 5
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)
PASSING = (408, 425, 429, 500, 502, 503, 504)
Progress = Callable[[int, Optional[int]], None]  # bytes there, bytes in all where that is known


class Patience(NamedTuple):
    tries: int = 8  # in a row without a byte of progress
    first_s: float = 0.5
    longest_s: float = 30.0


class Source(NamedTuple):
    url: str
    headers: Mapping[str, str] = {}  # go to that host only, never along a redirect
    size: Optional[int] = None


def nobody_looks(_there: int, _whole: Optional[int]) -> None:
    pass


def fetch(
    source: Source,
    path: str,
    *,
    progress: Progress = nobody_looks,
    go_on: Callable[[], bool] = lambda: True,
    patience: Patience = Patience(),  # noqa: B008
    wait: Callable[[float], None] = time.sleep,
    context: Optional[ssl.SSLContext] = None,
) -> Content:
    """Into a new file. Raises Refused, BrokeOff when patience is at its end, and OSError of the disk."""
    with open(path, "xb", buffering=0) as file:
        download = _Download(source, file.fileno(), progress, go_on, context)
        failures = 0
        while True:
            before = download.there
            try:
                if download.go():
                    return Content(download.digest.hexdigest(), download.there)
            except BrokeOff as error:
                failures = 1 if download.there > before else failures + 1
                if failures >= patience.tries or not go_on():
                    raise
                pause = min(patience.longest_s, patience.first_s * 2 ** (failures - 1))
                wait(max(pause * (0.5 + random.random()), error.after_s))  # noqa: S311 (no secret depends on it)


class _Download:
    def __init__(
        self,
        source: Source,
        file: int,
        progress: Progress,
        go_on: Callable[[], bool],
        context: Optional[ssl.SSLContext],
    ) -> None:
        self._source = source
        self._file = file
        self._progress = progress
        self._go_on = go_on
        self._context = context
        self._tag = ""  # of what the bytes that are there belong to
        self.there = 0
        self.digest = hashlib.sha256()

    def go(self) -> bool:
        """One connection. True when everything is there."""
        url, headers = self._source.url, dict(self._source.headers)
        for _ in range(REDIRECTS + 1):
            connection = _connect(url, self._context)
            try:
                reply = self._ask(connection, url, headers)
                where = reply.getheader("Location") if reply.status in (301, 302, 303, 307, 308) else None
                if where is None:
                    return self._take(reply, url)
                elsewhere = urljoin(url, where)
                if urlsplit(elsewhere)[:2] != urlsplit(url)[:2]:
                    headers = {}
                if urlsplit(url).scheme == "https" and urlsplit(elsewhere).scheme != "https":
                    raise Refused("%s leads from https to something else" % shown(url))
                url = elsewhere
            except ssl.SSLCertVerificationError as error:
                raise Refused("%s: %s" % (shown(url), error.verify_message)) from None
            except (OSError, http.client.HTTPException) as error:
                if getattr(error, "errno", None) in OF_THE_DISK:
                    raise
                raise BrokeOff("%s: %s" % (shown(url), _plain(error))) from None
            finally:
                connection.close()
        raise Refused("%s leads on and on" % shown(self._source.url))

    def _ask(
        self, connection: http.client.HTTPConnection, url: str, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        asked: Dict[str, str] = {"Accept-Encoding": "identity", "User-Agent": "wm-worker", **headers}
        if self.there and self._tag:
            asked["Range"] = "bytes=%d-" % self.there
            asked["If-Range"] = self._tag
        elif self.there:
            self._start_again()
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        connection.request("GET", target, headers=asked)
        return connection.getresponse()

    def _take(self, reply: http.client.HTTPResponse, url: str) -> bool:
        if reply.status == 206:
            self._must_continue(reply, url)
        elif reply.status == 200:
            self._start_again()
        elif reply.status == 416 and self.there:
            self._start_again()
            raise BrokeOff("%s: what was there has changed" % shown(url))
        elif reply.status in PASSING:
            raise BrokeOff("%s: HTTP %d" % (shown(url), reply.status), _retry_after(reply.getheader("Retry-After")))
        else:
            raise Refused("%s: HTTP %d %s" % (shown(url), reply.status, reply.reason))
        if (reply.getheader("Content-Encoding") or "identity") != "identity":
            raise Refused("%s: it comes packed, which was not asked for" % shown(url))
        tag = reply.getheader("ETag") or ""
        self._tag = tag if tag and not tag.startswith("W/") else reply.getheader("Last-Modified") or ""
        length = reply.getheader("Content-Length")
        whole = self.there + int(length) if length and length.isdigit() else self._source.size
        return self._read(reply, url, whole)

    def _read(self, reply: http.client.HTTPResponse, url: str, whole: Optional[int]) -> bool:
        buffer = memoryview(bytearray(PIECE))
        while True:
            count = reply.readinto(buffer)
            if not count:
                break
            piece = buffer[:count]
            self.digest.update(piece)
            _write(self._file, piece)
            self.there += count
            self._progress(self.there, whole)
            if not self._go_on():
                raise Refused("nobody waits for it any more")
        if whole is not None and self.there < whole:
            raise BrokeOff("%s: it broke off after %d of %d bytes" % (shown(url), self.there, whole))
        if self._source.size is not None and self.there != self._source.size:
            raise Refused("%s: it has %d bytes, not %d" % (shown(url), self.there, self._source.size))
        return True

    def _must_continue(self, reply: http.client.HTTPResponse, url: str) -> None:
        said = reply.getheader("Content-Range") or ""
        if not said.startswith("bytes %d-" % self.there):
            self._start_again()
            raise BrokeOff("%s: it went on at another place than was asked for" % shown(url))

    def _start_again(self) -> None:
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.there, self._tag, self.digest = 0, "", hashlib.sha256()


def _connect(url: str, context: Optional[ssl.SSLContext]) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("%s is no address of a file" % shown(url))
    if parts.scheme == "https":
        safe = context or ssl.create_default_context()
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT_S, context=safe)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)


def shown(url: str) -> str:
    """Without what may be secret: user, password, query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = ":%d" % parts.port if parts.port else ""
    return "%s://%s%s%s" % (parts.scheme, host, port, parts.path)


def _retry_after(text: Optional[str]) -> float:
    if not text:
        return 0.0
    if text.isdigit():
        return min(float(text), 300.0)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return 0.0
    return min(max(0.0, when - time.time()), 300.0)


def _write(file: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(file, piece) :]


def _plain(error: BaseException) -> str:
    if isinstance(error, socket.timeout):
        return "no answer came in time"
    return str(error) or type(error).__name__
