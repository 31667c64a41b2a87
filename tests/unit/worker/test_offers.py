"""What the hub is told of a worker whose neighbours take some of its machine."""

from typing import Any

from worker.happened import Ended, Offered
from worker.outbox import Outbox
from worker.protocol import Shape
from worker.spool import Spool
from worker.state import State
from worker.terms import Terms

HAS = Shape(cpus=8000, memory=100, gpus=2, custom=(("fpga", 1),), tags=("x",))


def a_state(has: Shape = HAS, **terms: Any) -> State:
    outbox = Outbox(session=7, heartbeat_ms=15_000, spool=Spool("/nowhere"), now=0)
    return State({"session": 7, "lease_ms": 60_000}, Terms(**terms), outbox, 0, 0, has.to_wire())


def offered(**amount: int) -> Offered:
    return Offered("m", amount)


def told(state: State, now: int = 1) -> dict[str, Any]:
    report = state.report(now)
    state.reported({"ack": report["seq"]}, now, now)
    return dict(report)


def test_what_is_left_is_told_at_once_and_once() -> None:
    state = a_state()
    state.happened([offered(cpus=3000, memory=40)], 1)
    assert state.report_at() == 0
    assert Shape.from_wire(told(state)["shape"]) == Shape(
        cpus=3000, memory=40, gpus=0, custom=(("fpga", 0),), tags=("x",), machine="m"
    )
    assert "shape" not in told(state)


def test_a_job_that_goes_back_for_want_of_room_never_comes_before_the_news() -> None:
    state = a_state()
    back = {"job": "j1", "epoch": 1, "outcome": "returned", "reason": "neighbours"}
    state.happened([offered(cpus=0), Ended(back)], 1)  # type: ignore[typeddict-item]
    report = told(state)
    assert report["shape"]["cpus"] == 0
    assert [result["job"] for result in report["results"]] == ["j1"]


def test_what_it_may_use_at_most_and_the_time_left_count_too() -> None:
    state = a_state(ends_at=100_000_000)
    state.happened([offered(cpus=90_000, gpus=2)], 1)
    state.reshaped({**HAS.to_wire(), "gpus": 1})
    shape = told(state, 40_000_000)["shape"]
    assert (shape["cpus"], shape["gpus"], shape["walltime"]) == (8000, 1, 60_000_000)


def test_without_neighbours_nothing_of_it_is_said() -> None:
    state = a_state()
    state.reshaped(HAS.to_wire())
    assert told(state)["shape"] == HAS.to_wire()
