from hypothesis import given
from hypothesis import strategies as st

from worker_manager.hub.runtimes import WINDOW, RunTimes, program_of


def after(*runs_ms: int) -> int | None:
    times = RunTimes()
    for run_ms in runs_ms:
        times.ran(7, run_ms)
    return times.guess_us(7)


def test_of_what_never_ran_nothing_is_guessed() -> None:
    assert RunTimes().guess_us(7) is None
    assert RunTimes().guess_us(None) is None


@given(st.lists(st.integers(0, 3_600_000), min_size=1, max_size=19))
def test_few_runs_are_guessed_at_the_longest(runs_ms: list[int]) -> None:
    guess = after(*runs_ms)
    assert guess is not None
    longest = max(500, max(runs_ms) * 1000)
    assert longest <= guess < 2 * longest + 512


@given(st.lists(st.integers(0, 60_000), min_size=20, max_size=WINDOW))
def test_nineteen_of_twenty_runs_are_within_the_guess(runs_ms: list[int]) -> None:
    guess = after(*runs_ms)
    assert guess is not None
    assert sum(run_ms * 1000 > guess for run_ms in runs_ms) <= len(runs_ms) // 20


def test_what_changes_is_learned() -> None:
    assert after(*[1] * 1000, *[5000] * 40) == 2**23
    slow_once = after(*[5000] * 100, *[1] * 1500)
    assert slow_once is not None and slow_once <= 2048


def test_runs_that_go_on_count_before_they_end() -> None:
    times = RunTimes()
    for _ in range(6):
        times.ran(7, 1)
    times.go_on([(7, 4_000_000), (8, 9_000_000)])
    assert times.guess_us(7) == 2**22
    assert times.usual_us(7) == 1024
    assert times.guess_us(8) is None
    times.go_on([])
    assert times.guess_us(7) == 1024


def test_a_program_is_an_owners_command_under_one_name() -> None:
    numbers = {
        program_of(*one) for one in [("a", "", ["x"]), ("b", "", ["x"]), ("a", "n", ["x"]), ("a", "", ["x", ""])]
    }
    assert len(numbers) == 4
    assert all(0 <= number < 2**63 for number in numbers)
