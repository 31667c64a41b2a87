"""How a request over a line begins to be answered, and what its answer means. What is signed into an address stays out
of every message."""

import email.utils
import http.client
import time
from typing import Mapping, Optional
from urllib.parse import urlsplit

from worker.staging.errors import BrokeOff, Forbidden, Refused
from worker.staging.lines import Line, split

PASSING = (408, 425, 429, 500, 502, 503, 504)
MOVED = (301, 302, 303, 307, 308)


class NoAnswer(Exception):
    """On a line that was used before: ask again on a new one."""


def ask(line: Line, method: str, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """A request without a body, and how its answer begins."""
    try:
        line.http.request(method, line.target(split(url)), headers=dict(headers))
        return line.http.getresponse()
    except (ConnectionError, http.client.RemoteDisconnected):
        if line.used_before:
            raise NoAnswer() from None
        raise


def arrived(reply: http.client.HTTPResponse, room: memoryview) -> int:
    """What has come by now goes into `room`: a slow line is not waited for until that is full. 0: no more comes."""
    if reply.fp is None or reply.chunked or reply.length is None:
        piece = reply.read1(len(room))
        room[: len(piece)] = piece
        return len(piece)
    count = reply.fp.readinto1(room[: reply.length])
    reply.length -= count
    if not reply.length:
        reply.read()  # it is over, and its line may be used again
    return count


def must_be_good(reply: http.client.HTTPResponse, url: str) -> None:
    """Raises what another status than 2xx means."""
    if 200 <= reply.status < 300:
        return
    if reply.status in PASSING:
        raise BrokeOff("%s: HTTP %d" % (shown(url), reply.status), retry_after(reply.getheader("Retry-After")))
    kind = Forbidden if reply.status in (401, 403) else Refused
    raise kind("%s: HTTP %d %s" % (shown(url), reply.status, reply.reason))


def tag_of(reply: http.client.HTTPResponse) -> str:
    return reply.getheader("ETag") or reply.getheader("Last-Modified") or ""


def plain_tag(tag: str) -> str:
    """The same whether it was told by a listing or in a header."""
    return (tag[2:] if tag.startswith("W/") else tag).strip('"')


def shown(url: str) -> str:
    """Without what may be secret: user, password, query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "what is no address"
    if not parts.scheme:
        return "the hub's %s" % parts.path
    return "%s://%s%s" % (parts.scheme, parts.netloc.rpartition("@")[2], parts.path)


def retry_after(text: Optional[str]) -> float:
    if not text:
        return 0.0
    if text.isdigit():
        return min(float(text), 300.0)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return 0.0
    return min(max(0.0, when - time.time()), 300.0)
