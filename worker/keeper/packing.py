"""Which queued attempt starts next: pure, amounts as plain numbers, time as an argument.

Whether a job can run on a worker at all is for `protocol.fits`; here attempts that do share what is free now.
"""

from __future__ import annotations

import errno
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque

    Asks = tuple[tuple[str, int], ...]  # name and count, sorted by name

# Smaller attempts may overtake the first of the queue for this long; then room is kept for it.
PATIENCE_MS = 2000


class Taken(OSError):
    """A neighbour on the same machine was quicker: the attempt has to wait."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "the other workers of this machine hold what it asks for")


class Room:
    """What attempts may use together, and what they use now. `has` None: no bounds."""

    def __init__(self, has: Asks | None, gpus: list[str]) -> None:
        self._has = None if has is None else dict(has)
        self._used: dict[str, int] = {}
        self._gpus = list(gpus)
        self._lost: set[str] = set()  # ids that are given out no more
        self.knows_gpus = bool(gpus)  # then every job is told which are its own, if only that there are none

    def resize(self, has: Asks | None) -> None:
        """What is used already stays used, even where that is more than there is now."""
        self._has = None if has is None else dict(has)

    def fits(self, asks: Asks) -> bool:
        if self._has is None:
            return True
        for name, count in asks:  # noqa: SIM110  # a job costs two of these: twice as fast as `all`
            if self._used.get(name, 0) + count > self._has.get(name, 0):
                return False
        return True

    def take(self, asks: Asks) -> list[str]:
        """The ids of the GPUs that go with it."""
        taken: list[str] = []
        for name, count in asks:
            self._used[name] = self._used.get(name, 0) + count
            if name == "gpus":
                taken, self._gpus = self._gpus[:count], self._gpus[count:]
        return taken

    def give_back(self, asks: Asks, gpus: list[str]) -> None:
        for name, count in asks:
            self._used[name] -= count
        self._gpus += [each for each in gpus if each not in self._lost]

    def lose_gpu(self, gpu: str) -> None:
        """A job that has it keeps it; the next gets another."""
        self._lost.add(gpu)
        self._gpus = [each for each in self._gpus if each != gpu]


class Queue:
    """Attempts in the order in which they came, kept by what they ask for: those that ask alike fit alike."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._alike: dict[Asks, Deque[tuple[int, Any, int]]] = {}  # (ticket, item, since), oldest first
        self._tickets = 0
        self._count = 0
        self.since = 0  # when the last that `next` gave came

    def __len__(self) -> int:
        return self._count

    def put(self, item: Any, asks: Asks, now: int) -> None:
        self._tickets += 1
        self._alike.setdefault(asks, deque()).append((self._tickets, item, now))
        self._count += 1

    def put_back(self, item: Any, asks: Asks, since: int) -> None:
        """It was the next one and could not start after all: it is the next one again."""
        self._alike.setdefault(asks, deque()).appendleft((0, item, since))
        self._count += 1

    def lines(self) -> list[tuple[Asks, Deque[tuple[int, Any, int]]]]:
        """Those that wait, alike by alike: (ticket, item, since)."""
        return list(self._alike.items())

    def remove(self, item: Any, asks: Asks) -> None:
        kept = deque(entry for entry in self._alike.pop(asks) if entry[1] is not item)
        if kept:
            self._alike[asks] = kept
        self._count -= 1

    def next(self, now: int) -> Any:
        """The oldest that fits, removed from the queue; None when none does, or when room is kept for the first."""
        lines = list(self._alike.items())
        if len(lines) > 1:
            lines.sort(key=oldest_first)
        for at, (asks, line) in enumerate(lines):
            if self._room.fits(asks):
                _, item, self.since = line.popleft()
                self._count -= 1
                if not line:
                    del self._alike[asks]
                return item
            if at == 0 and now - line[0][2] > PATIENCE_MS:
                return None
        return None


def oldest_first(line: tuple[Asks, Deque[tuple[int, Any, int]]]) -> int:
    return line[1][0][0]
