"""The store: every operation of the contract, each a line that says whether it writes or reads.

Writes go through the one writer; reads through connections of their own. What polls tell (signs of life, acknowledged
numbers) is kept in memory and written by the next sweep: losing it costs nothing, because a start grants full leases.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.protocol import Polled, Register, Registered, Report, Reported
from worker_manager.clock import Clock
from worker_manager.errors import StoreError
from worker_manager.hub.contract import (
    BACKLOG,
    EVENTS,
    Access,
    Claim,
    CordonOrder,
    HeldAttempt,
    JobFilter,
    KeptFile,
    Listener,
    LogPiece,
    LogView,
    NewJob,
    Purged,
    Removed,
    Settings,
    Swept,
    Wire,
)
from worker_manager.hub.inventory import Inventory
from worker_manager.hub.keeping import Kept
from worker_manager.hub.refusals import Overloaded
from worker_manager.hub.runtimes import RunTimes
from worker_manager.hub.store import (
    agents,
    blobs,
    chores,
    identities,
    kept,
    launching,
    operating,
    reading,
    schema,
    submitting,
    views,
)
from worker_manager.hub.store.choices import Choices
from worker_manager.hub.store.engine import reading_engine, translated, writing_engine
from worker_manager.hub.store.filling import feed_hungry
from worker_manager.hub.store.fleet import limits_of
from worker_manager.hub.store.grouping import ShapeBook
from worker_manager.hub.store.meta import raise_number, read_number
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.recalling import notice_long_runs, recall
from worker_manager.hub.store.reserving import reserve
from worker_manager.hub.store.restoring import begin_again
from worker_manager.hub.store.tables import commands, events, tallies, tokens, workers
from worker_manager.hub.store.values import dump
from worker_manager.hub.store.verdicts import VerdictBook
from worker_manager.hub.store.writer import Batch, GroupWriter
from worker_manager.places import refuse_network_file_system

log = logging.getLogger(__name__)
T = TypeVar("T")
FILE = "hub.sqlite"
_TALLY = update(tallies).where(tallies.c.state == bindparam("of")).values(count=tallies.c.count + bindparam("by"))
_HOLDERS = select(workers.c.id).where(workers.c.assigned > 0)
_PENDING = select(commands.c.manager).where(commands.c.state == "pending").distinct()


class Store:
    """Implements `contract.HubStore`."""

    def __init__(self, writes: Engine, reads: Engine, where: str, clock: Clock, settings: Settings) -> None:
        self.settings = settings
        self._clock = clock
        self._where = where
        self._reads = reads
        self._writes = writes
        self._book = ShapeBook()
        self._verdicts = VerdictBook()
        self._runtimes = RunTimes()
        self._limits = limits_of(settings)
        self.inventory = Inventory(clock.now_ms())
        self._choices = Choices(self.inventory)
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._acks: dict[str, int] = {}
        self._booted_ms = clock.now_ms()
        self.feed_failures = 0
        with reads.connect() as connection:
            self._version = read_number(connection, "backlog_version")
            self._commanded = set(connection.execute(_PENDING).scalars())
            self._ahead = set(connection.execute(_HOLDERS).scalars())  # workers that hold more than they have room for
        self._kept: Mapping[str, Kept] = {}  # worker → what it keeps its room for
        self._recalled = 0  # since the last sweep
        self._writer = GroupWriter(writes, where, clock, self._finish, self._book.clear, settings.max_pending_writes)

    @classmethod
    def open(cls, place: str | Path, clock: Clock, settings: Settings) -> "Store":
        url, where = _located(place)
        writes = writing_engine(url, settings.busy_ms)
        try:
            schema.prepare(writes, where)
            store = cls(writes, reading_engine(url, settings.busy_ms), where, clock, settings)
            store._write(begin_again).result()
            return store
        except DBAPIError as error:
            writes.dispose()
            raise translated(error, where) from error
        except BaseException:
            writes.dispose()
            raise

    # ------------------------------------------------------------ the two ways in

    def _write(self, act: Callable[[Moves], T]) -> "Future[T]":
        return self._writer.submit(lambda batch: act(self._moves(batch)))

    def _moves(self, batch: Batch) -> Moves:
        return Moves(batch, self._book, self.settings, self._runtimes, self._kept, self._choices)

    def _read(self, ask: Callable[[Connection], T]) -> T:
        try:
            with self._reads.connect() as connection:
                return ask(connection)
        except PoolTimeout:
            raise Overloaded("too many reads wait for the database: try again in a moment") from None
        except DBAPIError as error:
            raise translated(error, self._where) from error

    def _finish(self, batch: Batch) -> None:
        """The last words of a commit: work and workers are brought together, then the books are closed."""
        if batch.new_work:
            self._place(batch, lambda moves: feed_hungry(moves, self._limits, batch.cut_short))
        if batch.hungry and (holders := self._holders(batch)):
            asked = self._place(batch, lambda moves: recall(moves, holders))
            batch.on_commit.append(lambda: self._count_recalled(asked))
        if batch.ahead:
            holders = self._holders(batch)
            batch.on_commit.append(lambda: setattr(self, "_ahead", holders))
        if batch.tallies:
            _count_states(batch)
        if batch.events:
            rows = [{**event, "data": dump(event["data"]), "at_ms": batch.now} for event in batch.events]
            batch.connection.execute(insert(events), rows)
            batch.topics.add(EVENTS)
        if batch.backlog_changed:
            version = raise_number(batch.connection, "backlog_version")
            batch.topics.add(BACKLOG)
            batch.on_commit.append(lambda: setattr(self, "_version", version))

    def _place(self, batch: Batch, act: Callable[[Moves], int]) -> int:
        """A mistake in the matching must not keep results from being stored: it is undone and told."""
        batch.connection.exec_driver_sql("SAVEPOINT place")
        round_of = Batch(batch.connection, batch.now)
        number = 0
        try:
            moves = self._moves(round_of)
            number = act(moves)
            moves.flush()
        except DBAPIError:
            raise
        except Exception:
            log.exception("giving jobs to workers failed")
            self.feed_failures += 1
            batch.connection.exec_driver_sql("ROLLBACK TO place")
            self._book.clear()
        else:
            batch.take(round_of)
        batch.connection.exec_driver_sql("RELEASE place")
        return number

    def _holders(self, batch: Batch) -> set[str]:
        """Workers that hold jobs for which they have no room yet."""
        return (self._ahead - batch.ahead.keys()) | {name for name, ahead in batch.ahead.items() if ahead}

    def _count_recalled(self, number: int) -> None:
        self._recalled += number

    # ------------------------------------------------------------ life

    def listen(self, listener: Listener) -> None:
        self._writer.listen(listener)

    def count_commits(self, observe: Callable[[int, float], None]) -> None:
        self._writer.count(observe)

    def healthy(self) -> str | None:
        return self._writer.trouble

    def failed(self) -> "Future[None]":
        return self._writer.failed

    def close(self) -> None:
        self._writer.close()
        self._reads.dispose()
        self._writes.dispose()

    def sweep(self) -> "Future[Swept]":
        with self._lock:
            seen, self._seen = self._seen, {}
            acks, self._acks = self._acks, {}
        return self._write(lambda moves: self._swept(moves, seen, acks))

    def _swept(self, moves: Moves, seen: Mapping[str, int], acks: Mapping[str, int]) -> Swept:
        found = chores.sweep(moves, seen, acks, self._booted_ms)
        self._recount_commands(moves)
        self._reserve(moves)
        recalled, self._recalled = self._recalled, 0
        return replace(found, recalled=recalled)

    def _reserve(self, moves: Moves) -> None:
        before = self._kept
        self._kept, words = reserve(moves)
        self._verdicts.add(words)
        if before.keys() - self._kept.keys():
            moves.batch.new_work = True  # somebody is free again to take what it was not to

    def holds_ahead(self) -> bool:
        return bool(self._ahead)

    def recall(self) -> "Future[None]":
        def act(moves: Moves) -> None:
            notice_long_runs(moves)
            moves.batch.hungry = True  # the commit's last words look whether anybody is

        return self._write(act)

    def purge(self, limit: int = 1000) -> "Future[Purged]":
        return self._write(lambda moves: chores.purge(moves, limit))

    # ------------------------------------------------------------ access

    def jobs_to_holders(self) -> int:
        return self._choices.made

    def authenticate(self, token_sha256: str) -> Access | None:
        def ask(connection: Connection) -> Access | None:
            row = connection.execute(select(tokens).where(tokens.c.sha256 == token_sha256)).first()
            if row is None or (row.expires_ms is not None and row.expires_ms <= self._clock.now_ms()):
                return None
            wire = operating.token_wire(row)
            return Access(wire["id"], wire["owner"], frozenset(wire["scopes"]))

        return self._read(ask)

    def create_token(
        self, token_sha256: str, owner: str, scopes: Sequence[str], expires_ms: int | None, by: str
    ) -> "Future[Wire]":
        return self._write(lambda m: operating.create_token(m, token_sha256, owner, scopes, expires_ms, by))

    def list_tokens(self) -> list[Wire]:
        query = select(tokens).order_by(tokens.c.created_ms, tokens.c.id)
        return self._read(lambda c: [operating.token_wire(row) for row in c.execute(query)])

    def delete_token(self, token: str, by: str) -> "Future[None]":
        return self._write(lambda m: operating.delete_token(m, token, by))

    # ------------------------------------------------------------ jobs

    def submit_jobs(
        self, owner: str, jobs: Sequence[NewJob], key: str | None = None, request_sha256: str = ""
    ) -> "Future[list[Wire]]":
        return self._write(lambda m: submitting.submit(m, owner, jobs, key, request_sha256))

    def cancel_job(self, job: str, owner: str | None, by: str) -> "Future[tuple[bool, Wire]]":
        def act(moves: Moves) -> tuple[bool, Wire]:
            changed = submitting.cancel(moves, job, owner, by)
            return changed, reading.get_job(moves.connection, job, self._verdicts.read(moves.connection))

        return self._write(act)

    def cancel_jobs(self, jobs: Sequence[str], owner: str | None, by: str) -> "Future[list[Wire]]":
        return self._write(lambda m: submitting.cancel_many(m, jobs, owner, by))

    def get_job(self, job: str) -> Wire:
        return self._read(lambda c: reading.get_job(c, job, self._verdicts.read(c)))

    def list_jobs(self, wanted: JobFilter) -> tuple[list[Wire], str | None]:
        return self._read(lambda c: reading.list_jobs(c, wanted, self._verdicts.read(c)))

    def explain_job(self, job: str) -> Wire:
        return self._read(lambda c: reading.explain_job(c, job, self._verdicts.read(c), self._choices))

    def log_view(self, job: str, attempt: int | None = None, offset: int = 0, limit: int = 1000) -> LogView:
        return self._read(lambda c: reading.log_view(c, job, attempt, offset, limit))

    # ------------------------------------------------------------ blobs

    def find_blob(self, owner: str, sha256: str) -> int | None:
        return self._read(lambda c: blobs.find(c, owner, sha256))

    def add_blob(self, owner: str, sha256: str, size: int) -> "Future[bool]":
        return self._write(lambda m: blobs.add(m.connection, m.batch.now, owner, sha256, size))

    def renew_blob(self, owner: str, sha256: str) -> "Future[None]":
        return self._write(lambda m: blobs.renew(m.connection, m.batch.now, owner, sha256))

    def is_blob_unused(self, owner: str, sha256: str, before_ms: int) -> bool:
        return self._read(lambda c: blobs.is_unused(c, owner, sha256, before_ms))

    def unused_blobs(self, before_ms: int, limit: int) -> list[tuple[str, str, int]]:
        return self._read(lambda c: blobs.unused(c, before_ms, limit))

    def remove_blob(self, owner: str, sha256: str, before_ms: int) -> "Future[Removed]":
        return self._write(lambda m: blobs.remove(m.connection, owner, sha256, before_ms))

    def count_blobs(self) -> tuple[int, int]:
        return self._read(blobs.totals)

    def known_blobs(self, digests: Sequence[str]) -> set[str]:
        return self._read(lambda c: blobs.known(c, digests))

    def list_files(self, job: str, attempt: int | None = None, limit: int = 100, cursor: str | None = None) -> Wire:
        return self._read(lambda c: kept.list_files(c, job, attempt, limit, cursor))

    def kept_file(self, job: str, attempt: int | None, path: str) -> KeptFile | None:
        return self._read(lambda c: kept.one_file(c, job, attempt, path))

    def files_taken(self, owner: str, job: str, path: str, most: int = 10_000) -> list[KeptFile]:
        return self._read(lambda c: kept.taken_from(c, owner, job, path, most))

    # ------------------------------------------------------------ workers' own calls

    def register(self, message: Register, token_sha256: str) -> "Future[Registered]":
        return self._write(lambda m: agents.register(m, message, token_sha256))

    def join(self, message: Register, names: Sequence[str]) -> "Future[Registered]":
        return self._write(lambda m: identities.join(m, message, names))

    def awaits_identities(self) -> bool:
        return self._read(identities.awaited)

    def admit_worker(self, worker: str, credential_sha256: str) -> None:
        self._read(lambda c: reading.admit_worker(c, worker, credential_sha256))

    def held_attempt(self, worker: str, credential_sha256: str, session: int, job: str, epoch: int) -> HeldAttempt:
        return self._read(lambda c: reading.held_attempt(c, worker, credential_sha256, session, job, epoch))

    def poll(self, worker: str, credential_sha256: str, session: int, ack: int, waits: bool = False) -> Polled:
        polled = self._read(lambda c: reading.poll(c, worker, credential_sha256, session, ack))
        now = self._clock.now_ms()
        with self._lock:
            if not waits:
                self._seen[worker] = now
            if ack:
                self._acks[worker] = max(ack, self._acks.get(worker, 0))
        polled["lease_ms"] = self.settings.lease_ms
        polled["now_ms"] = now
        return polled

    def report(
        self, worker: str, credential_sha256: str, message: Report, logs: Sequence[LogPiece] = ()
    ) -> "Future[Reported]":
        return self._write(lambda m: agents.report(m, worker, credential_sha256, message, logs))

    # ------------------------------------------------------------ operators

    def get_worker(self, worker: str) -> Wire:
        return self._read(lambda c: views.get_worker(c, worker))

    def list_workers(self, pools: Sequence[str] | None = None, gone: bool = False) -> list[Wire]:
        return self._read(lambda c: views.list_workers(c, pools, gone, self._clock.now_ms()))

    def awaited_workers(self) -> list[Wire]:
        return self._read(views.awaited)

    def drain_worker(self, worker: str, by: str, reason: str = "", deadline_ms: int | None = None) -> "Future[Wire]":
        def act(moves: Moves) -> Wire:
            operating.drain(moves, worker, by, reason, deadline_ms)
            return views.get_worker(moves.connection, worker)

        return self._write(act)

    def undrain_worker(self, worker: str, by: str) -> "Future[Wire]":
        def act(moves: Moves) -> Wire:
            operating.undrain(moves, worker, by)
            return views.get_worker(moves.connection, worker)

        return self._write(act)

    def ask_logs(self, worker: str, max_bytes: int, by: str) -> "Future[Wire]":
        def act(moves: Moves) -> Wire:
            command = operating.ask_logs(moves, worker, max_bytes, by)
            self._recount_commands(moves)
            return {"command": command}

        return self._write(act)

    def delete_worker(self, worker: str, force: bool, grace_ms: int, by: str) -> "Future[Wire]":
        def act(moves: Moves) -> Wire:
            command = operating.delete_worker(moves, worker, force, grace_ms, by)
            self._recount_commands(moves)
            return {"command": command}

        return self._write(act)

    def list_pools(self) -> list[Wire]:
        return self._read(views.list_pools)

    def explain_pool(self, pool: str) -> list[Wire]:
        return self._read(lambda c: views.explain_pool(c, pool))

    def freeze_pool(self, pool: str, until_ms: int, text: str, by: str, manager: str | None = None) -> "Future[Wire]":
        return self._freeze(pool, "freeze", {"until_ms": until_ms, "text": text}, by, manager)

    def unfreeze_pool(self, pool: str, by: str, manager: str | None = None) -> "Future[Wire]":
        return self._freeze(pool, "unfreeze", {}, by, manager)

    def _freeze(self, pool: str, kind: str, options: Mapping[str, Any], by: str, manager: str | None) -> "Future[Wire]":
        def act(moves: Moves) -> Wire:
            asked = operating.freeze(moves, pool, kind, options, by, manager)
            self._recount_commands(moves)
            return {"command": asked[0], "commands": asked}

        return self._write(act)

    def get_command(self, command: str) -> Wire:
        return self._read(lambda c: views.get_command(c, command))

    def list_events(
        self, after: str | None = None, kind: str | None = None, subject: str | None = None, limit: int = 100
    ) -> tuple[list[Wire], str]:
        return self._read(lambda c: views.list_events(c, after, kind, subject, limit))

    def summary(self, since_ms: int | None = None) -> Wire:
        return self._read(lambda c: views.summary(c, since_ms, self._clock.now_ms()))

    def info(self) -> Wire:
        return self._read(lambda c: views.info(c, self._clock.now_ms()))

    # ------------------------------------------------------------ managers

    def backlog(self, manager: str | None = None) -> Wire:
        return self._read(lambda c: views.backlog(c, manager, self._clock.now_ms()))

    def version(self) -> int:
        return self._version

    def sync(self, manager: str, pools: Sequence[str]) -> Wire:
        def ask(connection: Connection) -> Wire:
            now = self._clock.now_ms()
            wire = views.backlog(connection, manager, now)
            wire["workers"] = views.list_workers(connection, pools, False, now, manager)
            wire["commands"] = views.pending_commands(connection, manager, now)
            return wire

        return self._read(ask)

    def has_commands(self, manager: str) -> bool:
        return manager in self._commanded

    def _recount_commands(self, moves: Moves) -> None:
        """After the commit `has_commands` answers from memory again."""
        commanded = set(moves.connection.execute(_PENDING).scalars())
        moves.batch.on_commit.append(lambda: setattr(self, "_commanded", commanded))

    def publish(self, manager: str, report: Mapping[str, Any]) -> "Future[None]":
        def act(moves: Moves) -> None:
            operating.publish(moves, manager, report)
            if report.get("results"):
                self._recount_commands(moves)

        return self._write(act)

    def claim_launch(self, manager: str, claim: Claim, owner: str = "") -> "Future[None]":
        return self._write(lambda m: launching.claim_launch(m, manager, owner, claim))

    def identify(self, manager: str, told: Mapping[str, str]) -> "Future[list[str]]":
        return self._write(lambda m: identities.identify(m, manager, told))

    def bury(self, manager: str, workers: Sequence[str], reason: str) -> "Future[list[str]]":
        return self._write(lambda m: launching.bury(m, manager, workers, reason))

    def cordon(self, manager: str, orders: Sequence[CordonOrder]) -> "Future[dict[str, int | None]]":
        return self._write(lambda m: operating.cordon(m, manager, orders))

    def uncordon(self, manager: str, workers: Sequence[str]) -> "Future[list[str]]":
        return self._write(lambda m: operating.uncordon(m, manager, workers))

    def declare_gone(self, manager: str, workers: Sequence[str], reason: str) -> "Future[None]":
        return self._write(lambda m: operating.declare_gone(m, manager, workers, reason))


def _count_states(batch: Batch) -> None:
    changed = {state: by for state, by in batch.tallies.items() if by}
    if not changed:
        return
    done = batch.connection.execute(select(tallies.c.state)).scalars()
    known = set(done)
    new = [{"state": state, "count": 0} for state in changed if state not in known]
    if new:
        batch.connection.execute(insert(tallies), new)
    batch.connection.execute(_TALLY, [{"of": state, "by": by} for state, by in changed.items()])


def _located(place: str | Path) -> tuple[str, str]:
    """(URL, how people call it). A path is a state directory, made when it is not there."""
    if "://" in str(place):
        return str(place), "the database"
    directory = Path(place).expanduser().resolve()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_network_file_system(directory)
        file = directory / FILE
        file.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{directory} cannot hold the hub's database: {error.strerror or error}") from error
    return f"sqlite+pysqlite:///{file}", str(file)
