"""A file over HTTP(S): streamed to disk and digested on its way, resumed where a line broke, tried again with pauses.

What is signed into a URL stays out of every message.
"""

import errno
import http.client
import os
import random
import time
from typing import Callable, Dict, Mapping, NamedTuple, Optional
from urllib.parse import urljoin

from worker.cache.digests import Content
from worker.staging.copying import write
from worker.staging.digesting import PIECE, Digest
from worker.staging.errors import BrokeOff, Corrupt, Forbidden, Moved, Refused
from worker.staging.lines import Line, Lines, said, split
from worker.staging.replies import (
    MOVED,
    PASSING,
    NoAnswer,
    arrived,
    ask,
    must_be_good,
    plain_tag,
    retry_after,
    shown,
    tag_of,
)
from worker.staging.stops import Stop

REDIRECTS = 5
RENEWALS = 3  # in a row without a byte of progress
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.ESTALE)
Wait = Callable[[float, str], None]  # for so many seconds, because of what went wrong
Progress = Callable[[int, Optional[int]], None]  # bytes there, bytes in all where that is known


class Patience(NamedTuple):
    tries: int = 8  # in a row without a byte of progress
    first_s: float = 0.5
    longest_s: float = 30.0

    def pause(self, failures: int, after_s: float = 0.0) -> float:
        """Before the next try, when so many in a row have failed."""
        pause = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return max(pause * (0.5 + random.random()), after_s)  # noqa: S311 (no secret depends on it)


class Source(NamedTuple):
    url: str
    headers: Mapping[str, str] = {}  # go to that host only, never along a redirect
    size: Optional[int] = None
    tag: str = ""  # of the version that is meant


def nobody_looks(_there: int, _whole: Optional[int]) -> None:
    pass


def rest(seconds: float, _why: str) -> None:
    time.sleep(seconds)


def fetch(
    source: Source,
    path: str,
    *,
    progress: Progress = nobody_looks,
    patience: Patience = Patience(),  # noqa: B008
    wait: Wait = rest,
    lines: Optional[Lines] = None,
    stop: Optional[Stop] = None,
    renewed: Optional[Callable[[bool], Source]] = None,
) -> Content:
    """Into a new file. `renewed` has the source's newest address, asked for before each connection; True: the one
    before was refused. Raises Refused, BrokeOff when patience is at its end, Moved, Stopped, and OSError of the
    disk."""
    with open(path, "xb", buffering=0) as file:
        download = _Download(source, file.fileno(), progress, lines or Lines(), stop or Stop())
        try:
            return _fetched(download, patience, wait, renewed)
        finally:
            download.close()


def _fetched(
    download: "_Download",
    patience: Patience,
    wait: Wait,
    renewed: Optional[Callable[[bool], Source]],
) -> Content:
    failures = renewals = 0
    while True:
        before = download.there
        try:
            if renewed is not None:
                download.source = renewed(False)
            return download.go()
        except Forbidden:
            renewals = 1 if download.there > before else renewals + 1
            if renewed is None or renewals > RENEWALS:
                raise
            download.source = renewed(True)
        except BrokeOff as error:
            failures = 1 if download.there > before else failures + 1
            if failures >= patience.tries or isinstance(error, Moved):
                raise
            wait(patience.pause(failures, error.after_s), str(error))


