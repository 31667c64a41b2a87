"""The cache as a worker uses it: get an input, and hold it while a job runs."""

import contextlib
import errno
import os
import threading
import time
from typing import Callable, Dict, List, Optional

from worker.cache import digests
from worker.cache.alive import Alive
from worker.cache.claims import Claims
from worker.cache.entries import Entries, Pin, Reach
from worker.cache.errors import CacheFull, Cancelled, WrongContent
from worker.cache.place import PUBLIC, Place
from worker.cache.room import Room

POLL_S = (0.005, 0.25)  # of one that waits for another's build
PATIENCE_S = 5.0  # with an entry that cannot be pinned and does not go
TRIES = 5
SCRUBBED = 64 * 2**20

# Puts the content at the path it is given: a file or a folder. One that has counted and digested the bytes on their way
# says what they are, and they are not read again. Raises whatever it likes; nothing is published then.
Build = Callable[[str], Optional[digests.Content]]


def nothing_happens(_step: str) -> None:
    pass


class Cache:
    """Used from several threads. Raises CacheUnusable when it is made where there cannot be one."""

    def __init__(
        self,
        root: str,
        worker: str,
        quota: Optional[int] = None,
        *,
        process: Optional[int] = None,
        clock: Callable[[], float] = time.monotonic,
        reach: Reach = nothing_happens,
    ) -> None:
        """`process`: the pid in whose name this is; `worker` is then its name alone, and may be used again by another
        process of its: see `resume`."""
        self.place = Place(root, worker, exactly=process is not None)
        self.alive = Alive(self.place, clock, process)
        self.place.make_own()
        self.entries = Entries(self.place, clock, reach)
        self.claims = Claims(self.place, self.alive)
        self.room = Room(self.place, self.entries, quota)
        self.counts: Dict[str, int] = dict.fromkeys(
            ("hits", "hit_bytes", "misses", "built_bytes", "waited", "broken", "lost"), 0
        )
        self._clock = clock
        self._reach = reach
        self._lock = threading.Lock()

    # ------------------------------------------------------------ get

    def get(
        self,
        key: str,
        build: Build,
        *,
        scope: str = PUBLIC,
        size: int = 0,
        label: str = "",
        wanted: Callable[[], bool] = lambda: True,
        wait: Callable[[float], None] = time.sleep,
    ) -> Pin:
        """The entry, pinned: there already, built by another meanwhile, or built now. `size`: what it will take, if
        that is known; `label`: whom the pin is for. Raises what `build` raises, WrongContent, CacheFull, and Cancelled
        when it is not `wanted` any more."""
        pause = POLL_S[0]
        stuck_since: Optional[float] = None
        waited = False
        while wanted():
            pin = self._pin_whole(scope, key, label)
            if pin is not None:
                self._count("hits", hit_bytes=pin.size, waited=int(waited))
                return pin
            if os.path.isdir(self.place.entry(scope, key)):  # is being evicted, or its evictor died
                stuck_since = self._clock() if stuck_since is None else stuck_since
                self.entries.recover(scope, key, self.alive)
                if self._clock() - stuck_since > PATIENCE_S:
                    return self._build_aside(key, build)
            elif self.claims.take(scope, key):
                pin = self._build(scope, key, build, size, label)
                if pin is not None:
                    return pin
            else:
                waited = True
                self.claims.expire(scope, key)
            wait(pause)
            pause = min(pause * 2, POLL_S[1])
        raise Cancelled("nobody waits for it any more")

    def _pin_whole(self, scope: str, key: str, label: str) -> Optional[Pin]:
        """One that somebody has written to is thrown away, and built anew."""
        pin = self.entries.pin(scope, key, label)
        if pin is None:
            return None
        if self.entries.is_whole(pin, closely=False) or self.entries.is_whole(pin, closely=True):
            return pin
        self._count("broken")
        self.entries.evict(scope, key, even_pinned=True)
        pin.release()
        return None

    def _build(self, scope: str, key: str, build: Build, size: int, label: str) -> Optional[Pin]:
        """None: look again, somebody was faster."""
        try:
            if os.path.isdir(self.place.entry(scope, key)):  # published between our look and our claim
                return None
            self.room.make(size)
            for attempt in range(TRIES):
                folder = self._folder()
                try:
                    content = self._content(key, folder, build)
                    self._count("misses", built_bytes=content.size)
                    pin = self.entries.publish(scope, key, folder, content, label)
                    pin = pin or self.entries.pin(scope, key, label)
                    self.room.added(content.size)
                    return pin
                except OSError as error:
                    if attempt + 1 == TRIES:
                        raise
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        self._make_room(folder, size, error)
                    elif os.path.isdir(folder):  # else we were taken for dead, and cleared away
                        raise
                finally:
                    self.entries.discard(folder)
            return None
        finally:
            self.claims.let_go(scope, key)

    def _build_aside(self, key: str, build: Build) -> Pin:
        """For us alone, where the entry itself cannot be had."""
        folder = self._folder()
        try:
            content = self._content(key, folder, build)
        except BaseException:
            self.entries.discard(folder)
            raise
        self._count("misses", built_bytes=content.size)
        return Private(folder, self.entries)

    def _content(self, key: str, folder: str, build: Build) -> digests.Content:
        os.makedirs(folder, 0o700)
        data = os.path.join(folder, "data")
        content = build(data) or digests.of(data)
        self._reach("fetched")
        kind, _, digest = key.partition("-")
        if kind != "name" and content.digest != digest:
            raise WrongContent("what came is not %s: its digest is %s" % (key, content.digest))
        return content

    def _make_room(self, folder: str, size: int, error: OSError) -> None:
        self.entries.discard(folder)
        if not self.room.free(max(size, 64 * 2**20)):
            raise CacheFull("%s, and nothing in the cache can go" % error.strerror) from None

    def _folder(self) -> str:
        return os.path.join(self.place.my_building, self.place.unique())

    # ------------------------------------------------------------ after a death

    def resume(self, is_held: Callable[[str], bool]) -> Dict[str, List[Callable[[], None]]]:
        """For one that goes on in the name of a process whose helper died: of what that one had, only the pins with
        labels that are held stay. For each such label, how to let go of its pins."""
        self.entries.discard(self.place.my_building)
        self.place.make_own()
        self.claims.clear_own()
        for folder in (self.place.trash, self.place.alive):  # in the latter: a note that was being written
            for name in _names(folder):
                if name.startswith(self.place.worker + "."):
                    self._remove(os.path.join(folder, name))
        kept: Dict[str, List[Callable[[], None]]] = {}
        for label, let_go in self.entries.kept():
            if is_held(label):
                kept.setdefault(label, []).append(let_go)
            else:
                let_go()
        return kept

    # ------------------------------------------------------------ now and then

    def beat(self) -> bool:
        """About every half minute. False when others took us for dead: what is pinned may have gone."""
        alive = self.alive.beat()
        if not alive:
            self._count("lost")
        return alive

    def tidy(self) -> None:
        """What dead workers have left: builds, pins, trash, entries on their way out. Then the quota: what was in use
        when it was exceeded may be free by now."""
        for worker in _names(self.place.alive):
            if self.alive.is_dead(worker):
                self._clear(worker)
        for folder in (self.place.pins, self.place.building):
            for worker in _names(folder):
                if worker != self.place.worker and self.alive.is_dead(worker):
                    self._clear(worker)
        for name in _names(self.place.trash):
            if self.alive.is_dead(name.partition(".")[0]):
                self.entries.discard(os.path.join(self.place.trash, name))
        for scope in _names(self.place.entries):
            for key in _names(os.path.join(self.place.entries, scope)):
                if self.entries.look(scope, key) is None:
                    try:
                        self.entries.recover(scope, key, self.alive)
                    except ValueError:  # nothing of ours
                        continue
        self.claims.clear_dead()
        self.room.make(0)

    def scrub_some(self, dice: Callable[[], float]) -> None:
        """One entry by lot, and a large one seldom: what is read comes to `SCRUBBED` bytes at the most on average."""
        there = list(self.entries.all())
        if there:
            one = there[int(dice() * len(there))]
            if dice() * one.size <= SCRUBBED:
                self.scrub(one.scope, one.key)

    def scrub(self, scope: str, key: str) -> bool:
        """Read every byte of an entry. False when it was not what it should be; then it is gone."""
        pin = self.entries.pin(scope, key)
        if pin is None:
            return True
        try:
            if self.entries.is_whole(pin, closely=True):
                return True
            self._count("broken")
            self.entries.evict(scope, key, even_pinned=True)
            return False
        finally:
            pin.release()

    def close(self) -> None:
        """Nothing of ours is held or built any more."""
        self._clear(self.place.worker)

    # ------------------------------------------------------------

    def _clear(self, worker: str) -> None:
        """Pins last of all: what they keep must not go while something of the worker may still use it."""
        for folder in (self.place.building, self.place.pins):
            self._remove(os.path.join(folder, worker))
        self.alive.bury(worker)

    def _remove(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            self.entries.discard(path)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _count(self, name: str, **more: int) -> None:
        with self._lock:
            self.counts[name] += 1
            for other, amount in more.items():
                self.counts[other] += amount


class Private(Pin):
    """A build that never became an entry."""

    def __init__(self, folder: str, entries: Entries) -> None:
        self.path = os.path.join(folder, "data")
        self.entry = folder
        self._entries = entries
        self.size = 0

    def release(self) -> None:
        self._entries.discard(self.entry)


def _names(folder: str) -> "list[str]":
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
