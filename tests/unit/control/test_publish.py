"""What people are shown: true as of now, soon, once, and never in the way of a launch."""

from pathlib import Path
from typing import Any

import pytest

from backends.base import RefusalKind
from backends.memory import Refuse
from tests.unit.control.world import ASKS, World
from worker_manager.control.lanes import Call
from worker_manager.control.publish import AGAIN_MS, DECISIONS_AT_ONCE, PAUSE_MS, SHARE, Publisher
from worker_manager.policy.model import Plan
from worker_manager.policy.reasons import because


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, idle_ms=5_000)


def shown(world: World) -> dict[str, Any]:
    (line,) = world.source.published[-1]["pools"]
    return dict(line)


def counts(world: World) -> tuple[int, ...]:
    return tuple(shown(world)[name] for name in ("wanted", "requested", "observed", "ready", "idle", "draining"))


def test_right_after_a_launch_its_workers_are_requested(world: World) -> None:
    world.source.wait("g", ASKS, 3)
    world.tick()
    assert counts(world) == (3, 3, 0, 0, 0, 0)
    assert shown(world)["launch"] == 3
    world.steps(4)
    assert counts(world) == (3, 0, 3, 3, 3, 0)
    assert shown(world)["launch"] == 0


def test_a_launch_that_was_refused_is_not_requested(world: World) -> None:
    world.platform.faults.inject("launch", Refuse(RefusalKind.CAPACITY, "none left"), times=2)
    world.source.wait("g", ASKS, 3)
    world.tick()
    assert counts(world)[:3] == (3, 1, 0)
    assert shown(world)["launch"] == 1


def test_one_that_another_manager_covers_is_not_requested(world: World) -> None:
    world.source.coverage_taken = True
    world.source.wait("g", ASKS, 3)
    world.tick()
    assert (counts(world)[:3], shown(world)["launch"]) == ((3, 0, 0), 0)


def test_drained_and_called_back_workers_count_as_what_they_are_now(world: World) -> None:
    world.source.wait("g", ASKS, 2)
    world.steps(4)
    world.source.wait("g", ASKS, 0)
    world.clock.advance(6_000)
    world.tick()
    assert counts(world) == (0, 0, 2, 0, 0, 2)
    assert shown(world)["drain"] == 2
    world.source.wait("g", ASKS, 1)
    world.clock.advance(PAUSE_MS)
    world.tick()
    assert counts(world)[3:] == (1, 1, 1)


def test_a_drain_that_came_too_late_is_not_shown_as_one(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    world.steps(4)
    world.source.wait("g", ASKS, 0)
    world.clock.advance(6_000)
    world.source.cordon = lambda cordons: {cordon.worker: None for cordon in cordons}  # type: ignore[method-assign]
    world.tick()
    assert counts(world)[3:] == (1, 1, 0)
    assert shown(world)["drain"] == 0


def test_every_decision_is_said_once_by_however_many_managers(world: World) -> None:
    world.source.wait("g", ASKS, 2)
    world.steps(3)
    for _ in range(3):
        world.restart()
        world.source.wait("g", ASKS, 0)
        world.steps(8)
        world.source.wait("g", ASKS, 1)
        world.steps(4)
    said = [made["id"] for report in world.source.published for made in report["decisions"]]
    assert said == [made["id"] for made in world.ledger.decisions()]


def test_what_was_not_heard_is_said_again_by_the_next_manager(world: World) -> None:
    world.source.wait("g", ASKS, 1)
    publish = world.source.publish
    world.source.publish = _broken  # type: ignore[method-assign,assignment]
    world.tick()
    assert world.ledger.reported() == 0
    world.source.publish = publish  # type: ignore[method-assign]
    world.restart()
    world.step()
    assert [made["action"] for made in world.source.published[0]["decisions"]] == ["launch"]


def _broken(_report: object) -> None:
    raise ConnectionError


# ---------------------------------------------------------------- when


class Line:
    """A lane of which the test says when its call is over."""

    def __init__(self, world: World) -> None:
        self.calls: list[Call[Any]] = []
        self._clock = world.clock

    def start(self, what: str, work: Any, limit_ms: int) -> Call[Any]:
        self.calls.append(Call(what, work, limit_ms, self._clock))
        return self.calls[-1]

    def answer(self, after_ms: int = 0) -> None:
        call = self.calls[-1]
        call._work = lambda work=call._work: (self._clock.advance(after_ms), work())[1]  # type: ignore[method-assign]
        call.run()


def publisher(world: World) -> tuple[Publisher, Line]:
    line = Line(world)
    return Publisher(world.ledger, world.source, world.clock, line, world.manager._applier.orders), line  # type: ignore[arg-type]


def plan(number: int) -> Plan:
    return Plan(number, number, (), (), (), ())


def decide(world: World, count: int) -> None:
    with world.ledger.write() as write:
        for _ in range(count):
            write.decided(world.clock.now_ms(), "p", "launch", "s", because("no-backlog"), "launched")


def test_the_first_report_goes_at_once_and_the_next_after_a_pause(world: World) -> None:
    said, line = publisher(world)
    said.publish(plan(1))
    assert (len(line.calls), said.next_at()) == (1, None)
    line.answer()
    decide(world, 1)
    world.clock.advance(PAUSE_MS - 30)
    said.publish(plan(2))
    assert len(line.calls) == 1
    assert said.next_at() == world.clock.boot_ms() + 30
    world.clock.advance(30)
    said.flush()
    assert (len(line.calls), said.next_at()) == (2, None)


def test_a_report_that_takes_long_is_made_more_rarely(world: World) -> None:
    said, line = publisher(world)
    said.publish(plan(1))
    began = world.clock.boot_ms()
    line.answer(after_ms=70)
    decide(world, 1)
    said.publish(plan(2))
    assert said.next_at() == began + SHARE * 70


def test_while_one_is_under_way_no_other_is_made(world: World) -> None:
    said, line = publisher(world)
    said.publish(plan(1))
    world.clock.advance(AGAIN_MS)
    said.publish(plan(2))
    assert len(line.calls) == 1
    assert said.next_at() is not None


def test_a_report_lets_a_launch_go_first_but_not_for_ever(world: World) -> None:
    said, line = publisher(world)
    said.publish(plan(1), launching=True)
    assert (len(line.calls), said.next_at()) == (0, PAUSE_MS)
    world.clock.advance(PAUSE_MS // 2)
    said.publish(plan(2), launching=True)
    assert (len(line.calls), said.next_at()) == (0, PAUSE_MS), "another launch does not hold it up for longer"
    world.clock.advance(PAUSE_MS // 2)
    said.publish(plan(3), launching=True)
    assert len(line.calls) == 1


def test_more_decisions_than_one_report_holds_follow_soon(world: World) -> None:
    said, line = publisher(world)
    decide(world, DECISIONS_AT_ONCE + 2)
    said.publish(plan(1))
    line.answer()
    assert said.next_at() == PAUSE_MS
    world.clock.advance(PAUSE_MS)
    said.flush()
    line.answer()
    said.harvest()
    assert [len(report["decisions"]) for report in world.source.published] == [DECISIONS_AT_ONCE, 2]
    assert world.ledger.reported() == DECISIONS_AT_ONCE + 2


def test_nothing_new_is_repeated_only_as_a_sign_of_life(world: World) -> None:
    said, line = publisher(world)
    said.publish(plan(1))
    line.answer()
    world.clock.advance(PAUSE_MS)
    said.publish(plan(1))
    assert len(line.calls) == 1
    world.clock.advance(AGAIN_MS)
    said.flush()
    assert len(line.calls) == 2
