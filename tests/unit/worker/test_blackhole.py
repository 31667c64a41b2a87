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
