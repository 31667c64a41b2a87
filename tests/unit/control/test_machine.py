"""Ledger and apply against a world that lies, hangs up and dies in any order.

At every moment: no more workers are admitted than may be, and nobody who works is ended. And when the world behaves
again, the number of workers is what the backlog asks for, with nothing left over anywhere.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backends.base import EndOutcome, RefusalKind
from backends.memory import Fate, Fault, Lose, MemoryBackend, Refuse, TimeOut, Unreadable
from tests.unit.control.world import ASKS, LAG_MS, Died, World
from worker_manager.control.pool import STEPS, ManagedPool, Reach
from worker_manager.sources.base import Cordon
from worker_manager.sources.memory import MemorySource

MAX_WORKERS = 4
LAUNCH_FAULTS = (
    TimeOut(executes=True),
    TimeOut(executes=False),
    Refuse(RefusalKind.CAPACITY),
    Refuse(RefusalKind.AUTH),
)
LIST_FAULTS = (Unreadable(), Lose(1), Lose(2, complete=True))
END_FAULTS = (TimeOut(executes=True), TimeOut(executes=False), Refuse(RefusalKind.THROTTLED))
FATES = (Fate(dies_at_boot=True), Fate(boot_ms=20_000), Fate(vanishes=True, run_ms=9_000), Fate(strange=True))


class Watched(World):
    """A world that notices when someone who works is ended."""

    def __init__(self, folder: Path, max_batch: int) -> None:
        self.wronged: list[str] = []
        self.source_kind = HastySource
        super().__init__(
            folder,
            max_workers=MAX_WORKERS,
            max_batch=max_batch,
            idle_ms=3_000,
            backoff_ms=1_000,
            backoff_cap_ms=2_000,
            breaker_after=1_000,
            start_timeout_ms=60_000,
            lost_timeout_ms=5_000,
            end_grace_ms=5_000,
        )

    def pool(self, name: str = "p", backend: object = None) -> ManagedPool:
        pool = super().pool(name, backend)
        assert isinstance(pool.backend, MemoryBackend)
        terminate = pool.backend.terminate

        def watched(handle: str, force: bool) -> EndOutcome:
            worker = self.platform.find(handle)
            fact = self.source.worker(worker.id) if worker is not None else None
            if fact is not None and fact.state == "ready" and fact.running:
                self.wronged.append(fact.id)
            return terminate(handle, force)

        pool.backend.terminate = watched  # type: ignore[method-assign]
        return pool


class HastySource(MemorySource):
    """Between what a manager saw and what it asks for, agents do what they do."""

    meanwhile: Callable[[], None] | None = None

    def bury(self, workers: Sequence[str], reason: str) -> tuple[str, ...]:
        self._meanwhile()
        return super().bury(workers, reason)

    def cordon(self, cordons: Sequence[Cordon]) -> Mapping[str, int | None]:
        self._meanwhile()
        return super().cordon(cordons)

    def _meanwhile(self) -> None:
        if self.meanwhile is not None and not self.unavailable:
            self.meanwhile()


class Machine(RuleBasedStateMachine):
    @initialize(max_batch=st.sampled_from([1, 3]))
    def begin(self, max_batch: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.world = Watched(Path(self.folder.name), max_batch)
        self.jobs = 0

    @rule(jobs=st.integers(0, 6))
    def the_backlog_changes(self, jobs: int) -> None:
        self.jobs = jobs
        self.world.source.wait("g", ASKS, jobs)

    @rule(seconds=st.sampled_from([1, 1, 2, 5, 20]))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.survive(self.world.step)

    @rule()
    def a_tick_comes_early(self) -> None:
        self.survive(self.world.tick)

    @rule(fault=st.sampled_from(LAUNCH_FAULTS))
    def a_launch_will_go_wrong(self, fault: Fault) -> None:
        self.world.platform.faults.inject("launch", fault)

    @rule(fault=st.sampled_from(LIST_FAULTS), times=st.integers(1, 8))
    def listings_will_go_wrong(self, fault: Fault, times: int) -> None:
        self.world.platform.faults.inject("list", fault, times)

    @rule(fault=st.sampled_from(END_FAULTS))
    def an_end_will_go_wrong(self, fault: Fault) -> None:
        self.world.platform.faults.inject("terminate", fault)

    @rule(fate=st.sampled_from(FATES))
    def a_machine_will_go_wrong(self, fate: Fate) -> None:
        self.world.platform.faults.inject("worker", fate)

    @rule(step=st.sampled_from(STEPS), times=st.integers(1, 3))
    def the_manager_will_die(self, step: str, times: int) -> None:
        self.world.restart(dying_at(step, times))

    @rule(hasty=st.booleans())
    def agents_act_at_the_worst_moment(self, hasty: bool) -> None:
        assert isinstance(self.world.source, HastySource)
        self.world.source.meanwhile = self.world.agents if hasty else None

    @rule(away=st.booleans())
    def the_source_comes_and_goes(self, away: bool) -> None:
        self.world.source.unavailable = "the network is down" if away else ""

    @precondition(lambda self: any(f.state == "ready" for f in self.world.source.workers()))
    @rule(data=st.data())
    def a_worker_takes_or_ends_a_job(self, data: st.DataObject) -> None:
        facts = [fact for fact in self.world.source.workers() if fact.state == "ready"]
        fact = data.draw(st.sampled_from(facts))
        now = self.world.clock.now_ms()
        busy = not fact.running
        self.world.source.change(fact.id, running=int(busy), idle_since=None if busy else now)

    @precondition(lambda self: self.world.platform.workers())
    @rule(data=st.data(), shown=st.booleans())
    def a_machine_dies(self, data: st.DataObject, shown: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(w.id for w in self.world.platform.workers())))
        if shown:
            self.world.platform.leave(worker, exit_code=137)
        else:
            self.world.platform.vanish(worker)
        fact = self.world.source.worker(worker)
        if fact is not None and fact.state != "gone":
            self.world.source.change(worker, state="lost")

    def survive(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Died:
            self.world.restart()

    @invariant()
    def no_more_are_admitted_than_may_be(self) -> None:
        assert self.world.admitted() <= MAX_WORKERS

    @invariant()
    def nobody_who_works_is_ended(self) -> None:
        assert self.world.wronged == []

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.everything_is_put_right()
        finally:
            self.world.ledger.abandon()
            self.folder.cleanup()

    def everything_is_put_right(self) -> None:
        world = self.world
        world.platform.faults.heal()
        world.source.unavailable = ""
        world.restart()
        for fact in world.source.workers():
            if fact.running:
                world.source.change(fact.id, running=0, idle_since=world.clock.now_ms())
        for _ in range(100):
            world.step(LAG_MS)
            self.no_more_are_admitted_than_may_be()
        assert world.admitted() == world.alive() == min(self.jobs, MAX_WORKERS), world.described()
        assert set(world.open_intents()) == {f.id for f in world.source.workers() if f.state == "ready"}
        assert set(world.open_intents().values()) <= {"submitted"}
        assert world.ledger.announced() == ()
        assert world.ledger.calls_without_outcome() == ()
        assert world.source.open_tokens() == frozenset()


def dying_at(step: str, times: int) -> Reach:
    left = [times]

    def reach(name: str) -> None:
        if name == step:
            left[0] -= 1
            if left[0] == 0:
                raise Died(step)

    return reach


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
