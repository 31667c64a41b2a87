"""How much a cache may hold, and who goes first: what is not in use, the longest unused before the others."""

import fcntl
import os
from contextlib import contextmanager
from typing import Iterator, List, Optional

from worker.cache.entries import Entries, Found
from worker.cache.place import Place

KEEP = 0.95  # of the quota, after an eviction: so that not every new entry costs one


class Room:
    """`quota` None: as much as the disk has."""

    def __init__(self, place: Place, entries: Entries, quota: Optional[int]) -> None:
        self._place = place
        self._entries = entries
        self.quota = quota
        self._held = 0  # when it was last looked at, and what we have added since
        self._looked = False
        self.evicted = 0
        self.evicted_bytes = 0

    def added(self, size: int) -> None:
        self._held += size
        if self.quota is not None and (not self._looked or self._held > self.quota):
            self.make(0)

    def make(self, size: int) -> int:
        """Evict until that much more fits into the quota. The bytes that were freed."""
        if self.quota is None:
            return 0
        if self._looked and self._held + size <= self.quota:
            return 0
        return self._evict(lambda held: held + size - self.quota if held + size > self.quota else 0, keep=True)

    def free(self, size: int) -> int:
        """Evict that many bytes whatever the quota is, because the disk is full."""
        return self._evict(lambda _: size, keep=False)

    def _evict(self, wanted, keep: bool) -> int:  # type: ignore[no-untyped-def]
        with self._one_evictor() as alone:
            found: List[Found] = sorted(self._entries.all(), key=lambda one: one.used_at)
            held = sum(one.size for one in found)
            self._looked = True
            need = wanted(held)
            if need and keep and self.quota is not None:
                need = max(need, int(held - self.quota * KEEP))
            freed = 0
            for one in found:
                if freed >= need or not alone:
                    break
                if not one.pinned:
                    freed += self._go(one)
            self._held = held - freed
            return freed

    def _go(self, one: Found) -> int:
        size = self._entries.evict(one.scope, one.key)
        if size is None:
            return 0
        self.evicted += 1
        self.evicted_bytes += size
        return size

    @contextmanager
    def _one_evictor(self) -> Iterator[bool]:
        """Two at once would both free what one needs. Where the file system knows no such lock, they do."""
        handle = os.open(os.path.join(self._place.root, "evictor"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                alone = False
            except OSError:
                alone = True
            yield alone
        finally:
            os.close(handle)
