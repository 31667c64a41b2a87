"""What the hub is told of the cache: changes as they come, and all of it when the hub asks.

The whole is kept here too, so that a hub that starts again hears it without anybody looking through the cache.
"""

from typing import Any, Dict, List, Mapping, Optional, Tuple

from worker.protocol import CacheNews

Key = Tuple[str, str]  # scope, key

MOST = 20_000  # entries told of; the hub remembers no more of one worker
AT_ONCE = 5000  # in one report


class CacheTale:
    """Pure. Nothing is told before something is known, or asked for."""

    def __init__(self) -> None:
        self._held: Dict[Key, int] = {}
        self._untold: Dict[Key, Optional[int]] = {}  # None: gone
        self._counts: Dict[str, int] = {}
        self._from_the_start = True  # the next word is the first one: forget what was told before
        self.waits = False  # there is something to tell

    def learn(self, news: Mapping[str, Any]) -> None:
        """A `CacheNews` of the stager. What is there already, or gone already, is no news."""
        if news.get("all"):
            there = {(scope, key) for scope, key, _ in news.get("added") or ()}
            for one in [one for one in self._held if one not in there]:
                self._lose(one)
        for scope, key in news.get("gone") or ():
            self._lose((scope, key))
        for scope, key, size in news.get("added") or ():
            self._add((scope, key), size)
        counts = news.get("counts")
        if counts and counts != self._counts:
            self._counts = dict(counts)
            self.waits = True

    def tell_all(self) -> None:
        """The hub knows nothing, or not enough."""
        self._untold = dict(self._held)
        self._from_the_start = self.waits = True

    def take(self) -> CacheNews:
        """The next part of what the hub was not told; it is resent by whoever sends it."""
        part = [(one, self._untold[one]) for one in list(self._untold)[:AT_ONCE]]
        for one, _ in part:
            del self._untold[one]
        news: CacheNews = {}
        added: List[List[Any]] = [[*one, size] for one, size in part if size is not None]
        gone: List[List[Any]] = [[*one] for one, size in part if size is None]
        if self._from_the_start:
            news["all"], self._from_the_start = True, False
            news["added"], gone = added, []
        if added:
            news["added"] = added
        if gone:
            news["gone"] = gone
        if self._counts:
            news["counts"] = dict(self._counts)
        self.waits = bool(self._untold)
        return news

    def _add(self, one: Key, size: int) -> None:
        if self._held.get(one) == size or (one not in self._held and len(self._held) >= MOST):
            return
        self._held[one] = self._untold[one] = size
        self.waits = True

    def _lose(self, one: Key) -> None:
        if self._held.pop(one, None) is None:
            return
        self._untold.pop(one, None)
        if not self._from_the_start:
            self._untold[one] = None
        self.waits = True
