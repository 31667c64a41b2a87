"""What hooks are told, and how it is said that one has failed."""

from typing import Any

import pytest

from worker.blackhole import OWN_FAULTS, BlackHole
from worker.hooks.told import AFTER, BEFORE, FAILED, Hooks, env_of_job, env_of_worker, last_line, trouble
from worker.keeper.attempt import Attempt, Ending

HOST = {"PATH": "/bin", "HOME": "/root", "AWS_SECRET_ACCESS_KEY": "s", "LANG": "", "WM_JOIN_TOKEN": "t"}


def attempt(**env: str) -> Any:
    return Attempt("j7-3", 2, "ann", ["true"], {"WM_JOB": "j7-3", **env}, (("cpus", 1000),), None, 0, None)


def test_what_a_worker_passes_on() -> None:
    found = env_of_worker(HOST, "/usr/bin", "w-1", "gpu", "/srv/w-1")
    assert found == {
        "PATH": "/bin",
        "HOME": "/root",
        "WM_WORKER": "w-1",
        "WM_POOL": "gpu",
        "WM_WORK_DIR": "/srv/w-1",
    }
    assert env_of_worker({}, "/usr/bin", "w-1", "", "/w")["PATH"] == "/usr/bin"


def test_nothing_of_a_jobs_own_reaches_its_hooks() -> None:
    job = attempt(PASSWORD="p", WM_HOOK="mine", WM_WORKER="mine", WM_ARRAY_INDEX="3")
    found = env_of_job({"WM_WORKER": "w-1"}, job, BEFORE)
    assert found == {
        "WM_WORKER": "w-1",
        "WM_HOOK": "before-job",
        "WM_OWNER": "ann",
        "WM_JOB": "j7-3",
        "WM_ARRAY_INDEX": "3",
    }


@pytest.mark.parametrize(
    ("status", "ending", "expected"),
    [
        (0, None, {"WM_OUTCOME": "succeeded", "WM_REASON": "", "WM_EXIT_CODE": "0"}),
        (3 << 8, None, {"WM_OUTCOME": "failed", "WM_REASON": "", "WM_EXIT_CODE": "3"}),
        (
            9,
            Ending("failed", "memory-limit", ""),
            {"WM_OUTCOME": "failed", "WM_REASON": "memory-limit", "WM_SIGNAL": "9"},
        ),
        (None, Ending("returned", "drained", ""), {"WM_OUTCOME": "returned", "WM_REASON": "drained"}),
    ],
)
def test_how_a_job_ended(status: Any, ending: Any, expected: dict[str, str]) -> None:
    job = attempt()
    job.status, job.ending, job.run_ms = status, ending, 1500
    found = env_of_job({}, job, AFTER)
    assert found.items() >= {**expected, "WM_RUN_MS": "1500"}.items()
    assert ("WM_EXIT_CODE" in found) + ("WM_SIGNAL" in found) == (0 if status is None else 1)


def test_what_was_wrong() -> None:
    assert trouble(0) == ""
    assert trouble(4 << 8) == "ended with exit status 4"
    assert trouble(9) == "was ended by signal 9"
    assert trouble(9, 60_000) == "took longer than 60 s"
    assert last_line(b"one\ntwo \xff\n\n") == "two \N{REPLACEMENT CHARACTER}"
    assert last_line(b"") == ""


def test_only_hooks_of_jobs_are_the_keepers() -> None:
    assert Hooks(start="a", stop="b").for_keeper({}) is None
    assert Hooks(before="a", limit_ms=5).for_keeper({"X": "y"}) == {
        "before": "a",
        "after": "",
        "limit_ms": 5,
        "env": {"X": "y"},
    }


def test_hooks_that_fail_in_a_row_are_the_workers_fault() -> None:
    hole = BlackHole(0)
    failed = {
        "job": "j1",
        "outcome": "returned",
        "reason": FAILED,
        "text": "the hook before it ended with exit status 4",
    }
    said = [hole.saw(failed, 0) for _ in range(OWN_FAULTS)]
    assert said[:-1] == [None] * (OWN_FAULTS - 1)
    assert said[-1] is not None and "exit status 4" in said[-1]
