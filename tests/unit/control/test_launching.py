"""Workers begin: the right number, whatever a backend answers and whenever the manager dies."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import RefusalKind
from backends.memory import Fate, Hang, Lose, Refuse, TimeOut, Unreadable
from tests.unit.control.world import ASKS, CALL_MS, LAG_MS, SHAPE, Died, World
from worker_manager.control.launching import CALL_SLACK_MS, share
from worker_manager.control.loop import SOON_MS
from worker_manager.control.reconcile import STARTS_KEPT
from worker_manager.sources.base import LaunchClaim

BURIED_AFTER_S = (CALL_MS + CALL_SLACK_MS + LAG_MS) // 1000 + 5


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_jobs_that_wait_get_workers_that_register(world: World) -> None:
    world.source.wait("g", ASKS, 3)
    world.tick()
    assert world.alive() == 3
    world.steps(5)
    assert world.admitted() == 3
    assert world.alive() == 3
    assert set(world.open_intents().values()) == {"submitted"}
    assert world.outcomes("launch") == ["launched"] * 3


def test_a_launch_that_a_limit_lowered_says_so_in_its_decision(tmp_path: Path) -> None:
    world = World(tmp_path, max_workers=3, max_batch=2)
    world.source.wait("g", ASKS, 20)
    world.tick()
    made = world.ledger.decisions()
    assert [decision["text"] for decision in made] == ["2 workers, 20 wanted", "1 worker, 20 wanted"]
    for decision in made:
        assert decision["outcome"] == "launched"
        assert decision["reason"]["text"] == "20 jobs wait: 20 more workers of this shape would hold them"
        assert [(limit["code"], limit["text"]) for limit in decision["limited"]] == [
            ("max-workers", "max-workers: 3 of 3")
        ]
    assert world.source.published[-1]["decisions"] == list(made)


def test_a_launch_that_nothing_lowered_names_no_limit(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.tick()
    (decision,) = world.ledger.decisions()
    assert (decision["text"], decision["limited"]) == ("1 worker", [])


@pytest.mark.parametrize("batch", [1, 2, 5, 1000])
def test_a_launch_is_split_by_what_one_call_may_carry(tmp_path: Path, batch: int) -> None:
    world = World(tmp_path, max_batch=batch)
    world.source.wait("g", ASKS, 5)
    world.tick()
    sizes = {worker.submission.id: worker.submission.count for worker in world.platform.workers()}
    assert sum(sizes.values()) == 5
    assert len(sizes) == -(-5 // batch)
    assert max(sizes.values()) <= batch


def test_tokens_reach_the_platform_and_only_their_hashes_the_ledger(world: World) -> None:
    world.source.wait("g", ASKS, 2)
    world.tick()
    tokens = {worker.join_token for worker in world.platform.workers()}
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)
    written = b"".join(path.read_bytes() for path in world.folder.iterdir())
    assert not any(token.encode() in written for token in tokens)


def test_a_refused_launch_is_closed_and_remembered_as_a_failure(world: World) -> None:
    world.platform.faults.inject("launch", Refuse(RefusalKind.CAPACITY, "none left", retry_after_s=7))
    world.source.wait("g", ASKS, 1)
    world.tick()
    assert world.open_intents() == {}
    (failure,) = world.ledger.memory().pools["p"].history.failures
    assert (failure.kind, failure.text, failure.retry_after_ms) == ("capacity", "none left", 7_000)
    assert world.source.open_tokens() == frozenset()
    assert world.outcomes("launch") == ["refused"]


@pytest.mark.parametrize("fault", [Refuse(RefusalKind.CAPACITY), TimeOut(executes=False)])
def test_a_launch_that_came_to_nothing_is_looked_at_again_soon(world: World, fault: object) -> None:
    """The plan that asked for it cannot know when to look again."""
    world.manager.reload([replace(world.pool(), list_ms=600_000, list_idle_ms=600_000)])
    world.tick()
    assert world.manager._next_tick - world.clock.boot_ms() > SOON_MS
    world.platform.faults.inject("launch", fault)  # type: ignore[arg-type]
    world.source.wait("g", ASKS, 1)
    world.tick()
    assert world.manager._next_tick - world.clock.boot_ms() <= SOON_MS
    world.step()
    plan = world.manager.last_plan
    assert plan is not None
    told = [reason.code for reason in plan.pools[0].reasons]
    assert told[-1] in ("backoff", "enough"), "the failure, or what may exist, is known now"


@pytest.mark.parametrize("executes", [True, False])
def test_an_unknown_create_counts_until_it_is_adopted_or_buried(world: World, executes: bool) -> None:
    world.platform.faults.inject("launch", TimeOut(executes=executes))
    world.source.wait("g", ASKS, 1)
    world.tick()
    assert list(world.open_intents().values()) == ["unknown"]
    world.step(500)
    assert world.alive() == (1 if executes else 0), "an unknown create was launched again"
    world.steps(BURIED_AFTER_S)
    assert world.admitted() == 1
    assert world.alive() == 1
    assert list(world.open_intents().values()) == ["submitted"]


def test_an_unknown_create_that_is_only_listed_late_is_adopted_not_doubled(world: World) -> None:
    world.platform.faults.inject("worker", Fate(boot_ms=8_000))
    world.platform.faults.inject("launch", TimeOut(executes=True))
    world.platform.faults.inject("list", Lose(1, complete=True), times=3)
    world.source.wait("g", ASKS, 1)
    world.steps(30)
    assert world.alive() == world.admitted() == 1
    assert world.outcomes("launch") == ["unknown"]


def test_a_worker_that_registers_while_its_burial_is_decided_is_kept(world: World) -> None:
    world.platform.faults.inject("launch", TimeOut(executes=True))
    world.platform.faults.inject("list", Lose(1, complete=True), times=BURIED_AFTER_S + 10)
    world.source.wait("g", ASKS, 1)
    world.tick()
    (late,) = world.platform.workers()
    bury = world.source.bury
    asked = []

    def register_first(workers: Sequence[str], reason: str) -> tuple[str, ...]:
        asked.append(tuple(workers))
        if world.source.worker(late.id) is None:
            world.source.register(late.id, "p", late.join_token, SHAPE)
        return bury(workers, reason)

    world.source.bury = register_first  # type: ignore[method-assign]
    for _ in range(BURIED_AFTER_S):
        world.clock.advance(1_000)
        world.manager.tick()
    assert asked == [(late.id,)], "its burial was decided once, and refused"
    assert world.open_intents() == {late.id: "submitted"}
    assert world.alive() == 1
    assert "close" not in [decision["action"] for decision in world.ledger.decisions()]


@pytest.mark.parametrize("fault", [Unreadable(), Lose(1)])
def test_nothing_is_launched_while_a_backend_cannot_be_read_whole(world: World, fault: object) -> None:
    world.source.wait("g", ASKS, 1)
    world.tick()
    world.platform.faults.inject("list", fault, times=1000)  # type: ignore[arg-type]
    world.steps(60)
    assert world.alive() == 1
    assert len(world.open_intents()) == 1


def test_nothing_is_decided_before_the_first_listing(world: World) -> None:
    world.platform.faults.inject("list", Unreadable("down"), times=1)
    world.source.wait("g", ASKS, 1)
    plan = world.tick()
    assert plan.actions == ()
    assert "down" in plan.pools[0].reasons[-1].text


@pytest.mark.parametrize("answer", [None, "ok", 42])
def test_an_answer_that_makes_no_sense_is_unknown(world: World, answer: object) -> None:
    backend = world.pool().backend
    backend.launch = lambda submission: answer  # type: ignore[method-assign,assignment,return-value]
    world.manager.reload([world.pool(backend=backend)])
    world.source.wait("g", ASKS, 1)
    world.tick()
    assert list(world.open_intents().values()) == ["unknown"]


def test_an_exception_of_a_backend_is_unknown(world: World) -> None:
    def explode(timeout_s: float) -> bool:
        raise KeyError("boto")

    world.platform.faults.inject("launch", Hang(explode))
    world.source.wait("g", ASKS, 1)
    world.tick()
    assert list(world.open_intents().values()) == ["unknown"]


def test_a_source_that_cannot_be_read_means_no_decision(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.source.unavailable = "the network is down"
    plan = world.tick()
    assert plan.actions == ()
    assert world.alive() == 0
    world.source.unavailable = ""
    world.step()
    assert world.alive() == 1


def test_jobs_that_another_manager_covers_are_not_launched_for(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.source.coverage_taken = True
    world.tick()
    assert world.alive() == 0
    assert world.open_intents() == {}
    assert world.ledger.announced() == ()
    world.source.coverage_taken = False
    world.step()
    assert world.alive() == 1


def test_a_source_that_takes_no_announcement_is_asked_ever_more_seldom(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.source.deaf = "it is being restored"
    asked, announce = [], world.source.announce

    def counted(claim: LaunchClaim) -> None:
        asked.append(world.clock.boot_ms())
        announce(claim)

    world.source.announce = counted  # type: ignore[method-assign]
    for _ in range(1200):
        world.step(100)
    assert 10 <= len(asked) <= 16, "two minutes with ten ticks a second"
    assert world.open_intents() == {}
    world.source.deaf = ""
    world.steps(31)
    assert world.admitted() == 1


def test_how_long_starts_take_is_remembered_across_restarts_and_not_for_ever(world: World) -> None:
    world.source.wait("g", ASKS, 2)
    world.tick()
    world.clock.advance(3_000)
    world.agents()
    world.step()
    world.restart()
    assert world.ledger.memory().pools["p"].history.starts == (3_000, 3_000)
    with world.ledger.write() as write:
        write.started("p", [7] * STARTS_KEPT, world.clock.now_ms())
    world.source.wait("g", ASKS, 1)
    for fact in world.source.workers():
        world.source.change(fact.id, running=1, idle_since=None, free=SHAPE.less(SHAPE))
    world.tick()
    world.steps(3)
    assert world.ledger.memory().pools["p"].history.starts == (*[7] * (STARTS_KEPT - 1), 1_000)


def test_a_machine_that_dies_at_boot_is_a_boot_failure(world: World) -> None:
    world.platform.faults.inject("worker", Fate(dies_at_boot=True))
    world.source.wait("g", ASKS, 1)
    world.steps(4)
    history = world.ledger.memory().pools["p"].history
    assert [failure.kind for failure in history.failures] == ["boot"]


LAUNCH_STEPS = ("noted", "announced", "intents-written", "before-call", "after-call", "outcome-written")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("step", LAUNCH_STEPS)
def test_death_at_each_step_of_a_launch_leads_to_the_right_number(
    tmp_path: Path, step: str, jobs: int, batch: int
) -> None:
    calls = jobs if batch == 1 and step in ("announced", "before-call", "after-call") else 1
    for which in range(calls):
        world = World(tmp_path / str(which), max_batch=batch)
        died = _die_at(world, step, which)
        world.source.wait("g", ASKS, jobs)
        with pytest.raises(Died):
            world.tick()
        assert died == [step]
        world.restart()
        for _ in range(BURIED_AFTER_S + 20):
            world.step()
            assert world.admitted() <= jobs
            assert world.alive() <= jobs
        assert world.admitted() == world.alive() == jobs
        assert set(world.open_intents().values()) == {"submitted"}
        assert len(world.open_intents()) == jobs
        assert world.ledger.announced() == ()
        assert world.ledger.calls_without_outcome() == ()
        assert world.source.open_tokens() == frozenset()


def _die_at(world: World, step: str, which: int) -> list[str]:
    """The manager dies when it reaches `step` for the `which`-th time, counted from 0."""
    died: list[str] = []
    passed = [0]

    def reach(name: str) -> None:
        if name == step:
            passed[0] += 1
            if passed[0] == which + 1:
                died.append(step)
                raise Died(step)

    world.restart(reach)
    return died


def test_two_deaths_in_a_row_change_nothing(world: World) -> None:
    world.source.wait("g", ASKS, 2)
    for step in ("after-call", "intents-written", "announced", "buried"):
        _die_at(world, step, 0)
        for _ in range(40):
            try:
                world.step()
            except Died:
                break
    world.restart()
    world.steps(BURIED_AFTER_S + 20)
    assert world.admitted() == world.alive() == 2


@pytest.mark.parametrize("count", [1, 3, 7])
def test_shares_add_up(count: int) -> None:
    covers = (("a", 10), ("b", 1), ("c", 4))
    parts = [share(covers, n, n + 1, count) for n in range(count)]
    total: dict[str, int] = {}
    for part in parts:
        for key, jobs in part:
            total[key] = total.get(key, 0) + jobs
            assert jobs > 0
    assert total == dict(covers)
