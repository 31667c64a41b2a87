"""One file to where the hub has granted it a place: to the hub itself, resumed where it broke off; or to an object
storage, whole."""

import http.client
import os
from typing import Any, Callable, Dict, Mapping, NamedTuple

from worker.staging.errors import BrokeOff, Distrusted, Forbidden, Refused, StagingError
from worker.staging.grants import NONSENSE, headers_of, must_not_be_refused
from worker.staging.http import Patience, Wait
from worker.staging.lines import Line, Lines, said, split
from worker.staging.replies import NoAnswer, ask, must_be_good, shown
from worker.staging.stops import Stop

PIECE = 2**20
SMALL = 2**20  # such a one is not asked for first: it goes in one piece
AT_ONCE = 64 * 2**20  # what a request carries: so much is lost at the most when a line breaks
YIELDS = 3  # to another sender of the same, who comes no further
OFFSET = "Upload-Offset"
TYPE = "application/octet-stream"


class Altered(StagingError):
    """The file is not what it was when it was digested."""


class NoRoom(BrokeOff):
    """Somebody may make some; but where the job runs is all the same."""

    again = False


class Place(NamedTuple):
    """Where one file goes."""

    url: str  # "": it is there already
    headers: Mapping[str, str]
    at: str

    @property
    def is_hub(self) -> bool:
        return self.url.startswith("/")


def place_of(path: str, told: Any) -> Place:
    """Raises Refused as the hub says it, and BrokeOff for what makes no sense."""
    must_not_be_refused(path, told)
    if isinstance(told, dict) and isinstance(told.get("at"), str) and told["at"]:
        if told.get("there") is True:
            return Place("", {}, told["at"])
        if isinstance(told.get("url"), str) and told["url"]:
            if not told["url"].startswith("/") and told.get("method", "PUT") != "PUT":
                raise Refused("%s: the hub wants it sent by a way that is not known here" % path)
            return Place(told["url"], headers_of(told), told["at"])
    raise BrokeOff(NONSENSE)