class _Download:
    def __init__(self, source: Source, file: int, progress: Progress, lines: Lines, stop: Stop) -> None:
        self.source = source
        self._file = file
        self._progress = progress
        self._lines = lines
        self._stop = stop
        self._tag = ""  # of what the bytes that are there belong to
        self.there = 0
        self._digest = Digest()

    def close(self) -> None:
        self._digest.close()

    def go(self) -> Content:
        """All that is missing. Each redirect is a line of its own."""
        url, headers = self._lines.absolute(self.source.url), dict(self.source.headers)
        for _ in range(REDIRECTS + 1):
            where = self._over_a_line(url, headers)
            if where is None:
                return Content(self._digest.hex(), self.there)
            elsewhere = joined(url, where)
            if split(elsewhere)[:2] != split(url)[:2]:
                headers = {}
            if split(url).scheme == "https" and split(elsewhere).scheme != "https":
                raise Refused("%s leads from https to something else" % shown(url))
            url = elsewhere
        raise Refused("%s leads on and on" % shown(self.source.url))

    def _over_a_line(self, url: str, headers: Mapping[str, str]) -> Optional[str]:
        """None when everything is there, else where it is instead. A line that was kept may have died unseen."""
        while True:
            with self._lines.to(url, self._stop) as line:
                try:
                    reply = self._ask(line, url, headers)
                    if reply.status in MOVED and reply.getheader("Location"):
                        reply.read(PIECE)
                        self._lines.done_with(line, reply)
                        return reply.getheader("Location")
                    self._take(reply, url)
                    self._lines.done_with(line, reply)
                    return None
                except NoAnswer:
                    continue
                except http.client.InvalidURL:
                    raise Refused("%s is no address of a file" % shown(url)) from None
                except (OSError, ValueError, http.client.HTTPException) as error:
                    if getattr(error, "errno", None) in OF_THE_DISK:
                        raise
                    self._stop.check()
                    raise BrokeOff("%s: %s" % (shown(url), said(error))) from None

    def _ask(self, line: Line, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        asked: Dict[str, str] = {"Accept-Encoding": "identity", "User-Agent": "wm-worker", **line.headers(), **headers}
        if self.there and self._tag:
            asked["Range"] = "bytes=%d-" % self.there
            asked["If-Range"] = self._tag
        elif self.there:
            self._start_again()
        return ask(line, "GET", url, asked)

    def _take(self, reply: http.client.HTTPResponse, url: str) -> None:
        if reply.status == 206:
            self._must_continue(reply, url)
        elif reply.status == 200:
            self._start_again()
        elif reply.status == 416 and self.there:
            self._start_again()
            raise BrokeOff("%s: what was there has changed" % shown(url))
        else:
            must_be_good(reply, url)
            raise Refused("%s: HTTP %d" % (shown(url), reply.status))
        if (reply.getheader("Content-Encoding") or "identity") != "identity":
            raise Refused("%s: it comes packed, which was not asked for" % shown(url))
        found = tag_of(reply)
        if self.source.tag and found and plain_tag(found) != plain_tag(self.source.tag):
            raise Moved("%s: it has changed since it was looked at" % shown(url))
        self._tag = "" if found.startswith("W/") else found
        length = reply.getheader("Content-Length")
        whole = self.there + int(length) if length and length.isdigit() else self.source.size
        self._read(reply, url, whole)

    def _read(self, reply: http.client.HTTPResponse, url: str, whole: Optional[int]) -> None:
        wanted = self.source.size
        while True:
            room = self._digest.room()
            count = arrived(reply, room)
            if not count:
                break
            self._digest.add(count)
            write(self._file, room[:count])
            self.there += count
            self._progress(self.there, whole)
            self._stop.check()
            if wanted is not None and self.there > wanted:
                break
        if whole is not None and self.there < whole:
            raise BrokeOff("%s: it broke off after %d of %d bytes" % (shown(url), self.there, whole))
        if wanted is not None and self.there != wanted:
            raise Corrupt("%s: it has %d bytes, not %d" % (shown(url), max(self.there, whole or 0), wanted))

    def _must_continue(self, reply: http.client.HTTPResponse, url: str) -> None:
        said_range = reply.getheader("Content-Range") or ""
        if not said_range.startswith("bytes %d-" % self.there):
            self._start_again()
            raise BrokeOff("%s: it went on at another place than was asked for" % shown(url))

    def _start_again(self) -> None:
        self._tag = ""
        if self.there:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            self._digest.close()
            self.there, self._digest = 0, Digest()


def look(url: str, lines: Lines, stop: Stop, headers: Mapping[str, str] = {}) -> "tuple[str, Optional[int]]":
    """Which version lies there, "" where that cannot be told, and its size. A server that knows no HEAD tells nothing.
    Raises BrokeOff, Refused only for an address that cannot be one."""
    for _ in range(REDIRECTS + 1):
        try:
            with lines.to(url, stop) as line:
                reply = ask(line, "HEAD", url, {"Accept-Encoding": "identity", **line.headers(), **headers})
                reply.read()
                lines.done_with(line, reply)
        except NoAnswer:
            continue
        except (OSError, ValueError, http.client.HTTPException) as error:
            stop.check()
            raise BrokeOff("%s: %s" % (shown(url), said(error))) from None
        where = reply.getheader("Location")
        if reply.status in MOVED and where:
            url, headers = joined(url, where), {}
            continue
        if reply.status in PASSING:
            raise BrokeOff("%s: HTTP %d" % (shown(url), reply.status), retry_after(reply.getheader("Retry-After")))
        length = reply.getheader("Content-Length") or ""
        good = reply.status == 200
        return (tag_of(reply) if good else ""), (int(length) if good and length.isdigit() else None)
    return "", None


def joined(url: str, where: str) -> str:
    try:
        return urljoin(url, where)
    except ValueError:
        raise Refused("%s leads to what is no address" % shown(url)) from None
