"""What the controller has forgotten, with an accounting that is a list."""

import os
from pathlib import Path

import pytest

from backends.slurm.client import Client, Unanswered
from backends.slurm.folders import SubmissionFolder, WorkDir
from backends.slurm.past import NO_ACCOUNTING_MS, SHOWN_MS, Ours, Past
from backends.slurm.queue import Job


class Sacct(Client):
    """Answers with its lines, or with what there is instead of them."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.lines: str = ""
        self.broken = ""
        self.asked: list[str] = []

    def read(self, argv: object, timeout_s: float | None = None) -> str:
        self.asked += [word for word in argv if word.startswith("--jobs=")]  # type: ignore[attr-defined]
        if self.broken:
            raise Unanswered(self.broken)
        return self.lines


class House:
    def __init__(self, root: Path) -> None:
        self.sacct = Sacct()
        self.work_dir = WorkDir(root, "m", "p")
        self.now = 10_000_000_000
        self.past = self.restarted()

    def restarted(self) -> Past:
        return Past(self.sacct, self.work_dir, lambda: self.now)

    def submitted(self, name: str, job: int | None, count: int = 1) -> SubmissionFolder:
        folder = self.work_dir.folder(name)
        folder.prepare("", ("wmj",) * count, count)
        if job is not None:
            folder.note_job(job)
        return folder

    def list(self, *listed: Ours) -> dict[str, int | None]:
        """What is added to a listing: handle → exit code."""
        found = self.past.add_forgotten(listed, self.past.recorded())
        return {job.id: job.exit_code for job, _ in found}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def a_job(id: str, state: str = "RUNNING", name: str = "m-1") -> Ours:
    return Job(id, state, name), name


def test_what_is_forgotten_is_asked_for_once_and_shown_for_a_while(house: House) -> None:
    folder = house.submitted("m-1", 7)
    house.sacct.lines = "7|COMPLETED|0:0|n1|m-1\n"
    assert house.list() == {"7": 0}
    assert not folder.token_folder.exists()
    house.now += SHOWN_MS - 1
    assert house.list() == {"7": 0}
    house.now += 2
    assert house.list() == {}
    assert house.sacct.asked == ["--jobs=7"]


def test_without_accounting_what_is_gone_is_gone_and_sacct_is_left_alone_for_a_while(house: House) -> None:
    house.sacct.broken = "Slurm accounting storage is disabled"
    for number in (1, 2):
        folder = house.submitted(f"m-{number}", number)
        assert house.list() == {}
        assert not folder.token_folder.exists()
    assert len(house.sacct.asked) == 1
    house.now += NO_ACCOUNTING_MS
    house.submitted("m-3", 3)
    house.list()
    assert len(house.sacct.asked) == 2


def test_garbage_of_sacct_is_no_answer(house: House) -> None:
    house.submitted("m-1", 7)
    house.sacct.lines = "<html>\n"
    assert house.list() == {}


def test_a_number_that_was_used_again_is_somebody_elses_job(house: House) -> None:
    house.submitted("m-1", 7)
    house.sacct.lines = "7|COMPLETED|0:0|n1|other\n"
    assert house.list() == {}


def test_what_is_listed_is_not_asked_for(house: House) -> None:
    folder = house.submitted("m-1", 7, count=2)
    assert house.list(a_job("7_0"), a_job("7_1", "COMPLETED")) == {}
    assert [path.name for path in folder.token_folder.iterdir()] == ["0"], "the token of the one that has ended goes"
    assert house.list(a_job("7_0", "NODE_FAIL")) == {}
    assert not folder.token_folder.exists()
    assert house.sacct.asked == []
    assert house.list() == {}, "it was seen to end, so nothing more is to be known"
    assert house.sacct.asked == []


def test_one_whose_submission_was_not_answered_may_come_yet(house: House) -> None:
    folder = house.submitted("m-1", None)
    assert house.list() == {}
    assert folder.token_folder.exists()
    house.list(a_job("9"))
    assert folder.job() == 9, "now it is known"
    house.sacct.lines = "9|TIMEOUT|0:0|n1|m-1\n"
    assert house.list() == {"9": None}
    after = house.restarted()
    assert after.add_forgotten((), after.recorded())[0][0].state == "TIMEOUT", "a new manager asks again"


def test_what_is_submitted_while_squeue_answers_is_not_gone(house: House) -> None:
    before = house.past.recorded()
    folder = house.submitted("m-1", 7)
    house.past.add_forgotten((), before)
    assert folder.token_folder.exists()
    unanswered = house.submitted("m-2", None)
    before = house.past.recorded()
    unanswered.note_job(8)
    house.past.add_forgotten((a_job("7"),), before)
    assert unanswered.token_folder.exists()


def test_only_what_is_over_is_removed(house: House) -> None:
    over, live, unanswered, lost = (house.submitted(f"m-{n}", job) for n, job in enumerate((1, 2, None, None)))
    house.now = int(unanswered.changed * 1000) + 5000
    os.utime(lost.path, (1, 1))
    house.list(a_job("1", "FAILED", "m-0"), a_job("2", "RUNNING", "m-1"))
    house.past.remove_old(keep_ms=60_000, keep=10)
    assert house.work_dir.submissions() == {"m-0", "m-1", "m-2"}, "what never came, and is old"
    house.past.remove_old(keep_ms=0, keep=10)
    assert house.work_dir.submissions() == {"m-1"}, "what may come yet goes when it is too old, too"
    assert live.token_folder.exists()
    assert not over.path.exists()


def test_a_manager_that_has_listed_nothing_removes_nothing(house: House) -> None:
    house.submitted("m-1", 7)
    house.past.remove_old(keep_ms=0, keep=0)
    assert house.work_dir.submissions() == {"m-1"}
