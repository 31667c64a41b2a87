"""What only time changes: leases that end, drains that are overdue, commands that expire, retention."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from worker.protocol import JobState, WorkerState
from worker_manager.hub.contract import Purged, Swept
from worker_manager.hub.states import WorkerEvent
from worker_manager.hub.store import blobs, kept
from worker_manager.hub.store.agents import bury_worker, revive
from worker_manager.hub.store.fleet import active_jobs, load, load_of, save, settle, tell
from worker_manager.hub.store.grouping import forget_old_groups
from worker_manager.hub.store.leaving import let_idle_go
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.operating import expire_commands, refuse_overtaken
from worker_manager.hub.store.tables import (
    HERE_SQL,
    WHOLE,
    arrays,
    attempts,
    dependencies,
    events,
    idempotency,
    intents,
    jobs,
    log_chunks,
    notices,
    segments,
    workers,
)

_SEEN = update(workers).where(workers.c.id == bindparam("worker")).values(seen_ms=bindparam("at"))
_SILENT = select(workers.c.id).where(
    HERE_SQL, workers.c.state.in_((WorkerState.READY, WorkerState.DRAINING)), workers.c.seen_ms < bindparam("before")
)


_OVERDUE = select(workers.c.id, workers.c.cordon).where(
    HERE_SQL, workers.c.state == WorkerState.DRAINING, workers.c.stop == 0, workers.c.cordon.is_not(None)
)
STOP_AFTER_MS = 10_000  # an agent that follows its drain's deadline gives its jobs so long to end


def sweep(moves: Moves, seen: Mapping[str, int], acks: Mapping[str, int], booted_ms: int) -> Swept:
    """`seen` and `acks` are what polls told since the last sweep. After a start every worker has a full lease."""
    if seen:
        moves.connection.execute(_SEEN, [{"worker": name, "at": at} for name, at in seen.items()])
    if acks:
        moves.connection.execute(
            delete(notices).where(notices.c.worker == bindparam("of"), notices.c.seq <= bindparam("ack")),
            [{"of": name, "ack": ack} for name, ack in acks.items()],
        )
    _welcome_back(moves, seen)
    lost = _end_leases(moves, booted_ms)
    _stop_overdue(moves)
    let_idle_go(moves, booted_ms)
    refuse_overtaken(moves)
    expired = expire_commands(moves)
    forget_old_groups(moves.batch)
    moves.flush()
    return Swept(tuple(lost), 0, expired)


def _welcome_back(moves: Moves, seen: Mapping[str, int]) -> None:
    """Lost workers that polled again, before they report."""
    for name in seen:
        worker = load(moves, name)
        if worker is not None and worker.state == WorkerState.LOST:
            revive(moves, worker)
            settle(moves, worker, load_of(moves, worker, []))
            save(moves, worker)
            moves.batch.new_work = True


def _end_leases(moves: Moves, booted_ms: int) -> list[str]:
    now, lease = moves.batch.now, moves.settings.lease_ms
    if now - booted_ms < lease:
        return []
    names = moves.connection.execute(_SILENT, {"before": now - lease}).scalars().all()
    for name in names:
        worker = load(moves, name)
        if worker is None:
            continue
        silent = now - worker.seen_ms
        bury_worker(moves, worker, WorkerEvent.SILENT, f"no sign of life for {silent} ms", active_jobs(moves, name))
        settle(moves, worker, load_of(moves, worker, []))
        save(moves, worker)
    return list(names)


def _stop_overdue(moves: Moves) -> None:
    """The agent knows its drain's deadline and hands its jobs back by then. One that does not is told to stop at once;
    what becomes of one that does not do that either is for its manager to say."""
    for name, cordon in moves.connection.execute(_OVERDUE).all():
        deadline = json.loads(cordon)["deadline_ms"]
        if deadline is None or deadline + STOP_AFTER_MS > moves.batch.now:
            continue
        worker = load(moves, name)
        if worker is not None:
            worker.stop = 1
            tell(moves, worker)
            save(moves, worker)
            moves.event("worker.overdue", name, deadline_ms=deadline, jobs=worker.running + worker.assigned)


# ---------------------------------------------------------------- retention

FILES_LIKE_A_JOB = 20  # so many rows of kept files, with their blobs, take as long to remove as a job
_OLD_JOBS = (
    select(jobs.c.id, jobs.c.tasks, jobs.c.state)
    .where(jobs.c.ended_ms.is_not(None), jobs.c.ended_ms < bindparam("before"), jobs.c.idx == WHOLE)
    .order_by(jobs.c.ended_ms)
    .limit(bindparam("most"))
)


def purge(moves: Moves, limit: int) -> Purged:
    before = moves.batch.now - moves.settings.retention_ms
    whole = moves.connection.execute(_OLD_JOBS, {"before": before, "most": limit}).all()
    removed, more = _purge_jobs(moves, [(row.id, row.tasks, row.state) for row in whole], limit)
    old_events = _purge_older(moves, events.c.seq, events.c.at_ms < before, limit)
    _purge_older(moves, idempotency.c.key, idempotency.c.created_ms < before, limit)
    gone = (workers.c.state == WorkerState.GONE) & (workers.c.gone_ms < before)
    _purge_older(moves, workers.c.id, gone, limit)
    closed = (intents.c.state != "open") & (intents.c.created_ms < before)
    still_there = select(workers.c.id).where(workers.c.id == intents.c.worker).exists()
    _purge_older(moves, intents.c.worker, closed & ~still_there, limit)
    unused = _unused_segments(moves)
    return Purged(removed, old_events, unused, more or old_events >= limit)


def _purge_jobs(moves: Moves, whole: list[tuple[int, int | None, str]], limit: int) -> tuple[int, bool]:
    """Each with its tasks, attempts and logs; of a long array only as many tasks as one step may take."""
    removed, room = 0, limit
    for number, tasks, state in whole:
        if room <= 0:
            return removed, True
        if tasks:
            taken, weight = _remove_rows(moves, number, room)
            removed, room = removed + taken, room - weight
            if _tasks_left(moves, number):
                return removed, True
        room -= _weight(kept.count(moves.connection, number, [WHOLE]).get(WHOLE, 0))
        _forget_attempts(moves, number, [WHOLE])
        _untally(moves, number, tasks, state)
        moves.connection.execute(delete(jobs).where(jobs.c.id == number, jobs.c.idx == WHOLE))
        moves.connection.execute(delete(arrays).where(arrays.c.id == number))
        moves.connection.execute(delete(dependencies).where(dependencies.c.job_id == number))
        removed += 1
    return removed, len(whole) >= limit


def _untally(moves: Moves, number: int, tasks: int | None, state: str) -> None:
    if not tasks:
        moves.tally(state, -1)
        return
    row = moves.connection.execute(select(arrays).where(arrays.c.id == number)).one()
    for of_tasks in JobState.FINAL:
        moves.tally(of_tasks, -getattr(row, of_tasks))


def _weight(files: int) -> int:
    """Of a job's row in one step, with those of what it has kept."""
    return 1 + files // FILES_LIKE_A_JOB


