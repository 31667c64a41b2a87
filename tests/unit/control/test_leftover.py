"""A pool that is taken out of the configuration: nothing of it is lost, and nothing stays for ever."""

from pathlib import Path

import pytest

from backends.base import WorkerPhase
from backends.memory import FOREVER, Fate
from tests.unit.control.world import ASKS, SHAPE, World
from worker_manager.policy.model import PoolPlan
from worker_manager.sources.base import Command
from worker_manager.sources.memory import TokenRefused


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, max_workers=5, min_workers=1)


def lines(world: World) -> list[PoolPlan]:
    plan = world.manager.last_plan
    return list(plan.pools) if plan else []


def workers(world: World, count: int) -> list[str]:
    world.source.wait("g", ASKS, count)
    world.steps(4)
    assert world.admitted() == count
    world.source.wait("g", ASKS, 0)
    return sorted(fact.id for fact in world.source.workers())


def without_pools(world: World) -> None:
    """A new manager whose configuration has no pool any more, as after a restart."""
    world.restart()
    world.manager.reload([])


def test_its_workers_finish_what_they_have_and_go(world: World) -> None:
    busy, idle = workers(world, 2)
    world.source.change(busy, running=1, idle_since=None)
    world.manager.reload([])
    world.source.wait("g", ASKS, 9)
    world.tick()
    (line,) = lines(world)
    assert (line.pool, line.wanted, line.launch, line.drain) == ("p", 0, 0, 2)
    assert [reason.code for reason in line.reasons] == ["unconfigured"]
    for worker in (busy, idle):
        fact = world.source.worker(worker)
        assert fact is not None
        assert (fact.state, fact.drain_code) == ("draining", "unconfigured")
    world.steps(3)
    assert [worker.id for worker in world.platform.workers()] == [busy], "it works on"
    world.steps(60)
    assert [worker.id for worker in world.platform.workers()] == [busy], "however long that takes"
    world.source.change(busy, running=0, idle_since=world.clock.now_ms())
    world.steps(3)
    assert (world.alive(), world.open_intents(), lines(world)) == (0, {}, [])
    assert world.source.published[-1]["pools"] == []


def test_those_on_their_way_go_as_soon_as_they_can(world: World) -> None:
    world.platform.faults.inject("worker", Fate(queue_ms=FOREVER))
    world.source.wait("g", ASKS, 2)
    world.step()
    world.step()
    assert sorted(worker.phase(world.clock.now_ms()) for worker in world.platform.workers()) == [
        WorkerPhase.PENDING,
        WorkerPhase.RUNNING,
    ]
    world.manager.reload([])
    world.steps(8)
    assert (world.alive(), world.open_intents()) == (0, {})


def test_a_pool_that_comes_back_goes_on_with_what_is_left_and_launches_again(world: World) -> None:
    (busy,) = workers(world, 1)
    world.source.change(busy, running=1, idle_since=None)
    world.manager.reload([])
    world.tick()
    world.manager.reload([world.pool()])
    world.source.wait("g", ASKS, 1)
    world.steps(4)
    fact = world.source.worker(busy)
    assert fact is not None
    assert fact.state == "draining", "it was told to go"
    assert world.admitted() == 2
    assert [reason.code for line in lines(world) for reason in line.reasons] == ["enough"]


def test_after_a_restart_the_source_s_word_has_to_do(world: World) -> None:
    busy, idle = workers(world, 2)
    world.source.change(busy, running=1, idle_since=None)
    without_pools(world)
    world.tick()
    (line,) = lines(world)
    assert (line.pool, line.wanted, line.drain) == ("p", 0, 2)
    world.steps(20)
    assert list(world.open_intents()) == [busy], "a live worker is never closed because nobody lists it"
    assert world.source.said_gone == []
    world.source.change(busy, running=0, idle_since=world.clock.now_ms())
    world.steps(5)
    assert (world.alive(), world.open_intents(), lines(world)) == (0, {}, [])
    codes = {made["reason"]["code"] for made in world.ledger.decisions() if made["action"] == "close"}
    assert codes == {"forsaken"}
    assert world.ledger.memory().pools["p"].history.failures == ()
    assert idle not in world.open_intents()


def test_after_a_restart_one_that_never_registered_is_refused_when_it_comes(world: World) -> None:
    world.platform.faults.inject("worker", Fate(queue_ms=60_000))
    world.source.wait("g", ASKS, 1)
    world.tick()
    (late,) = world.platform.workers()
    without_pools(world)
    world.steps(20)
    assert (world.open_intents(), lines(world)) == ({}, [])
    with pytest.raises(TokenRefused):
        world.source.register(late.id, "p", late.join_token, SHAPE)


def test_after_a_restart_an_ambiguous_launch_is_kept_until_it_is_certain(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    with world.ledger.write() as write:
        now = world.clock.now_ms()
        write.calling("m-9", "old", ["m-9-0"], SHAPE, "", now, now + 10_000)
    world.restart()
    world.steps(9)
    assert world.open_intents()["m-9-0"] == "unknown"
    world.steps(10)
    assert "m-9-0" not in world.open_intents()
    assert [line.pool for line in lines(world)] == ["p"]


def test_an_order_for_it_is_still_carried_out(world: World) -> None:
    (busy,) = workers(world, 1)
    world.source.change(busy, running=1, idle_since=None)
    world.manager.reload([])
    world.tick()
    world.source.order(Command("c1", "p", "end-worker", busy, None, world.clock.now_ms() + 9_999, {"force": True}, "a"))
    world.steps(3)
    assert world.alive() == 0


def test_the_source_is_told_whose_workers_to_tell_of(world: World) -> None:
    served: list[tuple[str, ...]] = []
    world.source.serve = lambda pools: served.append(tuple(pools))  # type: ignore[method-assign]
    workers(world, 1)
    without_pools(world)
    world.steps(30)
    assert served == [("p",), ("p",), ()]
