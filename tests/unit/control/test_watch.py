"""What is rare is never held up; what goes on and on is slowed down."""

from worker_manager.clock import ManualClock
from worker_manager.control.watch import Pace


def test_a_burst_goes_through_and_then_every_step_waits_its_turn() -> None:
    clock = ManualClock()
    pace = Pace(clock, burst=3, every_ms=200)
    assert [pace.pause_ms() for _ in range(3)] == [0, 0, 0]
    pauses = []
    for _ in range(5):
        pauses.append(pace.pause_ms())
        clock.advance(pauses[-1])
    assert pauses == [200] * 5


def test_quiet_brings_the_burst_back() -> None:
    clock = ManualClock()
    pace = Pace(clock, burst=3, every_ms=200)
    for _ in range(3):
        pace.pause_ms()
    clock.advance(10_000)
    assert [pace.pause_ms() for _ in range(4)] == [0, 0, 0, 200]
