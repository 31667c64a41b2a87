"""The stager keeps house in the cache: opens it, says that it lives, tidies, and tells what is in it.

In a thread of its own, because a file server that is away must hold up nothing else.
"""

import os
import random
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from worker.cache.errors import CacheError
from worker.cache.store import Cache
from worker.staging.inventory import AT_ONCE, Inventory
from worker.staging.messages import Setup

OPENING_S = 20.0  # one that has not opened by then is done without
LOOK_S = 3.0
BEAT_S = 30.0
TIDY_S = 60.0
SCAN_S = 60.0
SCRUB_S = 600.0
SCAN_PART = 0.05  # of the time, at the most

Held = Dict[str, List[Callable[[], None]]]


class House:
    def __init__(
        self,
        setup: Setup,
        held: Sequence[str],
        tell: Callable[[Dict[str, Any]], None],
        note: Callable[[str], None],
        keep: Callable[[Held], None],
        pin_again: Callable[[Cache], None],
    ) -> None:
        """`keep` gets the pins that the one before us has left, for each label that is held. `pin_again` is called when
        others took us for dead, and our pins away."""
        self._setup = setup
        self._held = frozenset(held)
        self._tell = tell
        self._note = note
        self._keep = keep
        self._pin_again = pin_again
        self._opened = threading.Event()
        self._cache: Optional[Cache] = None
        self._news = threading.Event()
        self._inventory = Inventory()
        self._is_late = False
        self._lock = threading.Lock()
        self._said: Set[str] = set()
        self._base = dict(setup.get("counts") or {})
        self._private = {"private": 0, "private_bytes": 0}
        if setup.get("cache_dir"):
            threading.Thread(target=self._work, daemon=True).start()
        else:
            self._opened.set()

    # ------------------------------------------------------------ for the others

    def cache(self) -> Optional[Cache]:
        """None when there is none to be used. Blocks while it opens."""
        if not self._opened.wait(0 if self._is_late else OPENING_S) and not self._is_late:
            self._is_late = True
            self._note("the cache %s does not open; inputs are fetched without it" % self._setup.get("cache_dir"))
        return self._cache

    def has_changed(self) -> None:
        self._news.set()

    def cannot(self, error: BaseException) -> None:
        """Be used for an input. The same is said once."""
        text = "the cache is not used for some inputs: %s" % (getattr(error, "strerror", "") or error)
        with self._lock:
            if text in self._said:
                return
            self._said.add(text)
        self._note(text)

    def fetched_privately(self, size: int) -> None:
        with self._lock:
            self._private["private"] += 1
            self._private["private_bytes"] += size
        self._news.set()

    def close(self) -> None:
        cache, self._cache = self._cache, None
        if cache is not None:
            cache.close()

    # ------------------------------------------------------------ its thread

    def _work(self) -> None:
        try:
            self._cache = self._open()
        except (CacheError, OSError, ValueError) as error:
            self._note("the cache cannot be used, inputs are fetched without it: %s" % error)
        finally:
            self._opened.set()
        if self._cache is not None:
            self._keep_house(self._cache)

    def _open(self) -> Cache:
        told = self._setup
        cache = Cache(told["cache_dir"], told["cache_name"], told.get("cache_quota"), process=told["agent"])
        self._keep(cache.resume(self._held.__contains__))
        return cache

    def _keep_house(self, cache: Cache) -> None:
        now = time.monotonic()
        beat_s = self._setup.get("beat_s") or BEAT_S
        every = {self._beat: beat_s, self._tidy: TIDY_S, self._report: SCAN_S, self._scrub: SCRUB_S}
        due = {self._beat: now, self._report: now}
        due.update((act, now + every[act] * random.random()) for act in (self._tidy, self._scrub))  # noqa: S311
        not_before = now
        while self._cache is not None:
            if self._news.wait(max(0.0, min(due.values()) - time.monotonic())):
                time.sleep(max(0.0, not_before - time.monotonic()))
                due[self._report] = not_before
            for act in list(due):
                began = time.monotonic()
                if began < due[act]:
                    continue
                due[act] = began + every[act]
                try:
                    act(cache)
                except (CacheError, OSError) as error:
                    self._note("the cache %s: %s" % (cache.place.root, error))
                if act == self._report:
                    now = time.monotonic()
                    not_before = now + max(LOOK_S, (now - began) / SCAN_PART)

    def _beat(self, cache: Cache) -> None:
        if not cache.beat():
            self._note("the cache's other workers took this one for dead: what jobs use is pinned anew")
            self._pin_again(cache)

    def _tidy(self, cache: Cache) -> None:
        cache.tidy()
        self._news.set()

    def _scrub(self, cache: Cache) -> None:
        cache.scrub_some(random.random)
        self._news.set()

    def _report(self, cache: Cache) -> None:
        self._news.clear()
        has = [(one.scope, one.key, one.size) for one in cache.entries.all()]
        news = self._inventory.news(has, self._counts(cache))
        if news is not None:
            self._tell(news)
            if len(news["added"]) == AT_ONCE:
                self._news.set()  # there may be more

    def _counts(self, cache: Cache) -> Dict[str, int]:
        with self._lock:
            now = {**cache.counts, **self._private}
        now.update(evicted=cache.room.evicted, evicted_bytes=cache.room.evicted_bytes)
        return {name: count + self._base.get(name, 0) for name, count in now.items()}


def staged(work_dir: str) -> str:
    return os.path.join(work_dir, "staged")
