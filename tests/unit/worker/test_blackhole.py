"""When a worker takes itself for a black hole, and when not."""

from typing import Any

from worker.blackhole import WITHIN_MS, BlackHole


def failed(job: str, run_ms: "int | None" = 5, **more: Any) -> dict[str, Any]:
    return {"job": job, "epoch": 1, "outcome": "failed", "run_ms": run_ms, "exit_code": 1, "reason": "", **more}


def seen(hole: BlackHole, *results: dict[str, Any], every_ms: int = 100) -> "str | None":
    found = None
    for number, result in enumerate(results):
        found = hole.saw(result, 1000 + number * every_ms)
    return found


def test_so_many_different_jobs_in_a_row_are_too_many() -> None:
    hole = BlackHole(10)
    assert seen(hole, *(failed(f"j{n}") for n in range(9))) is None
    text = hole.saw(failed("j9", None, outcome="returned", reason="start-failed", text="no such file"), 1900)
    assert text == (
        "10 different jobs in a row failed within a second each, in 0.9 s; the last: start-failed no such file"
    )


def test_a_broken_array_and_one_job_that_is_tried_again_are_one() -> None:
    assert seen(BlackHole(10), *(failed(f"j7-{n}") for n in range(100))) is None
    assert seen(BlackHole(10), *(failed("j7") for _ in range(100))) is None


def test_one_that_succeeds_or_takes_its_time_shows_that_jobs_can_run() -> None:
    nine = [failed(f"j{n}") for n in range(9)]
    for other in (failed("j10", outcome="succeeded"), failed("j10", run_ms=5000)):
        assert seen(BlackHole(10), *nine, other, failed("j11")) is None
    for other in (failed("j10", outcome="cancelled"), failed("j10", outcome="returned", reason="recalled")):
        assert seen(BlackHole(10), *nine, other, failed("j11")) is not None


def test_what_fails_now_and_then_does_not_add_up() -> None:
    assert seen(BlackHole(10), *(failed(f"j{n}") for n in range(50)), every_ms=WITHIN_MS // 8) is None


def returned(job: str, reason: str = "start-failed") -> dict[str, Any]:
    return failed(job, None, outcome="returned", reason=reason, text="the worker could not start it: no space")


def test_what_it_cannot_start_itself_is_its_own_fault_whichever_job_it_is() -> None:
    text = seen(BlackHole(0), *(returned("j7") for _ in range(3)))
    assert text == "3 jobs in a row could not be started here; the last: the worker could not start it: no space"


def test_what_was_given_back_for_other_reasons_is_none_and_one_that_ran_begins_the_count_anew() -> None:
    assert seen(BlackHole(0), *(returned("j7", "recalled") for _ in range(9))) is None
    for outcome in ("succeeded", "failed"):
        assert seen(BlackHole(0), returned("j1"), returned("j2"), failed("j3", outcome=outcome), returned("j4")) is None


def test_a_worker_whose_disk_is_full_takes_no_more() -> None:
    full = [failed(f"j{n}", None, outcome="returned", reason="disk-full", text="no space") for n in range(3)]
    assert seen(BlackHole(0), *full[:2]) is None
    assert seen(BlackHole(0), *full) == "3 jobs in a row could not be started here; the last: no space"
