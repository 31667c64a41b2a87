"""What workers' caches hold, as they told it with their reports, and what their caches have saved.

In memory only: a hub that starts again, or hears a worker of which it knows nothing, asks (`Reported.tell`) and is told
everything. Of several hubs on one database each knows what it was told itself: what it believes of a cache may be old,
which costs a download and nothing else. The writer's thread learns and looks up; others only read figures.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from worker.protocol import LARGEST, CacheNews

Mark = int  # of an entry: remembered in place of its name, which takes several times as much

MOST_WORKERS = 20_000  # the longest silent is forgotten first
MOST_KEYS = 20_000  # of one worker
MOST_IN_ALL = 1_000_000  # some 120 to 230 MiB; what is beyond is not remembered: nobody is preferred for it
LONGEST_NAME = 80
COUNTS = ("hits", "hit_bytes", "misses", "built_bytes", "waited", "broken", "evicted", "evicted_bytes")
NOTHING: Mapping[Mark, int] = {}


def mark_of(scope: str, key: str) -> Mark:
    """Of an entry as caches name it. That two get the same is next to impossible, and would cost a download."""
    return hash((scope, key))


class _Cache:
    __slots__ = ("bytes", "counts", "entries", "session")

    def __init__(self, session: int, counts: dict[str, int]) -> None:
        self.session = session
        self.entries: dict[Mark, int] = {}
        self.bytes = 0
        self.counts = counts


class Inventory:
    def __init__(
        self,
        began_ms: int = 0,
        most_workers: int = MOST_WORKERS,
        most_keys: int = MOST_KEYS,
        most_in_all: int = MOST_IN_ALL,
    ) -> None:
        """`began_ms`: what a worker that is older than this counts at first was counted before."""
        self._began_ms = began_ms
        self._most = (most_workers, most_keys, most_in_all)
        self._lock = threading.Lock()
        self._caches: OrderedDict[str, _Cache] = OrderedDict()
        self._holders: dict[Mark, list[str]] = {}
        self._pairs = 0
        self._totals = dict.fromkeys(COUNTS, 0)

    # ------------------------------------------------------------ learning

    def learn(self, worker: str, session: int, news: CacheNews, ready_ms: int = 0) -> None:
        """From a report that was taken; `news` is as `sensible` left it. Changes to what is not known are passed over:
        who is asked tells everything."""
        with self._lock:
            cache = self._caches.get(worker)
            if cache is not None and cache.session != session:
                self._drop(worker)
                cache = None
            counts = news.get("counts") or {}
            if cache is None:
                if not news.get("all"):
                    return
                cache = _Cache(session, {} if ready_ms >= self._began_ms else dict(counts))
                self._caches[worker] = cache
                if len(self._caches) > self._most[0]:
                    self._drop(next(iter(self._caches)))
            self._caches.move_to_end(worker)
            self._count(cache, counts)
            if news.get("all"):
                for mark in list(cache.entries):
                    self._lose(worker, cache, mark)
            for scope, key in news.get("gone") or ():
                self._lose(worker, cache, mark_of(scope, key))
            for scope, key, size in news.get("added") or ():
                self._add(worker, cache, mark_of(scope, key), size)

    def must_ask(self, worker: str, session: int) -> bool:
        cache = self._caches.get(worker)
        return cache is None or cache.session != session

    def forget(self, worker: str) -> None:
        """It is gone."""
        if worker in self._caches:
            with self._lock:
                self._drop(worker)

    def _count(self, cache: _Cache, counts: Mapping[str, int]) -> None:
        """What a worker counts only grows; smaller than before, it began anew."""
        for name, count in counts.items():
            before = cache.counts.get(name, 0)
            self._totals[name] += count - before if count >= before else count
            cache.counts[name] = count

    def _add(self, worker: str, cache: _Cache, mark: Mark, size: int) -> None:
        before = cache.entries.get(mark)
        if before is None:
            if len(cache.entries) >= self._most[1] or self._pairs >= self._most[2]:
                return
            holders = self._holders.get(mark)
            if holders is None:
                self._holders[mark] = [worker]
            else:
                holders.append(worker)
            self._pairs += 1
        cache.entries[mark] = size
        cache.bytes += size - (before or 0)

    def _lose(self, worker: str, cache: _Cache, mark: Mark) -> None:
        size = cache.entries.pop(mark, None)
        if size is None:
            return
        cache.bytes -= size
        self._pairs -= 1
        holders = self._holders[mark]
        holders.remove(worker)
        if not holders:
            del self._holders[mark]

    def _drop(self, worker: str) -> None:
        cache = self._caches.pop(worker)
        for mark in list(cache.entries):
            self._lose(worker, cache, mark)

    # ------------------------------------------------------------ looking up

    @property
    def is_empty(self) -> bool:
        """No worker holds anything that is known: nobody is to be preferred."""
        return not self._holders

    def held_by(self, worker: str) -> Mapping[Mark, int]:
        """Bytes of each."""
        cache = self._caches.get(worker)
        return NOTHING if cache is None else cache.entries

    def holders_of(self, marks: Iterable[Mark]) -> dict[str, int]:
        """Worker → bytes of these that it holds."""
        found: dict[str, int] = {}
        for mark in marks:
            for worker in self._holders.get(mark, ()):
                found[worker] = found.get(worker, 0) + self._caches[worker].entries[mark]
        return found

    # ------------------------------------------------------------ figures

    def of_worker(self, worker: str) -> dict[str, Any] | None:
        """None: nothing is known of its cache."""
        cache = self._caches.get(worker)
        if cache is None:
            return None
        return {"entries": len(cache.entries), "bytes": cache.bytes, **cache.counts}

    def totals(self) -> dict[str, int]:
        """Of all workers that were heard since the hub began."""
        with self._lock:
            return dict(self._totals)

    def held(self) -> tuple[int, int]:
        """(entries, bytes) that live workers hold; one that several share on a file system counts for each."""
        with self._lock:
            return self._pairs, sum(cache.bytes for cache in self._caches.values())


def sensible(told: Any) -> CacheNews:
    """Of what a worker told, that which makes sense."""
    told = told if isinstance(told, dict) else {}
    news: CacheNews = {
        "all": told.get("all") is True,
        "added": [
            [row[0], row[1], row[2]] for row in _rows(told.get("added"), 3) if _are_names(row) and _is_amount(row[2])
        ],
        "gone": [[row[0], row[1]] for row in _rows(told.get("gone"), 2) if _are_names(row)],
    }
    counts = told.get("counts")
    if isinstance(counts, dict):
        news["counts"] = {name: counts[name] for name in COUNTS if _is_amount(counts.get(name))}
    return news


def _rows(told: Any, length: int) -> list[list[Any]]:
    listed = told if isinstance(told, list) else []
    return [row for row in listed[:MOST_KEYS] if isinstance(row, list) and len(row) >= length]


def _are_names(row: list[Any]) -> bool:
    scope, key = row[0], row[1]
    return type(scope) is str and type(key) is str and len(scope) <= LONGEST_NAME and len(key) <= LONGEST_NAME


def _is_amount(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST
