"""The loop with real threads and the real clock, against the memory backend: what wakes it, and what never stops it."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.base import Context, LaunchOutcome, Submission
from backends.memory import CAPABILITIES, Hang, MemoryBackend, MemoryPlatform
from worker.protocol import Shape
from worker_manager.clock import SystemClock
from worker_manager.control.ledger import Ledger
from worker_manager.control.loop import Manager
from worker_manager.control.pool import ManagedPool
from worker_manager.errors import LeaseHeld
from worker_manager.policy.facts import PoolSettings
from worker_manager.policy.model import Limits
from worker_manager.sources.base import Observation
from worker_manager.sources.memory import MemorySource

SHAPE = Shape(cpus=1000)
CLOCK = SystemClock()
PATIENCE_S = 20.0


class Site:
    """Two pools on platforms of their own, one source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = MemorySource(CLOCK.now_ms)
        self.platforms = {name: MemoryPlatform(CLOCK.now_ms) for name in ("a", "b")}
        self.launched: list[tuple[str, float]] = []
        self.signal = threading.Condition()

    def pool(self, name: str, call_timeout_ms: int = 10_000) -> ManagedPool:
        context = Context("m", name, str(self.folder), CLOCK.now_ms)
        backend = MemoryBackend(self.platforms[name], context)
        launch = backend.launch

        def noticed(submission: Submission) -> LaunchOutcome:
            with self.signal:
                self.launched.append((submission.pool, time.monotonic()))
                self.signal.notify_all()
            return launch(submission)

        backend.launch = noticed  # type: ignore[method-assign]
        tags = (name,)
        settings = PoolSettings(name, "memory", Shape(cpus=1000, tags=tags, exclusive=True), Limits(max_workers=500))
        return ManagedPool(settings, backend, CAPABILITIES, call_timeout_ms=call_timeout_ms, list_ms=200)

    def ledger(self) -> Ledger:
        return Ledger.in_folder(self.folder, "m", CLOCK, busy_s=1)

    def manager(self, ledger: Ledger, lease_ms: int = 5_000, **pool: int) -> Manager:
        pools = [self.pool("a", **pool), self.pool("b", **pool)]
        return Manager("m", "here", CLOCK, ledger, self.source, pools, lease_ms=lease_ms)

    def jobs(self, pool: str, count: int) -> None:
        self.source.wait(pool, Shape(cpus=1000, tags=(pool,)), count)

    def wait_until(self, fulfilled: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not fulfilled():
            assert time.monotonic() < until, f"in vain: {what}"
            with self.signal:
                self.signal.wait(0.01)


@contextmanager
def running(manager: Manager, ledger: Ledger, **options: bool) -> Iterator[list[BaseException]]:
    ended: list[BaseException] = []

    def run() -> None:
        try:
            manager.run(**options)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ended
    finally:
        manager.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        ledger.close()


def test_a_change_of_the_backlog_reaches_the_backend_within_tens_of_milliseconds(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ledger = site.ledger()
    manager = site.manager(ledger)
    latencies = []
    with running(manager, ledger) as ended:
        site.wait_until(lambda: manager.last_plan is not None, "the first tick")
        for jobs in range(1, 12):
            site.wait_until(lambda: not ended, "alive")
            before, began = len(site.launched), time.monotonic()
            site.jobs("a", jobs)
            site.wait_until(lambda n=before: len(site.launched) > n, "a launch")  # type: ignore[misc]
            latencies.append(site.launched[before][1] - began)
    assert ended == []
    print(f"backlog change to backend.launch: median {statistics.median(latencies) * 1000:.0f} ms, {latencies}")
    assert statistics.median(latencies) < 1.0, "generous: it is some 40 ms on an idle machine"


def said(manager: Manager, pool: str) -> str:
    plan = manager.last_plan
    lines = plan.pools if plan is not None else ()
    return " ".join(reason.text for line in lines if line.pool == pool for reason in line.reasons)


def test_a_backend_that_hangs_holds_up_neither_the_other_pools_nor_lease_nor_heartbeat(tmp_path: Path) -> None:
    site = Site(tmp_path)
    gate = threading.Event()
    ledger = site.ledger()
    manager = site.manager(ledger, lease_ms=900, call_timeout_ms=200)
    with running(manager, ledger) as ended:
        site.wait_until(lambda: manager.last_plan is not None, "the first tick")
        site.platforms["a"].faults.inject("launch", Hang(lambda _: gate.wait(PATIENCE_S)))
        site.jobs("a", 1)
        site.wait_until(lambda: "a" in [pool for pool, _ in site.launched], "the call that hangs")
        begun = CLOCK.boot_ms()
        site.jobs("b", 3)
        site.wait_until(lambda: len(site.platforms["b"].workers()) == 3, "the other pool's workers")
        site.wait_until(lambda: CLOCK.boot_ms() > begun + 2_000, "twice the lease")
        assert ended == []
        with pytest.raises(LeaseHeld):
            site.ledger().acquire("second", 900)
        site.jobs("b", 4)
        site.wait_until(lambda: manager.heartbeat_ms > begun + 1_500, "a heartbeat")
        site.jobs("a", 5)
        site.wait_until(lambda: "has not answered a launch" in said(manager, "a"), "what people are told")
        assert [pool for pool, _ in site.launched].count("a") == 1
        gate.set()
        site.wait_until(lambda: len(site.platforms["a"].workers()) == 5, "the call that hung, and what was held back")
    again = site.ledger()
    intents = [intent.pool for intent in again.memory().intents]
    assert sorted(intents) == ["a"] * 5 + ["b"] * 4
    again.close()


def test_two_managers_on_one_ledger_one_acts(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first, second = site.ledger(), site.ledger()
    leader, other = site.manager(first), site.manager(second)
    with running(leader, first):
        site.wait_until(lambda: leader.last_plan is not None, "the first tick")
        with pytest.raises(LeaseHeld, match="here") as caught:
            other.run()
        assert caught.value.exit_code == 75
        with pytest.raises(LeaseHeld):
            other.once()
        standby = site.manager(second)
        with running(standby, second, stand_by=True) as ended:
            site.jobs("a", 2)
            site.wait_until(lambda: len(site.platforms["a"].workers()) == 2, "the leader's launch")
            assert standby.last_plan is None
            leader.stop()
            site.wait_until(lambda: standby.last_plan is not None, "the one that stood by")
            site.jobs("a", 3)
            site.wait_until(lambda: len(site.platforms["a"].workers()) == 3, "its launch")
            assert ended == []


def test_a_leader_that_is_superseded_stops_with_75(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ledger, thief = site.ledger(), site.ledger()
    manager = site.manager(ledger, lease_ms=600)
    with running(manager, ledger) as ended:
        site.wait_until(lambda: manager.last_plan is not None, "the first tick")
        with thief._transaction() as write:
            write.exec_driver_sql("UPDATE lease SET epoch = epoch + 1, holder = 'thief'")
        site.jobs("a", 1)
        site.wait_until(lambda: bool(ended), "the end of the superseded leader")
    assert isinstance(ended[0], LeaseHeld)
    assert ended[0].exit_code == 75
    assert site.platforms["a"].workers() == ()
    thief.close()


def test_one_whole_pass_launches_reports_and_lets_go(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.jobs("a", 2)
    ledger = site.ledger()
    site.manager(ledger).once()
    assert len(site.platforms["a"].workers()) == 2
    assert {intent.state for intent in ledger.memory().intents} == {"submitted"}
    assert site.source.published
    assert ledger.epoch is None
    site.manager(ledger).once()
    assert len(site.platforms["a"].workers()) == 2
    ledger.close()


def test_a_preview_decides_and_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.jobs("a", 2)
    ledger = site.ledger()
    before = ledger.path.read_bytes(), ledger.memory()
    plan = site.manager(ledger).preview()
    assert sum(getattr(action, "count", 0) for action in plan.actions) == 2
    assert site.platforms["a"].workers() == ()
    assert (ledger.path.read_bytes(), ledger.memory()) == before
    assert site.source.published == []
    assert site.source.open_tokens() == frozenset()
    ledger.close()


def test_new_pools_take_effect_at_the_next_tick(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ledger = site.ledger()
    manager = Manager("m", "here", CLOCK, ledger, site.source, [site.pool("a")])
    with running(manager, ledger) as ended:
        site.jobs("b", 1)
        site.wait_until(lambda: manager.last_plan is not None, "the first tick")
        manager.reload([site.pool("b")])
        site.wait_until(lambda: len(site.platforms["b"].workers()) == 1, "a worker of the new pool")
        site.jobs("a", 1)
        site.jobs("b", 2)
        site.wait_until(lambda: len(site.platforms["b"].workers()) == 2, "one more")
        assert site.platforms["a"].workers() == ()
        assert ended == []


def test_the_first_plan_that_people_see_knows_the_workers(tmp_path: Path) -> None:
    """A quick listing is waited for, even when it is behind the source's first word."""
    site = Site(tmp_path)
    asked = threading.Event()
    observe = site.source.observe

    def noted(seen_version: int | None, wait_ms: int) -> Observation:
        try:
            return observe(seen_version, wait_ms if seen_version is None else min(wait_ms, 200))
        finally:
            asked.set()

    site.source.observe = noted  # type: ignore[method-assign]
    for platform in site.platforms.values():
        platform.faults.inject("list", Hang(lambda _: asked.wait(PATIENCE_S)))
    site.jobs("a", 3)
    ledger = site.ledger()
    manager = site.manager(ledger)
    with running(manager, ledger) as ended:
        site.wait_until(lambda: bool(site.source.published), "the first report")
        assert ended == []
    first = {line["pool"]: line for line in site.source.published[0]["pools"]}
    assert (first["a"]["wanted"], first["a"]["requested"] + first["a"]["observed"]) == (3, 3)
    assert [reason["code"] for reason in first["b"]["reasons"]] == ["no-backlog"]


def test_a_slow_first_listing_holds_up_its_own_pool_only(tmp_path: Path) -> None:
    site = Site(tmp_path)
    gate = threading.Event()
    site.platforms["a"].faults.inject("list", Hang(lambda _: gate.wait(PATIENCE_S)))
    site.jobs("a", 1)
    site.jobs("b", 2)
    ledger = site.ledger()
    manager = site.manager(ledger)
    with running(manager, ledger) as ended:
        site.wait_until(lambda: len(site.platforms["b"].workers()) == 2, "the other pool's workers")
        assert site.platforms["a"].workers() == ()
        site.wait_until(lambda: "not been listed yet" in said(manager, "a"), "what people are told")
        gate.set()
        site.wait_until(lambda: len(site.platforms["a"].workers()) == 1, "its own, once it is listed")
        assert ended == []
