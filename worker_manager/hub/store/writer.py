"""The one thread that writes.

It takes everything that waits, runs each operation in a savepoint of its own, commits once, and only then resolves the
futures and tells the listeners. So ten requests that arrive together cost one fsync, a failing one fails alone, and
nobody is told of something that is not on disk.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from worker_manager.clock import Clock
from worker_manager.errors import StoreError
from worker_manager.hub.contract import Listener
from worker_manager.hub.refusals import Overloaded
from worker_manager.hub.store.engine import StoreBroken, translated

log = logging.getLogger(__name__)
BATCH = 256  # operations in one commit, so that none waits long


class Batch:
    """One commit: its connection and instant, and what becomes true with it."""

    def __init__(self, connection: Connection, now: int, before: "Batch | None" = None) -> None:
        """`before`: what the operations before this one did in the same commit."""
        self.connection = connection
        self.now = now
        self._work_before = before is not None and before.new_work
        self.topics: set[str] = set()
        self.on_commit: list[Callable[[], None]] = []
        self.backlog_changed = False
        self.new_work: bool = False  # jobs entered the queue, or a worker has room
        self.cut_short: set[str] = set()  # workers that may prefetch once the new work is shared
        self.hungry = False  # a worker has room that nothing fills
        self.ahead: dict[str, bool] = {}  # worker → it holds more than it has room for
        self.tallies: dict[str, int] = {}
        self.events: list[dict[str, Any]] = []

    @property
    def unshared(self) -> bool:
        """Work came in this commit that not every worker with room has been offered."""
        return self.new_work or self._work_before

    def take(self, part: "Batch") -> None:
        """What one operation did, now that it stands."""
        self.topics |= part.topics
        self.on_commit += part.on_commit
        self.backlog_changed |= part.backlog_changed
        self.new_work |= part.new_work
        self.cut_short |= part.cut_short
        self.hungry |= part.hungry
        self.ahead.update(part.ahead)
        self.events += part.events
        for state, count in part.tallies.items():
            self.tallies[state] = self.tallies.get(state, 0) + count


Operation = Callable[[Batch], Any]


class GroupWriter:
    """`finish(batch)` runs last inside the transaction; `forget()` is called when something was rolled back."""

    def __init__(
        self,
        engine: Engine,
        where: str,
        clock: Clock,
        finish: Callable[[Batch], None],
        forget: Callable[[], None],
        at_most: int,
    ) -> None:
        self._engine = engine
        self._where = where
        self._clock = clock
        self._finish = finish
        self._forget = forget
        self._waiting: queue.Queue[tuple[Operation, Future[Any]] | None] = queue.Queue(at_most)
        self._listeners: list[Listener] = []
        self._observe: Callable[[int, float], None] = lambda _changes, _seconds: None
        self._closing = False
        self._gate = threading.Lock()  # between `submit` and `close`: nothing is queued behind the end mark
        self.trouble: str | None = None
        self.failed: Future[None] = Future()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="hub-writer", daemon=True)
        self._thread.start()

    def submit(self, op: Operation) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._gate:
            if self._closing or self.failed.done():
                future.set_exception(StoreError(self.trouble or f"{self._where} is being closed"))
                return future
            try:
                self._waiting.put_nowait((op, future))
            except queue.Full:
                future.set_exception(Overloaded("too many changes wait to be written: try again in a moment"))
        return future

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def count(self, observe: Callable[[int, float], None]) -> None:
        self._observe = observe

    def close(self) -> None:
        with self._gate:
            if self._closing:
                return
            self._closing = True
        self._waiting.put(None)
        self._thread.join()
        self._drop_connection()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        ending = False
        while not ending:
            batch = [self._waiting.get()]
            while len(batch) < BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            ending = None in batch
            work = [entry for entry in batch if entry is not None and entry[1].set_running_or_notify_cancel()]
            if work:
                self._write(work)

    def _write(self, work: list[tuple[Operation, "Future[Any]"]]) -> None:
        if self.failed.done():
            self._refuse(work, StoreBroken(self.trouble or "the store is broken"))
            return
        began = time.perf_counter()
        try:
            batch, outcomes = self._commit(work)
        except Exception as error:
            self._give_up(work, error)
            return
        self.trouble = None
        self._observe(len(work), time.perf_counter() - began)
        for act in batch.on_commit:
            act()
        for (_, future), (value, failure) in zip(work, outcomes, strict=True):
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(value)
        if batch.topics:
            topics = frozenset(batch.topics)
            for listener in self._listeners:
                listener(topics)

    def _commit(
        self, work: list[tuple[Operation, "Future[Any]"]]
    ) -> tuple[Batch, list[tuple[Any, BaseException | None]]]:
        connection = self._open()
        with connection.begin():
            batch = Batch(connection, self._clock.now_ms())
            outcomes = [self._attempt(batch, op) for op, _ in work]
            self._finish(batch)
        return batch, outcomes

    def _attempt(self, batch: Batch, op: Operation) -> tuple[Any, BaseException | None]:
        """Run one operation; on failure, undo what it did to the database and to the batch."""
        mine = Batch(batch.connection, batch.now, batch)
        batch.connection.exec_driver_sql("SAVEPOINT op")
        try:
            value = op(mine)
        except DBAPIError as error:
            if batch.connection.invalidated or not isinstance(error.orig, _integrity(error)):
                raise
            self._undo(batch.connection)
            return None, error
        except Exception as error:
            self._undo(batch.connection)
            return None, error
        batch.connection.exec_driver_sql("RELEASE op")
        batch.take(mine)
        return value, None

    def _undo(self, connection: Connection) -> None:
        connection.exec_driver_sql("ROLLBACK TO op")
        connection.exec_driver_sql("RELEASE op")
        self._forget()

    def _give_up(self, work: list[tuple[Operation, "Future[Any]"]], error: Exception) -> None:
        """Nothing of this batch is on disk."""
        self._forget()
        failure = translated(error, self._where) if isinstance(error, DBAPIError) else error
        if not isinstance(failure, StoreError):
            log.error("a commit failed for a reason of the program's own", exc_info=error)
            failure = StoreError(f"{self._where}: nothing was stored ({type(error).__name__})")
        self.trouble = str(failure)
        self._drop_connection()
        self._refuse(work, failure)
        if isinstance(failure, StoreBroken):
            self.failed.set_exception(failure)

    def _refuse(self, work: list[tuple[Operation, "Future[Any]"]], failure: Exception) -> None:
        for _, future in work:
            future.set_exception(failure)

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self._connection = self._engine.connect()
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception:
                log.warning("closing the database connection failed", exc_info=True)


def _integrity(error: DBAPIError) -> type[Exception]:
    """The driver's error for a broken constraint: the operation's own fault, not the database's."""
    module = type(error.orig).__module__.partition(".")[0]
    imported = __import__(module)
    found: type[Exception] = imported.IntegrityError
    return found
