"""The attempts that this worker holds, from their assignment to their end."""

from collections import OrderedDict
from typing import Iterable, Set

from worker.orders import Key

REMEMBERED = 4096


class Held:
    def __init__(self) -> None:
        self.queued: Set[Key] = set()
        self.started: Set[Key] = set()
        self.runs = 0  # ever started
        self._over: "OrderedDict[Key, None]" = (
            OrderedDict()
        )  # ended not long ago: repeated late, they must not start again

    @property
    def nothing(self) -> bool:
        return not self.queued and not self.started

    @property
    def all(self) -> Set[Key]:
        return self.queued | self.started

    def knows(self, key: Key) -> bool:
        return key in self.queued or key in self.started or key in self._over

    def take(self, keys: Iterable[Key]) -> None:
        self.queued.update(keys)

    def begin(self, key: Key) -> None:
        self.queued.discard(key)
        self.started.add(key)
        self.runs += 1

    def end(self, key: Key) -> None:
        """Also of one that was never taken."""
        self.queued.discard(key)
        self.started.discard(key)
        self._over[key] = None
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
