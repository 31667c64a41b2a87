"""What is kept on disk: names, torn files, the lock."""

import os
from pathlib import Path

import pytest

from backends.local.processes import Process, descent, in_session, look
from backends.local.processes import Stat as S
from backends.local.records import Ended, Launching, Records, WorkerFolder, is_submission


@pytest.fixture
def records(tmp_path: Path) -> Records:
    made = Records(tmp_path / "state")
    made.create()
    return made


@pytest.fixture
def folder(records: Records) -> WorkerFolder:
    records.begin("wm-a", {"manager": "m"})
    made = records.worker("wm-a", 0)
    made.prepare("secret")
    return made


@pytest.mark.parametrize("name", ["a", "wm-a-1", "a" * 36, "0-9"])
def test_names_of_submissions(name: str) -> None:
    assert is_submission(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "a" * 37, ".removed-a", "a\n", "ä"])
def test_what_is_no_name(name: str) -> None:
    assert not is_submission(name)


@pytest.mark.parametrize("handle", ["", "a", "a-", "a-01", "../a-0", "a/b-0", "a-0\n", "a--0", "a-1234567", "A-0"])
def test_a_handle_that_is_none_leads_nowhere(records: Records, handle: str) -> None:
    assert records.find(handle) is None


def test_a_handle_leads_to_its_folder(records: Records) -> None:
    found = records.find("wm-a-12-3")
    assert found
    assert (found.submission, found.index, found.handle) == ("wm-a-12", 3, "wm-a-12-3")


def test_what_is_written_is_read_again_and_private(folder: WorkerFolder) -> None:
    folder.record(Process(12, 345), "boot", 678)
    assert folder.process() == (Process(12, 345), "boot", 678)
    (folder.path / "exit").write_text("3\n")
    assert folder.exit_status() == 3
    for name in ("join-token", "process"):
        assert (folder.path / name).stat().st_mode & 0o777 == 0o600
    folder.close(Ended(9, 3, "why"))
    assert folder.ended() == Ended(9, 3, "why")
    assert not folder.token.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "null", '{"pid": 1}'])
def test_a_torn_record_is_none(folder: WorkerFolder, text: str) -> None:
    for name in ("process", "ended"):
        (folder.path / name).write_text(text)
    (folder.path / "exit").write_text(text)
    assert folder.process() is None
    assert folder.ended() is None
    assert folder.exit_status() is None


def test_a_submission_is_launched_by_one_at_a_time(records: Records, folder: WorkerFolder) -> None:
    assert not records.is_launching("wm-a")
    with records.launching("wm-a"):
        assert records.is_launching("wm-a")
        with pytest.raises(Launching), records.launching("wm-a"):
            raise AssertionError("both have it")
    assert not records.is_launching("wm-a")


def test_beginning_again_keeps_the_first_owner(records: Records, folder: WorkerFolder) -> None:
    records.begin("wm-a", {"manager": "other"})
    assert records.owner("wm-a") == {"manager": "m"}


def test_foreign_files_are_no_submissions_and_no_workers(records: Records, folder: WorkerFolder) -> None:
    (records.state_dir / "README.txt").write_text("")
    (records.state_dir / ".removed-x").mkdir()
    (folder.path.parent / "notes").mkdir()
    assert records.submissions() == ["wm-a"]
    assert [one.index for one in records.workers("wm-a")] == [0]
    assert records.workers("nobody") == []


def test_a_state_folder_that_is_gone_is_an_error_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Records(tmp_path / "nowhere").submissions()


def test_the_tail_of_a_log_is_cut_by_bytes(folder: WorkerFolder) -> None:
    assert folder.tail(10) == ""
    folder.log.write_text("0123456789✓")
    assert folder.tail(4) == "9✓"
    assert folder.tail(1000) == "0123456789✓"


def test_the_descent_of_a_process_is_followed_through_every_generation() -> None:
    table = {pid: S(pid, "S", parent, session, 1) for pid, parent, session in
             [(10, 1, 10), (11, 10, 10), (12, 11, 12), (13, 12, 12), (20, 1, 20), (21, 1, 10)]}  # fmt: skip
    assert descent(table, [10]) == {10, 11, 12, 13}
    assert descent(table, [99]) == set()
    assert in_session(table, 10) == {10, 11, 21}


def test_we_know_ourselves() -> None:
    stat = look(os.getpid())
    assert stat is not None
    assert (stat.parent, stat.session) == (os.getppid(), os.getsid(0))
    assert not stat.dead
    assert look(2**22 + 1) is None