class Sending:
    """One file, whose descriptor is open. `renewed` gets another address when one is refused."""

    def __init__(
        self,
        handle: int,
        size: int,
        lines: Lines,
        stop: Stop,
        progress: Callable[[int], None],
        renewed: Callable[[], Place],
    ) -> None:
        self._handle = handle
        self._size = size
        self._lines = lines
        self._stop = stop
        self._progress = progress
        self._renewed = renewed
        self._there = 0
        self._yielded = 0

    def go(self, place: Place, patience: Patience, wait: Wait) -> Place:
        """Until it is there: where that is. Raises StagingError, Altered among them, Stopped and OSError."""
        failures = renewals = 0
        asks = self._size > SMALL
        while True:
            before = self._there
            try:
                if not place.is_hub:
                    self._put(place)
                    return place
                if asks and self._is_there(place):
                    return place
                while not self._patch(place):
                    pass
                return place
            except Forbidden:
                renewals += 1
                if renewals > patience.tries:
                    raise
                place = self._renewed()
                if not place.url:
                    return place
            except (BrokeOff, Distrusted) as error:
                failures = 1 if self._there > before else failures + 1
                if failures >= patience.tries:
                    raise
                wait(patience.pause(failures, getattr(error, "after_s", 0.0)), str(error))
            asks = True

    # ------------------------------------------------------------ the hub

    def _is_there(self, place: Place) -> bool:
        """All of it; else we go on where the hub's part ends."""
        url = self._lines.absolute(place.url)
        reply = self._exchange(url, lambda line: ask(line, "HEAD", url, {**line.headers(), **place.headers}))
        if reply.status == 200:
            self._progress(self._size)
            return True
        if reply.status == 404:  # a hub always says how much it has
            before, self._there = self._there, self._offset(reply, url)
            if reply.getheader("Retry-After") and (self._there > before or self._yielded < YIELDS):
                self._yielded += 1
                raise BrokeOff("%s: somebody else sends it" % shown(url), 1.0)
            return False
        must_be_good(reply, url)
        raise BrokeOff("%s: HTTP %d" % (shown(url), reply.status))

    def _patch(self, place: Place) -> bool:
        """One request's worth. True: all of it is there, and is what it should be."""
        url = self._lines.absolute(place.url)
        begin, length = self._there, min(AT_ONCE, self._size - self._there)
        headers = {OFFSET: str(begin), "Upload-Length": str(self._size), "Content-Type": TYPE, **place.headers}
        reply = self._exchange(url, lambda line: self._sent(line, "PATCH", url, headers, begin, length))
        if reply.status in (200, 201):
            self._there = self._size
            self._progress(self._size)
            return True
        if reply.status == 204:
            self._there = self._offset(reply, url)
            if self._there <= begin:
                raise BrokeOff("%s: the hub took nothing of it" % shown(url))
            return False
        if reply.status == 409:
            self._there = self._offset(reply, url)
            raise BrokeOff("%s: the hub has another part of it" % shown(url))
        if reply.status == 422:
            self._there = 0
            raise Altered("%s: what came is not what was announced" % shown(url))
        if reply.status == 507:
            raise NoRoom("%s: there is no room for it" % shown(url))
        if reply.status == 413:
            raise Refused("%s: it is too large" % shown(url))
        must_be_good(reply, url)
        raise BrokeOff("%s: HTTP %d" % (shown(url), reply.status))

    def _offset(self, reply: http.client.HTTPResponse, url: str) -> int:
        text = reply.getheader(OFFSET) or ""
        if not text.isdigit() or int(text) > self._size:
            raise BrokeOff("%s: what the hub answers makes no sense" % shown(url))
        return int(text)

    # ------------------------------------------------------------ an object storage

    def _put(self, place: Place) -> None:
        headers = dict(place.headers)
        if "content-type" not in map(str.lower, headers):
            headers["Content-Type"] = TYPE
        reply = self._exchange(place.url, lambda line: self._sent(line, "PUT", place.url, headers, 0, self._size))
        must_be_good(reply, place.url)

    # ------------------------------------------------------------ a line

    def _exchange(self, url: str, act: Callable[[Line], http.client.HTTPResponse]) -> http.client.HTTPResponse:
        """Its answer, read to its end."""
        while True:
            with self._lines.to(url, self._stop) as line:
                try:
                    reply = act(line)
                    reply.read(PIECE)
                    self._lines.done_with(line, reply)
                    return reply
                except NoAnswer:
                    continue
                except http.client.InvalidURL:
                    raise Refused("%s is no address" % shown(url)) from None
                except (OSError, ValueError, http.client.HTTPException) as error:
                    self._stop.check()
                    raise BrokeOff("%s: %s" % (shown(url), said(error))) from None

    def _sent(
        self, line: Line, method: str, url: str, headers: Dict[str, str], begin: int, length: int
    ) -> http.client.HTTPResponse:
        """The answer may come before all was said: then that is what counts."""
        line.http.putrequest(method, line.target(split(url)), skip_accept_encoding=True)
        for name, value in {**line.headers(), "User-Agent": "wm-worker", **headers}.items():
            line.http.putheader(name, value)
        line.http.putheader("Content-Length", str(length))
        line.http.endheaders()
        try:
            self._pour(line, begin, length)
        except (BrokenPipeError, ConnectionResetError) as error:
            return _answer_all_the_same(line, error)
        return line.http.getresponse()

    def _pour(self, line: Line, begin: int, length: int) -> None:
        buffer = bytearray(min(PIECE, max(1, length)))
        at, end = begin, begin + length
        while at < end:
            self._stop.check()
            piece = memoryview(buffer)[: min(len(buffer), end - at)]
            count = self._read(piece, at)
            line.http.send(piece[:count])
            at += count
            self._progress(at)

    def _read(self, piece: memoryview, at: int) -> int:
        try:
            count = os.preadv(self._handle, [piece], at)
        except OSError as error:
            raise BrokeOff("the file cannot be read: %s" % error.strerror) from None
        if not count:
            raise Altered("it has become shorter")
        return count


def _answer_all_the_same(line: Line, error: OSError) -> http.client.HTTPResponse:
    try:
        return line.http.getresponse()
    except (OSError, http.client.HTTPException):
        raise error from None
