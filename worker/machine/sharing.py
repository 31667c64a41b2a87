"""The room of a keeper whose worker has neighbours, and when to look what has become of theirs.

A job's share is taken just before it starts and given back when nothing of it is left. Who does not get it waits for a
moment, in case a neighbour's job is short, and goes back to the hub then: on another machine there may be room.
"""

from __future__ import annotations

from worker.keeper.attempt import Ending
from worker.keeper.packing import Room, Taken
from worker.machine.neighbours import Neighbours
from worker.machine.shares import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable

    from worker.keeper.packing import Asks

MOMENT_MS = 200  # that a job waits for a neighbour; giving it back costs the hub some of the same
TRY_MS = 10  # until the lock of the folder is asked for again
TELL_MS = 20
NEWS_MS = 100  # neighbours that start and end many jobs are looked at, and their agents heard of, no oftener
CLOSELY_MS, TROUBLED_MS = 5000, 1000
RETURNED = "neighbours"
TEXT = "the other workers of the machine hold what it asks for"


class SharedRoom(Room):
    """What this worker may use at most, as far as its neighbours leave it."""

    def __init__(self, has: Asks | None, gpus: list[str], neighbours: Neighbours) -> None:
        super().__init__(has, gpus)
        self._neighbours = neighbours

    def resize(self, has: Asks | None) -> None:
        super().resize(has)
        self._neighbours.resize(dict(has or ()))

    def fits(self, asks: Asks) -> bool:
        return super().fits(asks) and self._neighbours.fits(asks)

    def waits_for_neighbours(self, asks: Asks) -> bool:
        """Of what does not start: not for an end of our own."""
        return super().fits(asks)

    def take(self, asks: Asks) -> list[str]:
        """Raises Taken; then nothing is to be given back."""
        gpus = self._neighbours.take(asks)
        if gpus is None:
            raise Taken
        super().take(asks)
        return gpus

    def give_back(self, asks: Asks, gpus: list[str]) -> None:
        super().give_back(asks, [])
        self._neighbours.give_back(asks, gpus)

    def lose_gpu(self, gpu: str) -> None:
        super().lose_gpu(gpu)
        self._neighbours.lose_gpu(gpu)


class Sharing:
    too_late = Ending("returned", RETURNED, TEXT)

    def __init__(self, told: tuple[str, str, dict[str, int]], lock: int, has: Asks | None, gpus: list[str]) -> None:
        folder, name, sees = told
        self._neighbours = Neighbours(folder, name, lock, Part(sees, dict(has or ()), gpus))
        self.room = SharedRoom(has, gpus, self._neighbours)
        self.fileno = self._neighbours.fileno
        self._told: dict[str, int] | None = None
        self._told_at = 0
        self._untold = True
        self._tell_at = 0
        self._looked_at = 0
        self._look_at: int | None = None  # there was news
        self._closely_at = 0
        self._again_at = 0
        self._late_at: int | None = None  # the next that waits goes back then

    def heard(self, now: int, waiting: bool) -> None:
        """A neighbour has taken, given back, come or gone. `waiting`: a job waits here for room."""
        self._neighbours.heard()
        if self._look_at is None or waiting:
            self._look_at = now if waiting else max(now, self._looked_at + NEWS_MS)

    def look(self, now: int) -> bool:
        """Whether what did not fit is worth another try."""
        if now >= self._closely_at:
            self._neighbours.look_closely()
            self._closely_at = now + (TROUBLED_MS if self._neighbours.troubled else CLOSELY_MS)
        elif self._look_at is not None and now >= self._look_at:
            self._neighbours.look()
        elif self._neighbours.locked_out and now >= self._again_at:
            self._again_at = now + TRY_MS
            return True
        else:
            return False
        self._look_at, self._looked_at = None, now
        return True

    def news(self, now: int, at_once: bool) -> dict[str, int] | None:
        """What this worker may say that it has, when that has changed."""
        offer = self._neighbours.offer()
        self._untold = offer != self._told
        if not self._untold or (now < self._told_at + NEWS_MS and not at_once):
            return None
        self._told, self._told_at, self._untold = offer, now, False
        return offer

    def tell(self, now: int) -> None:
        """The neighbours, who take nothing without a look of their own: so many jobs at once are one piece of news."""
        if self._neighbours.untold and now >= self._tell_at:
            self._tell_at = now + TELL_MS
            self._neighbours.tell()

    def late(self, waiting: Iterable[tuple[Asks, Iterable[tuple[int, Any, int]]]], now: int) -> list[Any]:
        """Of those that wait, as `Queue.lines` has them, those that have waited for neighbours long enough."""
        self._late_at = None
        late = []
        for asks, line in waiting:
            if not self.room.waits_for_neighbours(asks):
                continue
            for _, item, since in line:
                if since + MOMENT_MS <= now:
                    late.append(item)
                elif self._late_at is None or since + MOMENT_MS < self._late_at:
                    self._late_at = since + MOMENT_MS
        return late

    def due(self) -> int:
        """When `look` should come at the latest, or `late`."""
        times = [self._closely_at]
        if self._look_at is not None:
            times.append(self._look_at)
        if self._neighbours.untold:
            times.append(self._tell_at)
        if self._untold:
            times.append(self._told_at + NEWS_MS)
        if self._late_at is not None:
            times.append(self._late_at)
            if self._neighbours.locked_out:
                times.append(self._again_at)
        return min(times)

    def close(self) -> None:
        self._neighbours.close()
