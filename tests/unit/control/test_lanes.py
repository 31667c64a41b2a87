from worker_manager.clock import ManualClock
from worker_manager.control.lanes import Call


def test_a_call_says_when_it_will_have_taken_too_long() -> None:
    clock = ManualClock()
    told: list[object] = []

    def work() -> None:
        told.append((call.overdue_at(), call.overdue_ms()))
        clock.advance(1_000)
        told.append((call.overdue_at(), call.overdue_ms()))
        clock.advance(1)
        told.append((call.overdue_at(), call.overdue_ms()))

    call = Call("a launch", work, 1_000, clock)
    assert (call.overdue_at(), call.overdue_ms()) == (None, 0), "it has not begun"
    call.run()
    assert told == [(1_001, 0), (1_001, 0), (None, 1_001)]
    assert (call.overdue_at(), call.overdue_ms()) == (None, 0), "it is over"
