"""The manager's durable memory: one SQLite file for one manager.

`memory()` gives a tick all that it needs of the past. `write()` is one transaction with one commit; it begins by
checking that this process still holds the lease, so what a superseded leader wants to write never lands. A commit that
returned survives the power cut (WAL, synchronous=FULL).
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, create_engine, event, exc, select
from sqlalchemy.engine import Engine

from worker_manager.clock import Clock
from worker_manager.control import lease as leases
from worker_manager.control import schema
from worker_manager.control.lease import Lease
from worker_manager.control.rows import decision_of, memory_of
from worker_manager.control.writer import Writer
from worker_manager.errors import LeaseHeld, StoreError
from worker_manager.places import MOUNTS, refuse_network_file_system
from worker_manager.policy.facts import Memory

BUSY_S = 30.0


class StoreBusy(StoreError):
    """Locked or full: nothing was written, and a later attempt may succeed."""


@dataclass(frozen=True)
class Announced:
    """Told to the source, never written as intents: to be taken back there."""

    submission: str
    pool: str
    workers: int
    at: int


@dataclass(frozen=True)
class OpenCall:
    """A submission whose call has no outcome yet."""

    id: str
    pool: str
    workers: int
    call_deadline: int


@dataclass(frozen=True)
class CommandResult:
    id: str
    ok: bool
    text: str
    published: bool


@dataclass(frozen=True)
class OutputWanted:
    """A worker that is over, and whose output is to be kept."""

    worker: str
    pool: str
    handle: str


class Ledger:
    """Safe for the loop's thread and the lease's thread together; the lease belongs to the process, not to a thread."""

    def __init__(self, path: Path, manager: str, clock: Clock, busy_s: float = BUSY_S) -> None:
        """Opens or creates it. Raises StoreError, with what to do, for what cannot be used."""
        self.path = path
        self.manager = manager
        self._clock = clock
        self._lease: Lease | None = None
        self._memory: Memory | None = None
        self._engine = _engine(path, busy_s)
        with self._explained():
            self._open()

    @classmethod
    def in_folder(
        cls, state_dir: Path, manager: str, clock: Clock, busy_s: float = BUSY_S, mounts: Path = MOUNTS
    ) -> "Ledger":
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_network_file_system(state_dir, mounts)
        except OSError as error:
            raise StoreError(f"the state directory {state_dir} cannot be made: {error.strerror}") from None
        return cls(state_dir / f"ledger-{manager}.db", manager, clock, busy_s)

    def close(self) -> None:
        if self._lease is not None:
            self.release()
        self._engine.dispose()

    def abandon(self) -> None:
        """What a sudden death leaves behind: the lease's row stays, its lock goes. For crash tests in one process."""
        if self._lease is not None:
            os.close(self._lease.lock)
            self._lease = None
        self._engine.dispose()

    # ------------------------------------------------------------ the lease

    @property
    def epoch(self) -> int | None:
        return self._lease.epoch if self._lease else None

    def acquire(self, holder: str, ttl_ms: int) -> int:
        """Returns the epoch. Raises LeaseHeld."""
        with self._explained(), self._transaction() as connection:
            taken = leases.take(connection, self.path, self.manager, holder, self._clock.now_ms(), ttl_ms)
        self._lease = taken
        self._memory = None
        return taken.epoch

    def renew(self, ttl_ms: int) -> None:
        """Raises LeaseLost when another has taken over, StoreBusy when the ledger could not be written in time."""
        held = self._held()
        with self._explained(), self._transaction() as connection:
            leases.renew(connection, held, self._clock.now_ms(), ttl_ms)

    def release(self) -> None:
        held, self._lease = self._held(), None
        try:
            with self._explained(), self._transaction() as connection:
                leases.give_up(connection, held)
        except StoreError:
            os.close(held.lock)  # its file stays: a lock that is free tells the next one that the holder is gone
        else:
            leases.let_go(self.path, held)

    def _held(self) -> Lease:
        if self._lease is None:
            raise LeaseHeld(f"this process does not hold the lease of manager {self.manager!r}")
        return self._lease

    # ------------------------------------------------------------ writing

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """One commit when the block ends well, nothing at all when it does not. Raises LeaseLost."""
        held = self._held()
        with self._explained(), self._transaction() as connection:
            leases.check(connection, held)
            yield Writer(connection)
            self._memory = None

    # ------------------------------------------------------------ reading

    def memory(self) -> Memory:
        if self._memory is None:
            with self._explained(), self._engine.connect() as connection:
                self._memory = memory_of(connection, self._clock.now_ms())
        return self._memory

    def announced(self) -> tuple[Announced, ...]:
        return tuple(
            Announced(row.submission, row.pool, row.workers, row.at) for row in self._rows(select(schema.announcements))
        )

    def calls_without_outcome(self) -> tuple[OpenCall, ...]:
        asked = schema.submissions
        rows = self._rows(select(asked).where(asked.c.outcome.is_(None)))
        return tuple(OpenCall(row.id, row.pool, row.workers, row.call_deadline) for row in rows)

    def forces_due(self) -> Mapping[str, int]:
        """Worker → when an operator's grace for it ends."""
        open_ = schema.intents
        wanted = select(open_.c.id, open_.c.force_due_at).where(
            open_.c.closed_at.is_(None), open_.c.force_due_at.is_not(None), open_.c.force_asked_at.is_(None)
        )
        return {row.id: row.force_due_at for row in self._rows(wanted)}

    def command_results(self) -> Mapping[str, CommandResult]:
        rows = self._rows(select(schema.commands))
        return {row.id: CommandResult(row.id, bool(row.ok), row.text, bool(row.published)) for row in rows}

    def decisions(self, after: int = 0, limit: int = 1000) -> tuple[dict[str, Any], ...]:
        """Oldest first, each as it goes over the wire, with its `id`."""
        asked = select(schema.decisions).where(schema.decisions.c.id > after).order_by(schema.decisions.c.id)
        return tuple(decision_of(row) for row in self._rows(asked.limit(limit)))

    def last_decision(self) -> int:
        newest = select(schema.decisions.c.id).order_by(schema.decisions.c.id.desc()).limit(1)
        return next((row.id for row in self._rows(newest)), 0)

    def reported(self) -> int:
        """The newest decision that the source has heard of."""
        found = self._rows(select(schema.marks.c.value).where(schema.marks.c.name == schema.REPORTED))
        return found[0].value if found else 0

    def closed(self, worker: str) -> str | None:
        """Why an intent was closed; None while it is open or unknown."""
        row = self._rows(select(schema.intents.c.closed_why).where(schema.intents.c.id == worker))
        return row[0].closed_why if row else None

    def outputs_wanted(self) -> tuple[OutputWanted, ...]:
        """Workers that never registered, and whose backend was not asked yet what they wrote."""
        of = schema.outputs
        rows = self._rows(select(of.c.worker, of.c.pool, of.c.handle).where(of.c.text.is_(None)).order_by(of.c.at))
        return tuple(OutputWanted(row.worker, row.pool, row.handle) for row in rows)

    def output(self, worker: str) -> str:
        """What was kept of it."""
        rows = self._rows(select(schema.outputs.c.text).where(schema.outputs.c.worker == worker))
        return (rows[0].text or "") if rows else ""

    def handle(self, worker: str) -> str | None:
        """Its backend's name of a worker, which may be over."""
        rows = self._rows(select(schema.intents.c.handle).where(schema.intents.c.id == worker))
        return rows[0].handle if rows else None

    def _rows(self, query: Any) -> list[Row[Any]]:
        with self._explained(), self._engine.connect() as connection:
            return list(connection.execute(query))

    # ------------------------------------------------------------ the file

    def _open(self) -> None:
        with self._transaction() as connection:
            raw = connection.connection.driver_connection
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if not _is_ours(raw) and not _is_empty(raw):
                raise StoreError(f"{self.path} is not a ledger of a worker manager: choose another state directory")
            if version > schema.VERSION:
                raise StoreError(
                    f"{self.path} is of version {version}, this program knows {schema.VERSION}: "
                    "run the newer program, or move the file away (its workers are then found through the hub)"
                )
            for migrate in schema.MIGRATIONS[version:]:
                migrate(connection)
            connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {schema.VERSION}")
        with suppress(OSError):
            self.path.chmod(0o600)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """The database's complaint as a sentence that says what to do."""
        try:
            yield
        except exc.DBAPIError as error:
            raise _explanation(self.path, str(error.orig)) from None
        except sqlite3.Error as error:
            raise _explanation(self.path, str(error)) from None


def _explanation(path: Path, cause: str) -> StoreError:
    if "locked" in cause or "busy" in cause:
        return StoreBusy(f"the ledger {path} is locked by another process: end that one (`fuser {path}` names it)")
    if "full" in cause:
        return StoreBusy(f"the disk of the ledger {path} is full: make room; nothing is launched meanwhile")
    if "readonly" in cause or "unable to open" in cause:
        return StoreError(f"the ledger {path} cannot be written: give this user the right to its folder ({cause})")
    if "malformed" in cause or "not a database" in cause:
        return StoreError(
            f"the ledger {path} is damaged ({cause}): restore a backup, or move it away; running workers are then "
            "found through the hub and the backends"
        )
    return StoreError(f"the ledger {path} cannot be used: {cause}")


def _engine(path: Path, busy_s: float) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": busy_s, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        if _is_ours(connection) or _is_empty(connection):  # else it is refused, and stays as it is
            connection.execute("PRAGMA journal_mode=WAL").close()
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _is_ours(connection: Any) -> bool:
    return bool(connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,))


def _is_empty(connection: Any) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))
