"""Opening, refusing, group commit, retention."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from tests.unit.hub.store.house import House, job
from worker_manager.clock import ManualClock
from worker_manager.errors import StoreError
from worker_manager.hub.contract import LogPiece, Settings
from worker_manager.hub.refusals import NotFound, Overloaded
from worker_manager.hub.store import open_store
from worker_manager.hub.store.schema import MIGRATIONS, REVISIONS
from worker_manager.hub.store.store import FILE


def test_the_database_is_as_durable_as_promised_and_private(house: House) -> None:
    file = house.place / FILE
    assert file.stat().st_mode & 0o077 == 0
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    engine = house.store._writes
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_newer_schema_is_refused(house: House) -> None:
    house.store.close()
    with sqlite3.connect(house.place / FILE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="newer version"):
        open_store(house.place, ManualClock())


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 100, b"SQLite format 3\0" * 99]
)
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / FILE
    file.write_bytes(content)
    with pytest.raises(StoreError, match="restore it from a backup"):
        open_store(tmp_path, ManualClock())
    assert file.read_bytes() == content


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match="something else"):
        open_store(tmp_path, ManualClock())


def test_a_place_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot hold"):
        open_store(tmp_path / "file" / "under", ManualClock())


def test_migrations_and_a_new_database_agree(house: House, tmp_path: Path) -> None:
    assert sorted(p.name[:4] for p in (MIGRATIONS / "versions").glob("0*.py")) == list(REVISIONS)
    migrated = tmp_path / "migrated.sqlite"
    _run_migrations(migrated)
    assert _shape(migrated) == _shape(house.place / FILE)


def _run_migrations(file: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with create_engine(f"sqlite:///{file}").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _shape(file: Path) -> dict[str, object]:
    """Columns, indexes and first rows, as SQLite itself tells them."""
    with sqlite3.connect(file) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        shape: dict[str, object] = {
            table: sorted(connection.execute(f"PRAGMA table_info({table})").fetchall()) for table in tables
        }
        indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        shape["indexes"] = {name: " ".join(sql.replace("\n", " ").split()) for name, sql in indexes}
        shape["meta"] = sorted(connection.execute("SELECT * FROM meta"))
        return shape


def test_a_failing_operation_fails_alone_and_leaves_nothing(house: House) -> None:
    gate = house.store._writer.submit(lambda batch: None)
    good = house.store.submit_jobs("ann", [job()])
    bad = house.store.cancel_job("j77", None, "op")
    half = house.store.submit_jobs("ann", [job(), job(depends_on=(_missing(),))])
    last = house.store.submit_jobs("ann", [job()])
    gate.result()
    assert good.result()[0]["id"] == "j1"
    with pytest.raises(NotFound):
        bad.result()
    with pytest.raises(Exception, match="no job j99"):
        half.result()
    assert last.result()[0]["id"] == "j2"
    assert house.group_counts() == [2]


def _missing():  # type: ignore[no-untyped-def]
    from worker_manager.hub.contract import Dependency

    return Dependency("j99")


def test_listeners_hear_of_a_commit_after_it(house: House) -> None:
    heard: list[tuple[frozenset[str], list[int]]] = []
    house.store.listen(lambda topics: heard.append((topics, house.group_counts())))
    house.submit(job())
    house.store.sweep().result()
    assert heard[0] == (frozenset({"backlog", "events"}), [1])


def test_too_much_at_once_is_shed(tmp_path: Path) -> None:
    import threading

    store = open_store(tmp_path, ManualClock(), Settings(max_pending_writes=2))
    held, release = threading.Event(), threading.Event()

    def block(_batch: object) -> None:
        held.set()
        release.wait(10)

    first = store._writer.submit(block)
    assert held.wait(10)
    waiting = [store.sweep() for _ in range(2)]
    with pytest.raises(Overloaded):
        store.sweep().result()
    release.set()
    first.result()
    for one in waiting:
        one.result()
    store.close()


def test_a_full_disk_acknowledges_nothing_and_recovers(house: House) -> None:
    def limit(pages: int) -> None:
        house.store._writer.submit(
            lambda batch: batch.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        ).result()

    house.submit(job())
    limit(1)  # no page more than there are
    with pytest.raises(StoreError, match="full"):
        house.submit(*[job(env={"X": "y" * 5000}) for _ in range(200)])
    assert house.group_counts() == [1]
    assert "full" in str(house.store.healthy())
    assert house.submit(job()) == ["j2"]  # a new connection, without the limit
    assert house.store.healthy() is None


def test_after_a_failed_fsync_nothing_is_acknowledged_any_more(house: House) -> None:
    def fails(_batch: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise OperationalError("COMMIT", {}, error)

    with pytest.raises(StoreError, match="kernel's log"):
        house.store._writer.submit(fails).result()
    with pytest.raises(StoreError):
        house.store.failed().result(timeout=0)
    with pytest.raises(StoreError):
        house.submit(job())
    assert house.store.healthy()


def test_a_lock_held_elsewhere_is_waited_for_then_refused(house: House) -> None:
    other = sqlite3.connect(house.place / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreError, match="locked"):
            house.submit(job())
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert house.submit(job()) == ["j1"]


def test_what_is_old_is_purged_in_small_steps_with_its_logs(house: House) -> None:
    house.submit(job(array=7), job(), job())
    house.worker("w", cpus=8)
    taken = house.taken("w")
    house.end("w", *taken[:8])
    piece = LogPiece("j1-0", 1, 0, 5, "seg-1", 0)
    house.report("w", logs=[piece])
    house.clock.advance(house.settings.retention_ms + 1)
    steps = [house.store.purge(3).result()]
    while steps[-1].more:
        steps.append(house.store.purge(3).result())
        assert len(steps) < 50
    assert sum(step.jobs for step in steps) == 9
    assert all(step.jobs <= 3 for step in steps)
    house.store.purge(100).result()
    assert ("seg-1",) in [step.segments for step in steps]
    with pytest.raises(NotFound):
        house.state("j1")
    assert house.state("j3") == "assigned"
    assert {s: n for s, n in house.store.info()["jobs"].items() if n} == {"assigned": 1}


def test_a_closed_store_refuses(tmp_path: Path) -> None:
    store = open_store(tmp_path, ManualClock())
    store.close()
    with pytest.raises(StoreError):
        store.sweep().result()
