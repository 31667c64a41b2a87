"""Work dir, journal, backing off."""

import json
import os
from pathlib import Path

import pytest

from worker.here import leave_note
from worker.journal import Journal
from worker.link.line import LONGEST_WAIT_MS, backoff_ms
from worker.workdir import WorkDir, WorkDirError, WorkDirInUse


def test_a_work_dir_is_private_and_for_one_agent(tmp_path: Path) -> None:
    first = WorkDir(str(tmp_path / "prefix"), "w-1")
    assert Path(first.path).stat().st_mode & 0o777 == 0o700
    with pytest.raises(WorkDirInUse):
        WorkDir(str(tmp_path / "prefix"), "w-1")
    WorkDir(str(tmp_path / "prefix"), "w-2").close(delete=True)
    first.close(delete=False)
    WorkDir(str(tmp_path / "prefix"), "w-1").close(delete=True)
    assert list((tmp_path / "prefix").iterdir()) == []


def test_a_folder_goes_with_its_worker_when_nothing_is_left_in_it(tmp_path: Path) -> None:
    work_dir = WorkDir(str(tmp_path / "prefix"), "w-1")
    leave_note(work_dir.path, {})
    (Path(work_dir.jobs) / "slots" / "1" / "deep").mkdir(parents=True)
    (Path(work_dir.jobs) / "slots" / "1" / "deep").chmod(0o500)
    work_dir.close(delete=False)
    assert list((tmp_path / "prefix").iterdir()) == []


def test_what_somebody_put_into_a_worker_s_folder_stays(tmp_path: Path) -> None:
    work_dir = WorkDir(str(tmp_path / "prefix"), "w-1")
    (Path(work_dir.path) / "notes").write_text("mine")
    (Path(work_dir.jobs) / "slots").mkdir()
    work_dir.close(delete=False)
    assert (tmp_path / "prefix" / "w-1" / "notes").read_text() == "mine"
    assert not (tmp_path / "prefix" / "w-1" / "jobs").exists()


def test_a_work_dir_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w-1").symlink_to(tmp_path)
    with pytest.raises(WorkDirError, match="no folder"):
        WorkDir(str(tmp_path), "w-1")
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkDirError, match="cannot be used"):
        WorkDir(str(tmp_path / "file"), "w-2")


def said(style: str) -> str:
    out, into = os.pipe()
    Journal(style, "w-1", into, lambda: 1_700_000_000_123)("draining", reason="a\nb")
    os.close(into)
    with os.fdopen(out) as lines:
        return lines.read()


def test_what_a_journal_says_is_one_line() -> None:
    expected = {"at": "2023-11-14T22:13:20.123Z", "event": "draining", "worker": "w-1", "reason": "a\nb"}
    assert json.loads(said("json")) == expected
    assert said("text") == '2023-11-14T22:13:20.123Z w-1 draining reason="a\\nb"\n'


def test_a_journal_that_nobody_reads_harms_nobody() -> None:
    out, into = os.pipe()
    journal = Journal("json", "w-1", into)
    for _ in range(2000):
        journal("alive", text="x" * 100)  # a full pipe would block here
    os.close(out)
    journal("alive")
    os.close(into)
    journal("alive")


@pytest.mark.parametrize("length", [5_000, 100_000])
def test_a_long_line_for_a_pipe_that_nobody_reads_harms_nobody_either(length: int) -> None:
    """Where a pipe has room for the beginning of it, a write of the whole would block."""
    out, into = os.pipe()
    journal = Journal("json", "w-1", into)
    for number in range(50):
        journal("dump", number=number, text="x" * length)
    os.set_blocking(out, False)
    read = os.read(out, 1 << 20)
    journal("after", text="it is read again")
    read += os.read(out, 1 << 20)
    *torn, last = read.decode().splitlines()
    assert json.loads(last)["event"] == "after", "it begins with a line of its own"
    whole = [json.loads(line)["number"] for line in torn if line.endswith("}")]
    assert whole == list(range(len(whole))), "those before were whole"
    assert len(torn) - len(whole) <= 1


def test_a_full_disk_behind_stderr_is_no_error() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        Journal("json", "w-1", full.fileno())("alive")


def test_backing_off_doubles_spreads_and_ends() -> None:
    assert [backoff_ms(n, 1.0) for n in (1, 2, 3)] == [200, 400, 800]
    assert backoff_ms(1, 0.0) == 100
    assert backoff_ms(1000, 1.0) == LONGEST_WAIT_MS
