"""A platform that gives notice: heard, heeded, answered, and all of it told to people."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.base import ListFailed, Notice, RefusalKind
from backends.memory import Hang, Lose, MemoryBackend, Refuse, TimeOut, Unreadable
from tests.unit.control.world import ASKS, World
from worker_manager.control.apply import after, drained
from worker_manager.policy.model import Drain, PoolPlan
from worker_manager.policy.reasons import because

PATIENCE_MS = 60_000


class Speaking(World):
    """Its platform gives notice; what it is answered is counted."""

    def __init__(self, folder: Path, **limits: object) -> None:
        super().__init__(folder, **limits)  # type: ignore[arg-type]
        self.capabilities = replace(self.capabilities, notices=True)
        self.answers: list[tuple[str, str]] = []
        for name in ("hold", "release"):
            setattr(self.platform, name, self.counting(name, getattr(self.platform, name)))
        self.manager = self.new_manager()
        self._leave = self.platform.leave
        self.platform.leave = self.leave  # type: ignore[method-assign]

    def leave(self, worker_id: str, exit_code: int = 0, detail: str = "") -> None:
        """An agent goes; a machine of which its platform has said that it ends it stays until the platform does."""
        noticed = {notice.handle for notice in self.platform.notices("m", "p")}
        if not any(one.id == worker_id and one.handle in noticed for one in self.platform.workers()):
            self._leave(worker_id, exit_code, detail)

    def counting(self, name: str, act: Callable[[Notice], Any]) -> Callable[[Notice], Any]:
        def count(notice: Notice) -> Any:
            self.answers.append((name, notice.id))
            return act(notice)

        return count

    def worker(self, running: int = 1) -> str:
        self.source.wait("g", ASKS, 1)
        self.steps(4)
        (fact,) = self.source.workers()
        self.source.wait("g", ASKS, 0)
        self.source.change(fact.id, running=running, idle_since=None if running else self.clock.now_ms())
        return fact.id

    def gave(self, name: str) -> int:
        return sum(answer == name for answer, _ in self.answers)

    def decided(self, *actions: str) -> list[tuple[str, str, str]]:
        found = self.ledger.decisions()
        return [(one["action"], one["subject"], one["outcome"]) for one in found if one["action"] in actions]


@pytest.fixture
def world(tmp_path: Path) -> Speaking:
    return Speaking(tmp_path)


def test_a_busy_worker_is_drained_held_and_released(world: Speaking) -> None:
    worker = world.worker()
    notice = world.platform.warn(worker, "scale in", patience_ms=PATIENCE_MS)
    world.step()
    fact = world.source.worker(worker)
    assert fact is not None
    assert (fact.state, fact.drain_code) == ("draining", "platform-notice")
    world.steps(150)
    assert [one.id for one in world.platform.workers()] == [worker], "held past the platform's patience"
    assert 5 <= world.gave("hold") <= 7, "about every half minute"
    assert world.gave("release") == 0
    world.source.change(worker, running=0, idle_since=world.clock.now_ms())
    world.steps(5)
    assert world.answers[-1] == ("release", notice.id)
    assert world.alive() == 0
    assert world.open_intents() == {}
    assert world.decided("drain", "hold", "release") == [
        ("drain", worker, "drained"),
        ("hold", worker, "held"),
        ("release", worker, "released"),
    ]
    assert world.ledger.memory().pools["p"].history.failures == ()


def test_people_are_told_the_platforms_words(world: Speaking) -> None:
    worker = world.worker()
    world.platform.warn(worker, "spot interruption", in_ms=120_000)
    plan = world.step()
    (line,) = plan.pools
    assert "the platform is about to end 1 worker: spot interruption" in [reason.text for reason in line.reasons]
    (drain,) = [one for one in world.ledger.decisions() if one["action"] == "drain"]
    assert drain["reason"]["code"] == "platform-notice"
    assert drain["reason"]["numbers"]["left_ms"] == 120_000 - 1_000 - 30_000
    assert "spot interruption" in drain["reason"]["text"]


def test_a_deadline_leaves_its_margin_to_hand_jobs_back(world: Speaking) -> None:
    worker = world.worker()
    notice = world.platform.warn(worker, in_ms=120_000)
    world.step()
    fact = world.source.worker(worker)
    assert fact is not None
    assert fact.drain_deadline is not None
    assert notice.deadline_ms is not None
    assert fact.drain_deadline == notice.deadline_ms - 30_000


def test_a_restarted_manager_goes_on_where_the_other_stopped(world: Speaking) -> None:
    worker = world.worker()
    notice = world.platform.warn(worker, patience_ms=PATIENCE_MS)
    world.steps(3)
    world.restart()
    world.steps(60)
    assert [one.id for one in world.platform.workers()] == [worker]
    assert world.decided("drain") == [("drain", worker, "drained")], "and did not drain it again"
    world.source.change(worker, running=0, idle_since=world.clock.now_ms())
    world.steps(5)
    assert ("release", notice.id) in world.answers
    assert world.open_intents() == {}


def test_a_notice_for_nobody_of_ours_is_released(world: Speaking) -> None:
    notice = world.platform.warn_of_stranger("m", "p", "scale in")
    world.steps(2)
    assert world.answers == [("release", notice.id)]
    world.steps(60)
    assert world.answers == [("release", notice.id)], "once, for it is over"
    assert world.decided("release") == [("release", notice.id, "released")]


def test_a_worker_that_has_not_registered_loses_its_token_before_it_is_let_go(world: Speaking) -> None:
    world.source.wait("g", ASKS, 1)
    world.tick()
    (machine,) = world.platform.workers()
    world.clock.advance(500)
    world.source.wait("g", ASKS, 0)
    world.tick()
    world.clock.advance(LISTED_MS)
    world.manager.tick()
    world.platform.warn(machine.id, patience_ms=PATIENCE_MS)
    world.clock.advance(1_000)
    world.manager.tick()
    world.clock.advance(1_000)
    world.manager.tick()
    assert world.source.open_tokens() == frozenset()
    assert world.gave("release") == 1
    assert world.gave("hold") == 0
    world.steps(5)
    assert world.open_intents() == {}
    assert world.ledger.memory().pools["p"].history.failures == (), "an end that was foreseen is no failed start"


LISTED_MS = 2_500


def test_one_that_registers_in_that_moment_is_held_instead(world: Speaking) -> None:
    world.source.wait("g", ASKS, 1)
    world.tick()
    (machine,) = world.platform.workers()
    world.source.wait("g", ASKS, 0)
    world.clock.advance(LISTED_MS)
    world.manager.tick()
    world.platform.warn(machine.id, patience_ms=PATIENCE_MS)
    bury = world.source.bury

    def registers_first(workers: Any, reason: str) -> tuple[str, ...]:
        world.agents()
        world.source.change(machine.id, running=1, idle_since=None)
        return bury(workers, reason)

    world.source.bury = registers_first  # type: ignore[method-assign]
    world.clock.advance(1_000)
    world.manager.tick()
    world.source.bury = bury  # type: ignore[method-assign]
    assert world.gave("release") == 0
    world.steps(3)
    assert world.gave("hold") == 1
    fact = world.source.worker(machine.id)
    assert fact is not None
    assert fact.state == "draining"


def test_a_lost_worker_is_let_go(world: Speaking) -> None:
    worker = world.worker()
    world.platform.warn(worker, patience_ms=10 * PATIENCE_MS)
    world.steps(2)
    world.source.change(worker, state="lost", running=0)
    world.steps(2)
    assert world.gave("release") == 1


def test_while_the_source_is_away_a_worker_that_came_is_held_and_nobody_is_let_go(world: Speaking) -> None:
    worker = world.worker()
    world.platform.warn(worker, patience_ms=PATIENCE_MS)
    world.source.unavailable = "the network is down"
    for _ in range(200):
        world.clock.advance(1_000)
        world.manager.tick()
    assert [one.id for one in world.platform.workers()] == [worker]
    assert world.gave("release") == 0
    assert world.gave("hold") >= 5
    world.source.unavailable = ""
    world.step()
    fact = world.source.worker(worker)
    assert fact is not None
    assert fact.state == "draining"


def test_absence_counts_only_on_a_whole_listing_made_after_the_notice(world: Speaking) -> None:
    worker = world.worker(running=0)
    world.step()
    handle = world.platform.workers()[0].handle
    notice = Notice("n-late", "somebody-else", "scale in")
    world.platform.notices = lambda manager, pool: (notice,)  # type: ignore[method-assign]
    world.platform.faults.inject("list", Lose(1), times=10)
    world.steps(10)
    assert world.answers == []
    world.steps(5)
    assert world.answers == [("release", "n-late")]
    assert world.platform.find(handle) is not None
    assert worker


def test_notices_that_cannot_be_read_are_told_once_and_forget_nothing(world: Speaking) -> None:
    worker = world.worker()
    world.platform.warn(worker, patience_ms=PATIENCE_MS)
    world.steps(2)
    world.platform.faults.inject("notices", Unreadable("the queue is gone"), times=100)
    world.steps(70)
    assert world.gave("hold") >= 3
    assert world.decided("notices") == [("notices", "p", "unreadable")]
    (told,) = [one for one in world.ledger.decisions() if one["action"] == "notices"]
    assert "the queue is gone" in told["reason"]["text"]
    assert world.open_intents() == {worker: "submitted"}


def test_whatever_a_backend_raises_is_a_platform_that_cannot_be_asked(world: Speaking) -> None:
    class Broken(MemoryBackend):
        def notices(self) -> tuple[Notice, ...]:
            raise ListFailed("") if world.answers else ZeroDivisionError("x" * 10_000)

    world.manager.reload([world.pool(backend=Broken(world.platform, world.pool().backend._context))])  # type: ignore[attr-defined]
    world.steps(3)
    (told,) = [one for one in world.ledger.decisions() if one["action"] == "notices"]
    assert told["reason"]["text"].startswith("the platform cannot be asked which workers it is about to end: ZeroDiv")
    assert len(told["reason"]["text"]) < 1_000


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Refuse(RefusalKind.AUTH, "no right"), "refused"),
        (TimeOut(executes=False), "unknown"),
        (TimeOut(executes=True), "unknown"),
        (Hang(lambda _s: False), "unknown"),
    ],
)
def test_an_answer_that_did_not_arrive_is_given_again(world: Speaking, fault: Any, outcome: str) -> None:
    worker = world.worker()
    world.platform.warn(worker, patience_ms=PATIENCE_MS)
    world.platform.faults.inject("hold", fault)
    world.steps(15)
    assert world.gave("hold") >= 1
    assert world.decided("hold") == [("hold", worker, outcome), ("hold", worker, "held")]
    world.platform.faults.inject("release", fault)
    world.source.change(worker, running=0, idle_since=world.clock.now_ms())
    world.steps(30)
    assert world.decided("release")[0] == ("release", worker, outcome)
    assert world.open_intents() == {}


def test_a_pool_whose_platform_gives_no_notice_is_not_asked(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.platform.faults.inject("notices", Unreadable(), times=1_000)
    world.steps(10)
    assert world.outcomes("notices") == []


def test_other_pools_wait_for_nobodys_notices(world: Speaking) -> None:
    slow = replace(world.pool("slow"), list_ms=1_000_000)
    world.manager.reload([world.pool(), slow])
    worker = world.worker()
    world.platform.faults.inject("notices", Hang(lambda _s: False), times=3)
    world.platform.warn(worker, patience_ms=PATIENCE_MS)
    world.steps(10)
    assert world.gave("hold") >= 1


def test_a_dry_run_heeds_notices_and_writes_nothing(world: Speaking) -> None:
    worker = world.worker()
    world.ledger.release()
    world.platform.faults.inject("notices", Unreadable())
    assert world.new_manager().preview().actions == ()
    world.platform.warn(worker)
    (drain,) = world.new_manager().preview().actions
    assert isinstance(drain, Drain)
    assert world.answers == []
    fact = world.source.worker(worker)
    assert fact is not None
    assert fact.state == "ready"
    world.ledger.acquire("again", 30_000)


def test_a_pools_line_counts_idle_and_busy_drains_apart() -> None:
    line = PoolPlan(
        "p", 0, 0, 3, ready=3, idle=1, draining=0, min_workers=0, max_workers=9, launch=0, drain=2, reasons=()
    )
    now = after(line, 0, drained=2, undrained=0, idle_drained=1)
    assert (now.ready, now.idle, now.draining, now.drain) == (1, 0, 2, 2)
    nobody = Drain("p", "w", because("drifted"), 0)
    assert drained([nobody], {"w"}, {}) == ({}, {})
