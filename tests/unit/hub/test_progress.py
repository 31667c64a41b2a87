"""What the hub remembers of the progress of jobs: the newest of what their own workers told, while they have them."""

from typing import Any

import pytest

from worker_manager.hub.progress import Progress


def job(**more: Any) -> dict[str, Any]:
    return {"id": "j1", "worker": "w", "state": "running", "attempt": 2, **more}


def knows(*rows: Any, at: int = 1000) -> Progress:
    progress = Progress()
    progress.learn("w", list(rows), at)
    return progress


ROW = ["j1", 2, "running", 3, 8, "epoch 3"]


def test_an_attempt_shows_what_its_worker_told() -> None:
    expected = {"phase": "running", "done": 3, "whole": 8, "text": "epoch 3", "percent": 37, "at_ms": 1000}
    assert knows(ROW).of_job(job()) == expected
    assert knows(["j1", 2, "staging", 5, None, ""]).of_job(job(state="assigned")) == {
        "phase": "staging",
        "done": 5,
        "whole": None,
        "text": "",
        "percent": None,
        "at_ms": 1000,
    }


@pytest.mark.parametrize(
    "other", [{"attempt": 3}, {"worker": "v"}, {"worker": None}, {"state": "succeeded"}, {"state": "queued"}]
)
def test_of_another_attempt_worker_or_state_nothing_is_known(other: dict[str, Any]) -> None:
    assert knows(ROW).of_job(job(**other)) is None


def test_a_worker_tells_only_of_what_it_holds() -> None:
    progress = knows(ROW)
    progress.learn("evil", [["j1", 2, "running", 8, 8, "done"]], 2000)
    found = progress.of_job(job())
    assert found is not None and found["done"] == 3


def test_the_time_is_that_of_the_news() -> None:
    progress = knows(ROW)
    progress.learn("w", [ROW], 2000)
    found = progress.of_job(job())
    assert found is not None and found["at_ms"] == 1000
    progress.learn("w", [["j1", 2, "running", 4, 8, "epoch 3"]], 3000)
    found = progress.of_job(job())
    assert found is not None and (found["at_ms"], found["percent"]) == (3000, 50)


def test_what_has_ended_is_forgotten() -> None:
    progress = knows(ROW)
    progress.forget("w", [{"job": "j1", "epoch": 2}])
    assert progress.of_job(job()) is None


@pytest.mark.parametrize(
    "row",
    [
        ["j1", 2, "running", 9, 8, ""],
        ["j1", 2, "elsewhere", 3, 8, ""],
        ["j1", 2, "running", -1, 8, ""],
        ["j1", 2, "running", True, 8, ""],
        ["j1", 2, "running", 3, "8", ""],
        ["j1", 2, "running", 3, 8],
        ["j1", 2, "running", 3, 8, None],
        [["j1"], 2, "running", 3, 8, ""],
        "j1",
        None,
    ],
)
def test_what_makes_no_sense_is_left_out(row: Any) -> None:
    assert knows(row, ["j2", 1, "running", 1, 2, ""]).of_job(job()) is None
    assert knows(row, ROW).of_job(job()) is not None
    progress = Progress()
    progress.learn("w", row, 1000)
    assert progress.of_job(job()) is None


def test_words_that_would_speak_to_a_terminal() -> None:
    found = knows(["j1", 2, "running", 3, 0, "\x1b[2J" + "x" * 500]).of_job(job())
    assert found is None, "more than nothing of nothing"
    found = knows(["j1", 2, "running", 0, 0, "\x1b[2J" + "x" * 500]).of_job(job())
    assert found is not None and "\x1b" not in found["text"] and len(found["text"]) <= 200 and found["percent"] is None


def test_it_forgets_the_oldest_when_there_are_too_many() -> None:
    progress = Progress(at_most=2)
    for name in ("j1", "j2", "j3"):
        progress.learn("w", [[name, 2, "running", 1, 2, ""]], 1000)
    assert progress.of_job(job()) is None
    assert progress.of_job(job(id="j3")) is not None
