"""What workers wrote: asked of their backend when an operator wants it, and kept of those that never registered.

Of such a one no agent speaks, and a platform soon forgets it: its own last words are all there is to be known. They
are asked for once, by a call like any other, and stay with the intent in the ledger.
"""

from collections.abc import Mapping

from backends.base import Backend
from worker_manager.clock import Clock
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.ledger import Ledger, OutputWanted
from worker_manager.control.pool import ManagedPool
from worker_manager.control.writer import Writer
from worker_manager.policy.reasons import because

KEPT_BYTES = 65_536
TOLD_LINES = 3  # with the decision; the whole is told to who asks
TOLD_CHARACTERS = 400


class Outputs:
    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._under_way: dict[str, tuple[OutputWanted, Call[str]]] = {}

    def fetch(self, pools: Mapping[str, ManagedPool], lanes: Mapping[str, Lane]) -> None:
        for wanted in self._ledger.outputs_wanted():
            if wanted.worker not in self._under_way and wanted.pool in pools:
                call = read(pools[wanted.pool], wanted.handle, KEPT_BYTES, lanes[wanted.pool])
                self._under_way[wanted.worker] = (wanted, call)

    def harvest(self) -> None:
        over = [found for found in self._under_way.values() if found[1].over]
        if not over:
            return
        now = self._clock.now_ms()
        with self._ledger.write() as write:
            for wanted, call in over:
                keep(write, wanted.worker, wanted.pool, wanted.handle, written(call), now)
        for wanted, _ in over:
            del self._under_way[wanted.worker]

    def under_way(self) -> list[Call[str]]:
        return [call for _, call in self._under_way.values()]


def keep(write: Writer, worker: str, pool: str, handle: str, text: str, now: int) -> None:
    """With the intent, and its last lines among what was decided, which people read."""
    write.output(worker, pool, handle, text, now)
    if text:
        write.decided(now, pool, "output", worker, because("last-output"), "kept", last_lines(text))


def read(pool: ManagedPool, handle: str, size: int, lane: Lane) -> Call[str]:
    return lane.start("what a worker wrote", lambda: tail(pool.backend, handle, size), pool.call_timeout_ms)


def tail(backend: Backend, handle: str, size: int) -> str:
    """At most so many bytes, from the end, whatever the backend gives."""
    return backend.logs(handle, size).encode(errors="replace")[-size:].decode(errors="replace")


def written(call: Call[str]) -> str:
    try:
        return call.value()
    except Exception as error:
        return _unread(error)


def last_words(backend: Backend, handle: str) -> str:
    """Within another call, which must go on whatever comes of this."""
    try:
        return tail(backend, handle, KEPT_BYTES)
    except Exception as error:
        return _unread(error)


def _unread(error: Exception) -> str:
    return f"(what it wrote cannot be read: {type(error).__name__}: {error})"[:TOLD_CHARACTERS]


def last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-TOLD_LINES:])[-TOLD_CHARACTERS:]
