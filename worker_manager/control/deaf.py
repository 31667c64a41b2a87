"""Pools whose announcements the source does not take are left alone for a while: each failure is a decision on record,
and the report of one would wake the next."""

from collections.abc import Iterable

from worker_manager.clock import Clock

PAUSES_MS = (1_000, 2_000, 5_000, 10_000)


class Deaf:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._until: dict[str, int] = {}

    def failed(self, pools: Iterable[str]) -> None:
        for pool in set(pools):
            before = self._failures.get(pool, 0)
            self._failures[pool] = before + 1
            self._until[pool] = self._clock.boot_ms() + PAUSES_MS[min(before, len(PAUSES_MS) - 1)]

    def heard(self, pools: Iterable[str]) -> None:
        for pool in pools:
            self._failures.pop(pool, None)
            self._until.pop(pool, None)

    def keeps(self, pool: str) -> bool:
        return self._clock.boot_ms() < self._until.get(pool, 0)

    def again_at(self) -> int | None:
        """When the first of them is tried again, by the clock that never jumps; None: nothing keeps any."""
        return min((until for pool, until in self._until.items() if self.keeps(pool)), default=None)
