"""A whole world in one process: a platform, a source, agents that come when their machine runs, managers that die."""

from collections.abc import Callable
from pathlib import Path

from backends.base import Capabilities, Context, WorkerPhase
from backends.memory import Fate, MemoryBackend, MemoryPlatform
from worker.protocol import Shape
from worker_manager.clock import ManualClock
from worker_manager.control.ledger import Ledger
from worker_manager.control.loop import Manager
from worker_manager.control.pool import ManagedPool, nothing_happens
from worker_manager.policy.facts import PoolSettings
from worker_manager.policy.model import Limits, Plan
from worker_manager.sources.memory import MemorySource, TokenRefused

SHAPE = Shape(cpus=1000, memory=2**30)
ASKS = Shape(cpus=1000)
LAG_MS = 2_000
CALL_MS = 10_000


class Died(BaseException):
    """A sudden death at one step: nothing catches it."""


class World:
    source_kind: type[MemorySource] = MemorySource

    def __init__(self, folder: Path, *, max_workers: int = 10, max_batch: int = 1, **limits: object) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.capabilities = Capabilities(max_batch=max_batch, idempotent_create=False, list_lag_s=LAG_MS / 1000)
        self.platform = MemoryPlatform(self.clock.now_ms, capabilities=self.capabilities, defaults=Fate(boot_ms=1_000))
        self.source = self.source_kind(self.clock.now_ms)
        self.limits = Limits(max_workers=max_workers, **{"stabilise_ms": 0, **limits})  # type: ignore[arg-type]
        self._launches = 0
        self.ledger = self.open_ledger()
        self.manager = self.new_manager()
        self.ledger.acquire("first", 30_000)

    def open_ledger(self) -> Ledger:
        return Ledger.in_folder(self.folder, "m", self.clock, busy_s=0.05)

    def pool(self, name: str = "p", backend: object = None) -> ManagedPool:
        context = Context("m", name, str(self.folder), self.clock.now_ms)
        settings = PoolSettings(
            name=name,
            backend="memory",
            shape=SHAPE,
            limits=self.limits,
            max_batch=self.capabilities.max_batch,
            list_lag_ms=LAG_MS,
        )
        return ManagedPool(
            settings,
            backend or MemoryBackend(self.platform, context),  # type: ignore[arg-type]
            self.capabilities,
            call_timeout_ms=CALL_MS,
            list_ms=1_000,
            list_idle_ms=1_000,
        )

    def new_manager(self, reach: Callable[[str], None] = nothing_happens) -> Manager:
        pools = [self.pool()]
        return Manager(
            "m", "test", self.clock, self.ledger, self.source, pools, inline=True, reach=reach, new_id=self.new_id
        )

    def new_id(self, manager: str, now_ms: int) -> str:
        """The same at each run of a test."""
        self._launches += 1
        return f"{manager}-{self._launches:05}"

    # ------------------------------------------------------------ what happens

    def tick(self) -> Plan:
        return self.manager.tick()

    def step(self, ms: int = 1_000) -> Plan:
        """Time passes, agents do what they do, the manager ticks."""
        self.clock.advance(ms)
        self.agents()
        return self.manager.tick()

    def steps(self, seconds: int) -> None:
        for _ in range(seconds):
            self.step()

    def agents(self) -> None:
        """Each machine that runs has an agent: it registers once, leaves when it is drained and idle."""
        for worker in self.platform.workers():
            if worker.phase(self.clock.now_ms()) is not WorkerPhase.RUNNING:
                continue
            fact = self.source.worker(worker.id)
            if fact is None:
                try:
                    self.source.register(worker.id, worker.submission.pool, worker.join_token, SHAPE)
                except TokenRefused:
                    self.platform.leave(worker.id, exit_code=1, detail="its token is refused")
            elif fact.state == "draining" and not fact.running + fact.assigned:
                self.source.change(worker.id, state="gone", idle_since=None)
                self.platform.leave(worker.id)
            elif fact.state == "gone":
                self.platform.leave(worker.id)
        alive = {worker.id for worker in self.platform.workers()}
        for fact in self.source.workers():
            if fact.state in ("ready", "draining") and fact.id not in alive:
                self.source.change(fact.id, state="lost")  # its lease has ended

    def restart(self, reach: Callable[[str], None] = nothing_happens) -> None:
        """The manager has died; a new one begins with what is on disk."""
        self.ledger.abandon()
        self.ledger = self.open_ledger()
        self.manager = self.new_manager(reach)
        self.ledger.acquire("next", 30_000)

    # ------------------------------------------------------------ what there is

    def alive(self) -> int:
        return len(self.platform.workers())

    def admitted(self) -> int:
        return sum(fact.state in ("ready", "draining") for fact in self.source.workers())

    def open_intents(self) -> dict[str, str]:
        return {intent.id: intent.state for intent in self.ledger.memory().intents}

    def outcomes(self, action: str) -> list[str]:
        return [found["outcome"] for found in self.ledger.decisions() if found["action"] == action]

    def described(self) -> str:
        """For the person who reads a failed test."""
        plan = self.manager.last_plan
        lines = [f"{self.admitted()} admitted, {self.alive()} alive, intents {self.open_intents()}"]
        lines += [reason.text for line in (plan.pools if plan else ()) for reason in line.reasons]
        lines += [str(action) for action in (plan.actions if plan else ())]
        lines += [f"{fact.id} {fact.state}" for fact in self.source.workers() if fact.state != "gone"]
        lines += [f"{worker.id} {worker.phase(self.clock.now_ms())}" for worker in self.platform.workers()]
        return "\n".join(lines)
