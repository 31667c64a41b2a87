"""Workers' rows and what stands on them.

A `Worker` is loaded, changed and saved within one operation. Its load is computed from the jobs that stand on it, never
counted up and down, so it cannot drift.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from worker.protocol import JobState, Shape, WorkerState
from worker_manager.hub.contract import Settings, worker_topic
from worker_manager.hub.match import Limits, Room, has_room, is_long, is_overfull
from worker_manager.hub.store.moves import COLUMNS, JobRow, Moves
from worker_manager.hub.store.tables import (
    ON_WORKER_SQL,
    groups,
    jobs,
    notices,
    workers,
)
from worker_manager.hub.store.values import dump, serves_of, shape_of, shape_text


@dataclass(slots=True)
class Worker:
    """One row of `workers`; the fields that operations change."""

    id: str
    pool: str
    manager: str
    owner: str
    state: str
    shape: Shape
    free: Shape
    serves: str
    hungry: int
    running: int
    assigned: int
    runs: int
    max_runs: int | None
    session: int
    nonce: str
    credential: str
    out_seq: int
    in_seq: int
    last_stale: str
    stop: int
    cordon: dict[str, Any] | None
    cordon_generation: int
    ready_ms: int
    seen_ms: int
    gone_ms: int | None
    idle_since: int | None
    idle_ms: int
    idle_exit_ms: int | None
    host: str
    config: str

    @property
    def busy(self) -> bool:
        return self.running + self.assigned > 0

    @property
    def accepts(self) -> bool:
        return self.state == WorkerState.READY and not self.stop


NAMES = tuple(Worker.__dataclass_fields__)
_CHANGING = tuple(n for n in NAMES if n not in ("id", "manager", "owner"))
_LOAD = select(*(workers.c[name] for name in NAMES)).where(workers.c.id == bindparam("worker"))
_SAVE = (
    update(workers)
    .where(workers.c.id == bindparam("worker"))
    .values({workers.c[name]: bindparam("to_" + name) for name in _CHANGING})
)
_ACTIVE = (
    select(*COLUMNS, groups.c.run_us)
    .outerjoin(groups, groups.c.id == jobs.c.group_id)
    .where(jobs.c.worker == bindparam("worker"), ON_WORKER_SQL)
)


def load(moves: Moves, worker: str) -> Worker | None:
    row = moves.connection.execute(_LOAD, {"worker": worker}).first()
    if row is None:
        return None
    values = dict(row._mapping)
    values["shape"], values["free"] = shape_of(row.shape), shape_of(row.free)
    values["cordon"] = None if row.cordon is None else json.loads(row.cordon)
    return Worker(**values)


def save(moves: Moves, worker: Worker) -> None:
    values = {"to_" + name: getattr(worker, name) for name in _CHANGING}
    values["to_shape"], values["to_free"] = shape_text(worker.shape), shape_text(worker.free)
    values["to_cordon"] = None if worker.cordon is None else dump(worker.cordon)
    moves.connection.execute(_SAVE, {"worker": worker.id, **values})


def active_jobs(moves: Moves, worker: str) -> dict[tuple[int, int], JobRow]:
    rows = moves.connection.execute(_ACTIVE, {"worker": worker}).all()
    return {(row.id, row.idx): row for row in rows}


def tell(moves: Moves, worker: Worker) -> int:
    """The sequence number of something new for its poll; the poll is woken after the commit."""
    worker.out_seq += 1
    moves.batch.topics.add(worker_topic(worker.id))
    return worker.out_seq


def notify(moves: Moves, worker: Worker, kind: str, rows: Sequence[JobRow], reason: str) -> None:
    """Cancel or recall, kept until its poll has taken it."""
    if not rows:
        return
    seq = tell(moves, worker)
    moves.connection.execute(
        insert(notices),
        [
            {
                "worker": worker.id,
                "seq": seq,
                "kind": kind,
                "id": row.id,
                "idx": row.idx,
                "epoch": row.epoch,
                "reason": reason,
            }
            for row in rows
        ],
    )


# ---------------------------------------------------------------- load


@dataclass(slots=True)
class Load:
    """What stands on a worker now."""

    room: Room
    running: int
    assigned: int


def load_of(moves: Moves, worker: Worker, rows: Sequence[JobRow]) -> Load:
    by_shape: dict[int, int] = {}
    long: dict[int, int] = {}
    running = assigned = unstarted_us = 0
    limits = limits_of(moves.settings)
    for row in rows:
        by_shape[row.shape_id] = by_shape.get(row.shape_id, 0) + 1
        so_far_us = 0
        if row.state == JobState.RUNNING:
            running += 1
            run_us = moves.runtimes.usual_us(row.program)
            so_far_us = (moves.batch.now - (row.started_ms or moves.batch.now)) * 1000
        else:
            assigned += 1
            run_us = moves.runtimes.guess_us(row.program)
        if is_long(run_us, limits, so_far_us):
            long[row.shape_id] = long.get(row.shape_id, 0) + 1
        elif row.state != JobState.RUNNING:
            unstarted_us += run_us or 0
    shape = worker.shape
    if shape.walltime is not None:
        shape = replace(shape, walltime=max(0, shape.walltime - (moves.batch.now - worker.ready_ms)))
    left = None if worker.max_runs is None else max(0, worker.max_runs - worker.runs - running - assigned)
    room = Room(
        shape,
        _without(moves, shape, by_shape),
        serves_of(worker.serves),
        assigned,
        unstarted_us,
        left,
        _without(moves, shape, long),
        closed=bool(shape.machine),  # what waited on it would wait for its neighbours, too
    )
    return Load(room, running, assigned)


def _without(moves: Moves, shape: Shape, by_shape: Mapping[int, int]) -> Shape:
    for number, count in by_shape.items():
        shape = shape.less(moves.book.shape(moves.connection, number), count)
    return shape


@lru_cache
def limits_of(settings: Settings) -> Limits:
    return Limits(
        prefetch_us=settings.prefetch_ms * 1000,
        prefetch_jobs=settings.prefetch_jobs,
        soon_us=settings.soon_ms * 1000,
    )


def settle(moves: Moves, worker: Worker, load: Load) -> None:
    """Put what stands on it into its row. `free` is without the walltime's minute hand, so that workers alike in all
    else share a text."""
    was_idle = worker.idle_since is not None
    worker.running, worker.assigned = load.running, load.assigned
    worker.free = replace(load.room.free, walltime=worker.shape.walltime)
    idle = not worker.busy and worker.state in (WorkerState.READY, WorkerState.DRAINING)
    if idle and not was_idle:
        worker.idle_since = moves.batch.now
        moves.batch.backlog_changed = True
    elif not idle and worker.idle_since is not None:
        worker.idle_ms += moves.batch.now - worker.idle_since
        worker.idle_since = None
    hungry = worker.accepts and has_room(worker.free) and (load.room.left is None or load.room.left > 0)
    worker.hungry = int(hungry)
    moves.batch.hungry |= hungry
    moves.batch.ahead[worker.id] = load.assigned > 0 and is_overfull(load.room.free)
