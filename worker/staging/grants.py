"""Asking the hub for addresses, and remembering them for an attempt while they are good."""

import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from worker.link import client, connection
from worker.link.address import Endpoint
from worker.staging.errors import BrokeOff, Refused
from worker.staging.http import Source
from worker.staging.lines import dial
from worker.staging.stops import Stop

MARGIN_MS = 20_000  # an address that ends so soon is not begun with
HEX = frozenset("0123456789abcdef")
MOST_FILES = 1_000_000
AT_ONCE = 500  # sources of one question
PASSING = ("storage-unavailable",)  # codes of refusals
AGAIN = "ask-again"  # likewise: there was no room for it beside what else was asked
NONSENSE = "what the hub answers makes no sense"


class Part(NamedTuple):
    """One file of a source: where it is within it, and how it is had."""

    path: str  # "" for the source itself
    source: Source
    sha256: str = ""

    @property
    def identity(self) -> str:
        """Which content it is; "" when nothing tells."""
        return self.sha256 or (self.source.tag and "tag " + self.source.tag)


class Hub:
    """The worker's word with the hub. Used by many threads."""

    def __init__(self, server: Endpoint, worker: str, credential: str, session: int, timeout_s: float) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._path = "/v1/workers/%s/grants" % worker
        self.credential = credential
        self.session = session

    def ask(self, job: str, epoch: int, what: Dict[str, Any], stop: Stop) -> Dict[str, Any]:
        """Once. Raises BrokeOff, Distrusted and Stopped."""
        body = {"session": self.session, "job": job, "epoch": epoch, **what}
        with dial(self._server) as line, stop.ends(line):
            try:
                asked = client.post(self._server, self._path, self.credential, body)
                return client.answer(connection.exchange(line, asked, self._timeout_s))
            except connection.Unreachable as error:
                stop.check()
                text = "the hub gave no addresses: %s" % error
                raise BrokeOff(text, error.retry_after_ms / 1000) from None
            except client.Refused as error:
                # This attempt, or this worker, has no right to ask any more: others may.
                raise BrokeOff("the hub gives no addresses: %s" % error) from None


class Book:
    """The addresses of one attempt. `ask(what, read)` asks the hub and has its answer read, with patience."""

    def __init__(self, ask: Callable[[Dict[str, Any], "Read"], "Answer"], utc_ms: Callable[[], int]) -> None:
        self._ask = ask
        self._utc_ms = utc_ms
        self._lock = threading.Lock()
        self._known: Dict[str, List[Part]] = {}
        self._until: Dict[str, int] = {}

    def learn(self, sources: Sequence[str]) -> None:
        """All of them at once. Raises what `parts` does."""
        with self._lock:
            for at in range(0, len(sources), AT_ONCE):
                self._learn(sources[at : at + AT_ONCE])

    def knows(self, source: str) -> bool:
        with self._lock:
            return source in self._known

    def parts(self, source: str) -> List[Part]:
        """Raises Refused, and what asking raises."""
        with self._lock:
            return self._parts(source)

    def newest(self, source: str, path: str, refused: Optional[Source]) -> Source:
        """Its address. `refused`: the one that was tried; anew when nobody has asked since, or it ends soon."""
        with self._lock:
            found = self._one(source, path)
            if found == refused or self._utc_ms() > self._until.get(source, 0) - MARGIN_MS:
                self._learn([source])
                found = self._one(source, path)
            return found

    def _one(self, source: str, path: str) -> Source:
        for part in self._parts(source):
            if part.path == path:
                return part.source
        raise Refused("%s has no %s any more" % (source, path) if path else "%s is a folder" % source)

    def _parts(self, source: str) -> List[Part]:
        if source not in self._known:
            self._learn([source])
        parts = self._known[source]
        if not parts:
            raise Refused("%s is empty" % source)
        return parts

    def _learn(self, sources: Sequence[str]) -> None:
        given, until = self._ask({"get": list(sources)}, lambda answer: read(sources, answer))
        now = self._utc_ms()
        # One that has ended before it came tells of clocks that differ: then a 403 tells when to ask again.
        until = until if until > now + 2 * MARGIN_MS else now + 60_000
        for source, each in zip(sources, given):  # noqa: B905  # Python 3.9; their lengths are the same
            if each is None:
                continue
            if isinstance(each, Refused):
                raise each
            self._known[source] = each
            self._until[source] = until


# In the order of the sources, and until when. None: to be asked for by itself.
Answer = Tuple[List[Union[List[Part], Refused, None]], int]
Read = Callable[[Dict[str, Any]], Answer]


def read(sources: Sequence[str], answer: Dict[str, Any]) -> Answer:
    """Raises BrokeOff for what makes no sense."""
    given, until = answer.get("get"), answer.get("until_ms")
    if not isinstance(given, list) or len(given) != len(sources) or not is_amount(until):
        raise BrokeOff(NONSENSE)
    found: List[Union[List[Part], Refused, None]] = []
    for source, each in zip(sources, given):  # noqa: B905  # as long as each other
        try:
            found.append(None if len(sources) > 1 and _is_to_be_asked_again(each) else parts_of(source, each))
        except Refused as error:
            found.append(error)
    return found, int(until or 0)


def _is_to_be_asked_again(told: Any) -> bool:
    refused = told.get("refused") if isinstance(told, dict) else None
    return isinstance(refused, dict) and refused.get("code") == AGAIN


def parts_of(source: str, told: Any) -> List[Part]:
    """Raises Refused as the hub says it, and BrokeOff for what makes no sense."""
    must_not_be_refused(source, told)
    files = told.get("files") if isinstance(told, dict) else None
    if not isinstance(files, list) or len(files) > MOST_FILES:
        raise BrokeOff(NONSENSE)
    return [_part(each) for each in files]


def _part(told: Any) -> Part:
    words = [told.get(name, "") or "" for name in ("path", "url", "sha256", "tag")] if isinstance(told, dict) else []
    if not words or not all(isinstance(word, str) for word in words) or not words[1]:
        raise BrokeOff(NONSENSE)
    path, url, sha256, tag = words
    headers, size = headers_of(told), told.get("size")
    if (sha256 and not is_digest(sha256)) or not (size is None or is_amount(size)):
        raise BrokeOff(NONSENSE)
    # What has a digest is held against that, not against a mark that its storage may tell in other words.
    return Part(path, Source(url, headers, size, "" if sha256 else tag), sha256)


def headers_of(told: Dict[str, Any]) -> Dict[str, str]:
    headers = told.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(word, str) for pair in headers.items() for word in pair):
        raise BrokeOff(NONSENSE)
    return headers


def must_not_be_refused(what: str, told: Any) -> None:
    """Raises Refused as the hub says it, BrokeOff for what may pass by itself."""
    refused = told.get("refused") if isinstance(told, dict) else None
    if isinstance(refused, dict):
        kind = BrokeOff if refused.get("code") in PASSING else Refused
        raise kind("%s: %s" % (what, str(refused.get("text") or refused.get("code") or "the hub refuses it")[:1000]))


def is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - HEX


def is_amount(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
