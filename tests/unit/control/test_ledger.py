"""The ledger keeps what it was told, refuses who may not write, and says what to do when it cannot be used."""

import sqlite3
from pathlib import Path

import pytest

from worker.protocol import Shape
from worker_manager.clock import ManualClock
from worker_manager.control.lease import LeaseLost
from worker_manager.control.ledger import Ledger, StoreBusy
from worker_manager.errors import LeaseHeld, StoreError
from worker_manager.policy.model import Note
from worker_manager.policy.reasons import because

SHAPE = Shape(cpus=2000, memory=2**30, tags=("a",), custom=(("fpga", 1),))
TTL = 30_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def opened(folder: Path, clock: ManualClock, lead: bool = True) -> Ledger:
    ledger = Ledger.in_folder(folder, "m", clock, busy_s=0.05)
    if lead:
        ledger.acquire("test", TTL)
    return ledger


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    now = clock.now_ms()
    with ledger.write() as write:
        write.announcing("m-1", "p", 2, now)
        write.announcing("m-2", "p", 1, now)
        write.calling("m-1", "p", ["m-1-0", "m-1-1"], SHAPE, "cfg", now, now + 5)
        write.intent("m-1-0", handle="h", state="submitted", submitted_at=now)
        write.close("m-1-1", "why", now)
        write.pool("p", last_launch_at=now, frozen_until=now + 1, freeze_text="text")
        write.failed("p", "quota", "words", now, 7)
        write.notes([Note("p", "limit:stabilise", 1, {"peaks": [[1, 2]]})])
        write.decided(now, "p", "launch", "m-1", because("backlog", jobs=3, workers=2), "launched", "t")
        write.command_done("c1", True, "done", now)
    ledger.abandon()

    again = opened(tmp_path, clock)
    memory = again.memory()
    (intent,) = memory.intents
    assert (intent.id, intent.state, intent.handle, intent.config) == ("m-1-0", "submitted", "h", "cfg")
    assert intent.shape == SHAPE
    pool = memory.pools["p"]
    assert (pool.history.last_launch_at, pool.frozen_until, pool.freeze_text) == (now, now + 1, "text")
    assert [(f.kind, f.text, f.retry_after_ms) for f in pool.history.failures] == [("quota", "words", 7)]
    assert memory.notes == (Note("p", "limit:stabilise", 1, {"peaks": [[1, 2]]}),)
    assert [told.submission for told in again.announced()] == ["m-2"]
    assert [call.id for call in again.calls_without_outcome()] == ["m-1"]
    assert again.closed("m-1-1") == "why"
    (decision,) = again.decisions()
    assert decision["reason"]["numbers"] == {"jobs": 3, "workers": 2}
    assert again.command_results()["c1"].ok


