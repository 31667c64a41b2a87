"""The first start on a backup: a new generation, in which nothing from after the backup may speak.

Workers have gone on since then, with jobs and epochs of which this database knows nothing. So every worker counts as
gone: its credential is refused, it ends what it runs and exits. Jobs that stood on one go back to the queue and pay
nothing for it; their next attempts have new epochs. Numbers that were given out since the backup, and that clients may
hold, are passed over. A job that ended after the backup runs again: that cannot be known here.

`hub/backup.py` marks its copies. Who restores another way (`pg_restore`, a snapshot of the disk) sets the mark by hand:
INSERT INTO meta (name, value) VALUES ('restored', 1);
"""

import logging
from typing import Any

from sqlalchemy import delete, func, insert, select

from worker.protocol import JobState
from worker_manager.hub.states import WorkerEvent
from worker_manager.hub.store.agents import bury_worker
from worker_manager.hub.store.fleet import active_jobs, load, load_of, save, settle
from worker_manager.hub.store.meta import raise_number, take_numbers
from worker_manager.hub.store.moves import JobRow, Moves
from worker_manager.hub.store.tables import HERE_SQL, coverage, events, meta, notices, workers
from worker_manager.hub.store.values import dump

RESTORED = "restored"  # in `meta`
PASSED_OVER = 1_000_000  # jobs, events and versions that may have been given out since the backup

log = logging.getLogger(__name__)


def begin_again(moves: Moves) -> bool:
    """False where this is no backup."""
    if not moves.connection.execute(delete(meta).where(meta.c.name == RESTORED)).rowcount:
        return False
    generation = raise_number(moves.connection, "generation")
    take_numbers(moves.connection, "next_job", PASSED_OVER)
    take_numbers(moves.connection, "backlog_version", PASSED_OVER)
    jobs = sum(_take_all_from(moves, name) for name in _here(moves))
    moves.connection.execute(delete(coverage))
    moves.connection.execute(delete(notices))
    newest = moves.connection.execute(select(func.coalesce(func.max(events.c.seq), 0))).scalar_one()
    moves.connection.execute(
        insert(events),
        {
            "seq": newest + PASSED_OVER,
            "at_ms": moves.batch.now,
            "kind": "hub.restored",
            "subject": "hub",
            "data": dump({"generation": generation, "requeued": jobs}),
        },
    )
    moves.batch.backlog_changed = True
    moves.flush()
    log.warning("this is a restored backup: generation %d begins, %d jobs go back to the queue", generation, jobs)
    return True


def _here(moves: Moves) -> list[str]:
    return list(moves.connection.execute(select(workers.c.id).where(HERE_SQL)).scalars())


def _take_all_from(moves: Moves, name: str) -> int:
    worker = load(moves, name)
    if worker is None:
        return 0
    active: dict[tuple[int, int], JobRow] = {key: Unpaid(row) for key, row in active_jobs(moves, name).items()}
    jobs = len(active)
    bury_worker(moves, worker, WorkerEvent.DIE, "the hub was restored from a backup", active)
    settle(moves, worker, load_of(moves, worker, []))
    save(moves, worker)
    return jobs


class Unpaid:
    """A row whose loss does not count against it."""

    def __init__(self, row: JobRow) -> None:
        self._row = row
        self.losses = row.losses - 1 if row.state in (JobState.ASSIGNED, JobState.RUNNING) else row.losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)
