"""What the hub remembers of the use of workers and jobs: the newest, for a while, and nothing that makes no sense."""

from typing import Any

from worker_manager.hub.usage import MOST_JOBS, STALE_MS, Usage

TOLD = {
    "cpus": 3,
    "memory": 2**20,
    "disk": 10,
    "load": 1500,
    "gpus": [["GPU-1", 40, 2**30], ["GPU-2", None, None]],
    "jobs": [["j1", 2, 900, 450, 2**20, 2**21, ["GPU-1"]], ["j2", 1, 0, None, 0]],
}


def job(**more: Any) -> dict[str, Any]:
    return {"id": "j1", "worker": "w", "state": "running", "attempt": 2, **more}


def knows(told: Any = TOLD) -> Usage:
    usage = Usage()
    usage.learn("w", told, 1000)
    return usage


def test_a_running_attempt_shows_what_its_worker_told() -> None:
    usage = knows()
    gpus = [{"id": "GPU-1", "busy_percent": 40, "memory": 2**30}]
    assert usage.of_job(job(), 1001) == {
        "at_ms": 1000,
        "cpu_ms": 900,
        "cpus": 450,
        "memory": 2**20,
        "peak": 2**21,
        "gpus": gpus,
    }
    older = {"at_ms": 1000, "cpu_ms": 0, "cpus": None, "memory": 0, "peak": None, "gpus": []}
    assert usage.of_job(job(id="j2", attempt=1), 1001) == older


def test_nothing_is_shown_of_another_attempt_or_state_or_worker() -> None:
    usage = knows()
    for other in (job(attempt=3), job(state="queued"), job(worker=None), job(worker="x"), job(id="j3")):
        assert usage.of_job(other, 1001) is None


def test_what_is_old_tells_nothing_of_now() -> None:
    assert knows().of_job(job(), 1000 + STALE_MS) is not None
    assert knows().of_job(job(), 1001 + STALE_MS) is None
    assert knows().of_worker("w", 1001 + STALE_MS) is None


def test_a_worker_shows_itself_without_its_jobs() -> None:
    assert knows().of_worker("w", 1001) == {
        "at_ms": 1000,
        "cpus": 3,
        "memory": 2**20,
        "disk": 10,
        "load": 1500,
        "gpus": [
            {"id": "GPU-1", "busy_percent": 40, "memory": 2**30},
            {"id": "GPU-2", "busy_percent": None, "memory": None},
        ],
    }


def test_what_makes_no_sense_is_left_out_and_harms_nothing() -> None:
    jobs = [["j1", 2, -1, 0, 0], ["j1", "2", 0, 0, 0], [[], 2, 0, 0, 0], "j1", ["j1", 2], ["j1", 2, 5, 6, 7, "more"]]
    usage = knows({"cpus": True, "memory": "much", "disk": -1, "gpus": [[1, 2, 3], None], "jobs": jobs, "new": 1})
    assert usage.of_worker("w", 1001) == {"at_ms": 1000, "gpus": []}
    shown = usage.of_job(job(), 1001)
    assert shown == {"at_ms": 1000, "cpu_ms": 5, "cpus": 6, "memory": 7, "peak": None, "gpus": []}
    for told in (None, [], "x", {"jobs": 5, "gpus": {}}):
        assert knows(told).of_job(job(), 1001) is None
    many = [[f"j{number}", 1, 0, 0, 0] for number in range(MOST_JOBS + 1)]
    assert knows({"jobs": many}).of_job(job(id=f"j{MOST_JOBS}", attempt=1), 1001) is None


def test_it_stays_bounded() -> None:
    usage = Usage(at_most=2)
    for worker in ("a", "b", "a", "c"):
        usage.learn(worker, {"memory": 1}, 1000)
    assert [usage.of_worker(each, 1001) is not None for each in "abc"] == [True, False, True]