def test_a_block_that_fails_writes_nothing(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    with pytest.raises(ZeroDivisionError), ledger.write() as write:
        write.pool("p", last_launch_at=1)
        raise ZeroDivisionError
    assert "p" not in ledger.memory().pools


def test_a_failure_is_forgotten_after_three_hours(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    with ledger.write() as write:
        write.failed("p", "boot", "x", clock.now_ms())
    assert len(ledger.memory().pools["p"].history.failures) == 1
    clock.advance(3 * 3_600_000 + 1)
    with ledger.write() as write:
        write.purge(0, clock.now_ms() - 3 * 3_600_000)
    assert "p" not in ledger.memory().pools


def test_a_closed_intent_is_changed_no_more(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    with ledger.write() as write:
        write.calling("m-1", "p", ["m-1-0"], SHAPE, "", 1, 2)
        write.close("m-1-0", "first", 3)
        write.close("m-1-0", "second", 4)
        write.intents([("m-1-0", {"state": "submitted"})])
    assert ledger.closed("m-1-0") == "first"
    assert ledger.memory().intents == ()


def test_retention_removes_a_little_at_a_time_and_nothing_that_is_open(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    with ledger.write() as write:
        write.calling("m-1", "p", ["m-1-0", "m-1-1"], SHAPE, "", 1, 2)
        write.close("m-1-0", "x", 3)
        for at in range(5):
            write.decided(at, "p", "launch", "s", because("no-backlog"), "launched")
        write.command_done("heard", True, "", 1)
        write.command_done("unheard", True, "", 1)
        write.results_published(["heard"])
        write.purge(before=10, failures_before=10, at_most=3)
    assert len(ledger.decisions()) == 2
    with ledger.write() as write:
        write.purge(before=10, failures_before=10)
    assert ledger.decisions() == ()
    assert [intent.id for intent in ledger.memory().intents] == ["m-1-1"]
    assert list(ledger.command_results()) == ["unheard"]
    assert [call.id for call in ledger.calls_without_outcome()] == ["m-1"]


# ---------------------------------------------------------------- who may write


def test_a_second_manager_is_told_who_leads_and_for_how_long(tmp_path: Path, clock: ManualClock) -> None:
    first = opened(tmp_path, clock)
    second = opened(tmp_path, clock, lead=False)
    clock.advance(10_000)
    with pytest.raises(LeaseHeld, match=r"test.*20 s"):
        second.acquire("second", TTL)
    first.renew(TTL)
    clock.advance(25_000)
    with pytest.raises(LeaseHeld):
        second.acquire("second", TTL)
    first.release()
    assert second.acquire("second", TTL) == 2


def test_a_leader_that_slept_past_its_lease_writes_nothing_more(tmp_path: Path, clock: ManualClock) -> None:
    sleeper = opened(tmp_path, clock)
    clock.advance(TTL + 1)
    heir = opened(tmp_path, clock, lead=False)
    heir.acquire("heir", TTL)
    with pytest.raises(LeaseLost, match="heir"), sleeper.write() as write:
        write.pool("p", last_launch_at=1)
    with pytest.raises(LeaseLost):
        sleeper.renew(TTL)
    sleeper.release()  # does not take the heir's lease away
    with heir.write() as write:
        write.pool("p", last_launch_at=2)
    assert heir.memory().pools["p"].history.last_launch_at == 2


def test_a_lease_that_ran_out_and_that_nobody_took_is_renewed(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    clock.advance(10 * TTL)
    ledger.renew(TTL)
    with ledger.write() as write:
        write.pool("p", last_launch_at=1)


def test_the_dead_are_succeeded_at_once(tmp_path: Path, clock: ManualClock) -> None:
    opened(tmp_path, clock).abandon()
    assert opened(tmp_path, clock).epoch == 2


def test_one_that_could_not_write_its_end_is_succeeded_at_once(tmp_path: Path, clock: ManualClock) -> None:
    leader = opened(tmp_path, clock)
    with sqlite3.connect(leader.path) as raw:
        raw.execute("BEGIN IMMEDIATE")
        leader.release()
    raw.close()
    assert opened(tmp_path, clock).epoch == 2


def test_without_a_lease_nothing_is_written(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(LeaseHeld), opened(tmp_path, clock, lead=False).write():
        pytest.fail("the block ran")


# ---------------------------------------------------------------- ledgers that cannot be used


def test_a_ledger_of_a_newer_program_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    ledger.close()
    with sqlite3.connect(ledger.path) as raw:
        raw.execute("PRAGMA user_version = 999")
    raw.close()
    with pytest.raises(StoreError, match=r"version 999.*newer program"):
        opened(tmp_path, clock)


def test_a_ledger_of_the_first_version_is_taken_over(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    now = clock.now_ms()
    with ledger.write() as write:
        write.calling("m-1", "p", ["m-1-0"], SHAPE, "cfg", now, now + 5)
        write.pool("p", last_launch_at=now)
        write.decided(now, "p", "launch", "m-1", because("no-backlog"), "launched")
    ledger.close()
    with sqlite3.connect(ledger.path) as raw:
        raw.execute("ALTER TABLE decisions DROP COLUMN limited")
        raw.execute("ALTER TABLE pools DROP COLUMN starts")
        raw.execute("DROP TABLE marks")
        raw.execute("PRAGMA user_version = 1")
    raw.close()
    again = opened(tmp_path, clock)
    assert [decision["limited"] for decision in again.decisions()] == [[]]
    assert again.reported() == 1, "what it had decided was said by the program of then"
    assert again.memory().pools["p"].history.last_launch_at == now
    with again.write() as write:
        write.decided(now, "p", "launch", "m-2", because("no-backlog"), "launched", limited=[because("no-backlog")])
    assert [limit["code"] for limit in again.decisions()[1]["limited"]] == ["no-backlog"]
    again.close()
    opened(tmp_path, clock).close()


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "ledger-m.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a ledger"):
        opened(tmp_path, clock)
    assert path.read_bytes()[100:] == before[100:]


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_ledger_is_refused_with_what_to_do(tmp_path: Path, clock: ManualClock, content: bytes) -> None:
    (tmp_path / "ledger-m.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged.*move it away") as caught:
        opened(tmp_path, clock)
    assert caught.value.exit_code == 74


def test_a_locked_ledger_is_waited_for_and_then_refused(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="locked by another process"), ledger.write():
        pass
    other.execute("ROLLBACK")
    other.close()
    with ledger.write() as write:
        write.pool("p", last_launch_at=1)


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="state directory"):
        Ledger.in_folder(tmp_path / "file" / "state", "m", clock)


def test_nobody_else_may_read_it(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path / "state", clock)
    assert ledger.path.stat().st_mode & 0o077 == 0
    assert ledger.path.parent.stat().st_mode & 0o077 == 0


def test_a_commit_is_on_the_disk_before_it_returns(tmp_path: Path, clock: ManualClock) -> None:
    ledger = opened(tmp_path, clock)
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
