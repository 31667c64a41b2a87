"""The machines of a simulation: one shipped fake for each pool, made to fail by the simulation's dice."""

from collections.abc import Callable, Mapping

from backends.base import Context, LaunchOutcome, ListFailed, RefusalKind, Submission
from backends.memory import Fate, Lose, MemoryBackend, MemoryPlatform, Refuse, TimeOut, Unreadable, VirtualWorker
from backends.memory.faults import FaultOrders
from worker_manager.policy.facts import Sight, Sights
from worker_manager.simulate.world import Chance, Faults, SimPool

MANAGER = "sim"


class Site:
    """One pool's platform, with the faults that its next call meets drawn from the simulation's dice."""

    def __init__(self, pool: SimPool, now_ms: Callable[[], int], chance: Chance, faults: Callable[[], Faults]) -> None:
        self.pool = pool
        self.platform = MemoryPlatform(now_ms, quota=pool.quota)
        self.backend = MemoryBackend(self.platform, Context(MANAGER, pool.settings.name, "", now_ms))
        self._now_ms = now_ms
        self._chance = chance
        self._faults = faults

    def launch(self, submission: Submission) -> LaunchOutcome:
        orders = self._fresh_orders()
        for _ in range(submission.count):
            orders.inject("worker", self._fate())
        faults = self._faults()
        if self._chance.happens(faults.refused):
            orders.inject("launch", Refuse(RefusalKind.CAPACITY))
        elif self._chance.happens(faults.unanswered):
            orders.inject("launch", TimeOut(executes=self._chance.happens(0.5)))
        return self.backend.launch(submission)

    def terminate(self, handle: str, force: bool) -> None:
        orders = self._fresh_orders()
        if self._chance.happens(self._faults().unanswered_ends):
            orders.inject("terminate", TimeOut(executes=self._chance.happens(0.5)))
        self.backend.terminate(handle, force)

    def listing(self) -> Sights:
        orders, faults = self._fresh_orders(), self._faults()
        if self._chance.happens(faults.unreadable_backend):
            orders.inject("list", Unreadable())
        elif self._chance.happens(faults.torn_listing):
            orders.inject("list", Lose(count=self._chance.dice.randint(1, 5)))
        at = self._now_ms()
        try:
            listing = self.backend.list()
        except ListFailed as error:
            return Sights(at, failed=str(error))
        seen = tuple(
            Sight(f"{one.submission}-{one.index}", one.phase.value, one.handle, one.started_at, None, one.detail)
            for one in listing.seen
        )
        return Sights(at, seen, listing.complete)

    def alive(self) -> Mapping[str, VirtualWorker]:
        return {worker.id: worker for worker in self.platform.workers()}

    def _fresh_orders(self) -> FaultOrders:
        self.platform.faults.heal()
        return self.platform.faults

    def _fate(self) -> Fate:
        dice = self._chance.dice
        return Fate(
            queue_ms=self.pool.queue.draw(dice),
            boot_ms=self.pool.boot.draw(dice),
            end_ms=self.pool.end.draw(dice),
            dies_at_boot=self._chance.happens(self._faults().dead_at_boot),
        )
