"""Workers that hold no token join as whom their platform vouches for: here the source is told which worker that is.

A listing brings the identity of a worker once its machine exists; the source admits nobody under an identity before
it was told. It is told again now and then until the worker has come, because the source may have lost its memory.
"""

from collections.abc import Mapping

from worker_manager.clock import Clock
from worker_manager.control.pool import ManagedPool
from worker_manager.errors import WorkerManagerError
from worker_manager.policy.facts import Memory, Sights
from worker_manager.sources.base import Source

AGAIN_MS = 30_000


class Identities:
    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._told: dict[str, tuple[str, int]] = {}  # worker → as whom, until when that is enough

    def tell(self, memory: Memory, pools: Mapping[str, ManagedPool], sights: Mapping[str, Sights]) -> None:
        """What the source does not hear now it hears with the next listing."""
        wanted = awaited(memory, pools, sights)
        now = self._clock.boot_ms()
        self._told = {worker: told for worker, told in self._told.items() if worker in wanted}
        news = {worker: identity for worker, identity in wanted.items() if not self._knows(worker, identity, now)}
        if not news:
            return
        try:
            self._source.identify(news)
        except WorkerManagerError:
            return
        self._told |= {worker: (identity, now + AGAIN_MS) for worker, identity in news.items()}

    def _knows(self, worker: str, identity: str, now: int) -> bool:
        told, until = self._told.get(worker, ("", 0))
        return told == identity and now < until


def awaited(memory: Memory, pools: Mapping[str, ManagedPool], sights: Mapping[str, Sights]) -> dict[str, str]:
    """Worker → identity, of those that are listed and have not registered. Pure."""
    joining = {name for name, pool in pools.items() if pool.capabilities.identity}
    if not joining:
        return {}
    listed = {
        sight.id: sight.identity
        for name in joining & sights.keys()
        for sight in sights[name].seen
        if sight.identity and sight.phase != "ended"
    }
    return {
        intent.id: listed[intent.id]
        for intent in memory.intents
        if intent.pool in joining and intent.registered_at is None and intent.id in listed
    }
