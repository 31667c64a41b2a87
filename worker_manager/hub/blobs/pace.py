"""How long a transfer may stand still, and how many run at once.

A blob may take hours, so nothing bounds the whole of it: but within each stretch of time some of it must move. A
transfer can also be told to end, at whatever it waits for then.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, TypeVar

from worker_manager.hub.problems import Problem

T = TypeVar("T")
ENOUGH_BYTES = 16_384  # less than this does not count as moving
SLOT_WAIT_S = 3.0
RETRY_AFTER_S = 2


class Why(Enum):
    STALLED = "stalled"
    OVERTAKEN = "overtaken"
    ENDING = "ending"
    LEFT = "left"


class Ended(Exception):
    """The transfer must end now."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


class Pace:
    """Of one transfer."""

    def __init__(self, stall_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._stall_s = stall_s
        self._bytes = 0
        self._left = stall_s  # of this stretch, not counting what we ourselves take
        self._timer: asyncio.Timeout | None = None
        self._why: Why | None = None
        self.moved_at = self._loop.time()

    async def of(self, wait: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Waits for the other end. Raises Ended."""
        if self._why is not None:
            raise Ended(self._why)
        began = self._loop.time()
        try:
            async with asyncio.timeout(self._left) as self._timer:
                return await wait(*arguments)
        except TimeoutError:
            raise Ended(self._why or Why.STALLED) from None
        finally:
            self._timer = None
            self._left = max(0.0, self._left - (self._loop.time() - began))

    def moved(self, size: int) -> None:
        self._bytes += size
        if size:
            self.moved_at = self._loop.time()
        if self._bytes >= ENOUGH_BYTES:
            self._bytes, self._left = 0, self._stall_s

    def end(self, why: Why) -> None:
        self._why = self._why or why
        if self._timer is not None:
            with contextlib.suppress(RuntimeError):  # it ends already
                self._timer.reschedule(self._loop.time())


class Slots:
    """A transfer that finds no place waits a moment for one."""

    def __init__(self, at_most: int, stall_s: float) -> None:
        self._free = asyncio.Semaphore(at_most)
        self._stall_s = stall_s
        self._paces: set[Pace] = set()
        self._ending = False
        self.turned_away = 0

    def __len__(self) -> int:
        return len(self._paces)

    async def take(self) -> Pace:
        """To be given back with `give`. Raises Problem (429)."""
        try:
            async with asyncio.timeout(SLOT_WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            self.turned_away += 1
            detail = f"the hub moves {len(self)} files already: come back in {RETRY_AFTER_S} s"
            raise Problem(429, "transfers-full", detail, headers={"Retry-After": str(RETRY_AFTER_S)}) from None
        pace = Pace(self._stall_s)
        self._paces.add(pace)
        if self._ending:
            pace.end(Why.ENDING)
        return pace

    def give(self, pace: Pace) -> None:
        self._paces.discard(pace)
        self._free.release()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Pace]:
        pace = await self.take()
        try:
            yield pace
        finally:
            self.give(pace)

    def end_all(self) -> None:
        """The hub ends: every transfer is told so, and goes on with the next hub."""
        self._ending = True
        for pace in tuple(self._paces):
            pace.end(Why.ENDING)