def _remove_rows(moves: Moves, number: int, most: int) -> tuple[int, int]:
    """Tasks of an array, as many as one step may take. How many they were, and their weight."""
    found = (
        moves.connection.execute(select(jobs.c.idx).where(jobs.c.id == number, jobs.c.idx != WHOLE).limit(most))
        .scalars()
        .all()
    )
    taken = weight = 0
    for start in range(0, len(found), 500):
        part = []
        files = kept.count(moves.connection, number, found[start : start + 500])
        for task in found[start : start + 500]:
            if weight < most:
                part.append(task)
                weight += _weight(files.get(task, 0))
        _forget_attempts(moves, number, part)
        moves.connection.execute(delete(jobs).where(jobs.c.id == number, jobs.c.idx.in_(part)))
        taken += len(part)
    return taken, weight


def _tasks_left(moves: Moves, number: int) -> bool:
    return (
        moves.connection.execute(select(jobs.c.idx).where(jobs.c.id == number, jobs.c.idx != WHOLE).limit(1)).first()
        is not None
    )


def _forget_attempts(moves: Moves, number: int, tasks: list[int]) -> None:
    moves.connection.execute(delete(attempts).where(attempts.c.id == number, attempts.c.idx.in_(tasks)))
    blobs.release(moves.connection, moves.batch.now, number, tasks)
    kept.forget(moves.connection, number, tasks)
    mine = (log_chunks.c.id == number, log_chunks.c.idx.in_(tasks))
    counts = moves.connection.execute(
        select(log_chunks.c.segment, func.count()).where(*mine).group_by(log_chunks.c.segment)
    ).all()
    for segment, count in counts:
        moves.connection.execute(
            update(segments).where(segments.c.segment == segment).values(chunks=segments.c.chunks - count)
        )
    if counts:
        moves.connection.execute(delete(log_chunks).where(*mine))


def _purge_older(moves: Moves, key: Any, condition: Any, limit: int) -> int:
    old = select(key).where(condition).limit(limit)
    return int(moves.connection.execute(delete(key.table).where(condition, key.in_(old))).rowcount)


def _unused_segments(moves: Moves) -> tuple[str, ...]:
    """Not the newest ones: they may still be written to."""
    rested = moves.batch.now - min(moves.settings.retention_ms, 3_600_000)
    unused = (
        moves.connection.execute(
            select(segments.c.segment).where(segments.c.chunks <= 0, segments.c.newest_ms < rested).limit(100)
        )
        .scalars()
        .all()
    )
    if unused:
        moves.connection.execute(delete(segments).where(segments.c.segment.in_(unused)))
    return tuple(unused)
