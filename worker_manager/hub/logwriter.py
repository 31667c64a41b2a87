"""Takes output from many workers at once and makes it durable together: one write and one `fdatasync` for all that
came while the one before was under way."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from worker_manager.clock import Clock
from worker_manager.hub.logs import LogFolder, Place

Observe = Callable[[int, int], None]  # pieces, bytes


class LogWriter:
    """Belongs to the event loop; the writing itself happens in a thread of its own."""

    def __init__(self, folder: LogFolder, clock: Clock, observe: Observe) -> None:
        self.folder = folder
        self._clock = clock
        self._observe = observe
        self._thread = ThreadPoolExecutor(1, "hub-logs")
        self._pending: list[tuple[Sequence[bytes], asyncio.Future[list[Place]]]] = []
        self._flush: asyncio.Task[None] | None = None

    async def append(self, pieces: Sequence[bytes]) -> list[Place]:
        """Durable when it returns; raises OSError when it could not be."""
        done: asyncio.Future[list[Place]] = asyncio.get_running_loop().create_future()
        self._pending.append((pieces, done))
        if self._flush is None:
            self._flush = asyncio.create_task(self._write_pending())
        return await done

    async def _write_pending(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                await self._write(batch)
        finally:
            self._flush = None

    async def _write(self, batch: list[tuple[Sequence[bytes], asyncio.Future[list[Place]]]]) -> None:
        pieces = [piece for some, _ in batch for piece in some]
        loop = asyncio.get_running_loop()
        try:
            places = await loop.run_in_executor(self._thread, self.folder.append, pieces, self._clock.now_ms())
        except OSError as error:
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        self._observe(len(pieces), sum(map(len, pieces)))
        for some, done in batch:
            mine, places = places[: len(some)], places[len(some) :]
            if not done.done():
                done.set_result(mine)

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self.folder.close()
