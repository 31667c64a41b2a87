"""Giving jobs to workers: what `match` decides, read from and written to the tables.

It happens where room appears or jobs do: in the report that frees a slot, in the registration, and at the end of every
commit that put something into the queue.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from worker.protocol import JobState
from worker_manager.hub.keeping import Kept
from worker_manager.hub.match import Candidate, Limits, Look, Room, Waiting, in_order, look, passed_by, tag_sets, take
from worker_manager.hub.store.fleet import Load, Worker, active_jobs, load, load_of, save, settle, tell
from worker_manager.hub.store.many import execute_many
from worker_manager.hub.store.moves import JobRow, Moves
from worker_manager.hub.store.neighbours import beside
from worker_manager.hub.store.preferring import hungry_holders, offer
from worker_manager.hub.store.queue import queue_head
from worker_manager.hub.store.tables import (
    HUNGRY_SQL,
    IN_QUEUE,
    NOWHERE,
    ON_WORKER,
    QUEUED_SQL,
    WHOLE,
    arrays,
    groups,
    jobs,
    workers,
)
from worker_manager.hub.store.values import dump, shape_of

PAGES = (16, 64, 256, 1024, 4096, 16_384)  # groups looked at together: the first few nearly always suffice
MISSES = 4  # workers with the same free room that took nothing, before the others like them are not asked

_CANDIDATES = (
    select(
        groups.c.id,
        groups.c.asks,
        groups.c.floor,
        groups.c.queued,
        groups.c.priority,
        groups.c.oldest,
        groups.c.owner,
        groups.c.queue,
    )
    .where(
        QUEUED_SQL,
        groups.c.floor_cpus <= bindparam("cpus"),
        groups.c.floor_memory <= bindparam("memory"),
        groups.c.floor_gpus <= bindparam("gpus"),
        groups.c.floor_disk <= bindparam("disk"),
    )
    .order_by(groups.c.priority.desc(), groups.c.oldest, groups.c.id)
    .limit(bindparam("page"))
    .offset(bindparam("skip"))
)
_CANDIDATES_TAGGED = _CANDIDATES.where(groups.c.tags.in_(bindparam("sets", expanding=True)))
_ASSIGN = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.idx == bindparam("task"))
    .values(
        state=JobState.ASSIGNED,
        place=ON_WORKER,
        epoch=jobs.c.epoch + 1,
        worker=bindparam("to_worker"),
        send_seq=bindparam("to_seq"),
        assigned_ms=bindparam("now"),
    )
)
_OPEN = insert(jobs)
_OPENED = update(arrays).where(arrays.c.id == bindparam("array")).values(next_idx=bindparam("to_next"))
_PARENT = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), jobs.c.idx == WHOLE)
    .values(
        state=JobState.RUNNING,
        place=bindparam("to_place"),
        started_ms=func.coalesce(jobs.c.started_ms, bindparam("now")),
    )
)


def fill(moves: Moves, worker: Worker, load: Load, limits: Limits) -> int:
    """Give it what it can take. Returns how many jobs. The caller settles and saves the worker.

    While this commit has jobs that other workers with free room may not have seen, nothing is prefetched: it is first
    shared among all at the commit's end, and who was cut short here is fed again after that.
    """
    if not worker.accepts:
        return 0
    others = beside(moves, worker)
    if others is None:
        return _fill(moves, worker, load, limits, moves.kept.get(worker.id))
    load.room = replace(load.room, free=load.room.free.less(others.promised))
    given = _fill(moves, worker, load, limits, moves.kept.get(worker.id) or others.kept(moves.kept))
    load.room = replace(load.room, free=load.room.free.plus(others.promised))
    return given


def _fill(moves: Moves, worker: Worker, load: Load, limits: Limits, kept: Kept | None) -> int:
    moves.groups.flush()
    if limits.prefetch_jobs and moves.batch.unshared:
        moves.batch.cut_short.add(worker.id)
        limits = replace(limits, prefetch_jobs=0)
    given = skip = 0
    for page in PAGES:
        candidates = _candidates(moves, load.room, limits, page, skip)
        for candidate in in_order(candidates):
            if kept is not None and not kept.lets(candidate):
                return given
            number = _offer(moves, worker, load, candidate, limits)
            load.room = passed_by(load.room, candidate, number)
            given += number
            skip += number < candidate.waiting  # an exhausted group is not on the next page's way any more
        if len(candidates) < page or _full(load.room, limits):
            break
    return given


def _offer(moves: Moves, worker: Worker, load: Load, candidate: Candidate, limits: Limits) -> int:
    """How many of this group it took."""
    wanted = look(load.room, candidate, limits)
    number = 0 if wanted is None else _give(moves, worker, load, candidate, wanted, limits)
    head_us = moves.runtimes.head_us(candidate.group)
    if number and candidate.run_us is None and head_us is not None:  # the first look taught how long they run
        rest = replace(candidate, waiting=candidate.waiting - number, run_us=head_us)
        number += _offer(moves, worker, load, rest, limits)
    return number


def _full(room: Room, limits: Limits) -> bool:
    if room.left == 0:
        return True
    return room.free.cpus <= 0 and (room.closed or room.unstarted >= limits.prefetch_jobs)


def _candidates(moves: Moves, room: Room, limits: Limits, page: int, skip: int) -> list[Candidate]:
    within = room.shape if limits.prefetch_jobs else room.free
    query: dict[str, Any] = {
        "cpus": within.cpus,
        "memory": within.memory,
        "gpus": within.gpus,
        "disk": within.disk,
        "page": page,
        "skip": skip,
    }
    sets = tag_sets(room.shape.tags, room.shape.exclusive)
    if sets is None:
        rows = moves.connection.execute(_CANDIDATES, query).all()
    else:
        rows = moves.connection.execute(_CANDIDATES_TAGGED, {**query, "sets": [dump(tags) for tags in sets]}).all()
    return [
        Candidate(
            group=row.id,
            asks=shape_of(row.asks),
            floor=shape_of(row.floor),
            waiting=row.queued,
            priority=row.priority,
            oldest=row.oldest or 0,
            owner=row.owner,
            queue=row.queue,
            run_us=moves.runtimes.head_us(row.id),
        )
        for row in rows
    ]


def _give(moves: Moves, worker: Worker, load: Load, candidate: Candidate, wanted: Look, limits: Limits) -> int:
    offered = offer(moves, worker.id, candidate, wanted.jobs)
    rows = queue_head(moves, candidate.group, wanted.jobs) if offered is None else offered.heads
    jobs_ahead = _as_waiting(moves, [row for row, _ in rows])
    taken, room = take(load.room, jobs_ahead, limits)
    if jobs_ahead:
        moves.runtimes.looked(candidate.group, jobs_ahead[-1].run_us)
    if not taken:
        return 0
    seq = tell(moves, worker)
    if offered is not None:
        offered.took(moves.choices, worker.id, taken)
    chosen = [rows[index] for index in taken]
    _assign_rows(moves, worker, seq, [row for row, task in chosen if task is None])
    _open_tasks(moves, worker, seq, [(row, task) for row, task in chosen if task is not None])
    load.room = room
    load.assigned += len(taken)
    delta = moves.groups.delta(candidate.group)
    delta.queued -= len(taken)
    delta.unstarted += len(taken)
    moves.tally(JobState.QUEUED, -len(taken))
    moves.tally(JobState.ASSIGNED, len(taken))
    moves.groups.flush()
    return len(taken)


def _as_waiting(moves: Moves, rows: Sequence[JobRow]) -> list[Waiting]:
    """Equal ones are one object, which `take` sees at a glance."""
    known: dict[tuple[int, int | None], Waiting] = {}
    found = []
    for row in rows:
        alike = (row.shape_id, row.program)
        job = known.get(alike)
        if job is None:
            shape = moves.book.shape(moves.connection, row.shape_id)
            job = known[alike] = Waiting(shape, moves.runtimes.guess_us(row.program))
        found.append(job)
    return found


def _assign_rows(moves: Moves, worker: Worker, seq: int, rows: Sequence[JobRow]) -> None:
    if not rows:
        return
    now = moves.batch.now
    execute_many(
        moves.connection,
        _ASSIGN,
        [{"job": r.id, "task": r.idx, "to_worker": worker.id, "to_seq": seq, "now": now} for r in rows],
    )
    for row in rows:
        if row.idx != WHOLE:
            moves.arrays.move(row.id, JobState.QUEUED, JobState.ASSIGNED, 1)


def _open_tasks(moves: Moves, worker: Worker, seq: int, opened: Sequence[tuple[JobRow, int]]) -> None:
    if not opened:
        return
    now = moves.batch.now
    whole = {row.id: row for row, _ in opened}
    alike = {number: _first_of(row, worker, seq, now) for number, row in whole.items()}
    execute_many(moves.connection, _OPEN, [{**alike[row.id], "idx": task} for row, task in opened])
    latest: dict[int, tuple[JobRow, int]] = {}
    for row, task in opened:
        latest[row.id] = (row, task + 1)
        moves.arrays.move(row.id, JobState.QUEUED, JobState.ASSIGNED, 1)
    moves.connection.execute(_OPENED, [{"array": n, "to_next": after} for n, (_, after) in latest.items()])
    moves.connection.execute(
        _PARENT,
        [
            {"job": n, "to_place": IN_QUEUE if after < row.tasks else NOWHERE, "now": now}
            for n, (row, after) in latest.items()
        ],
    )


def _first_of(row: JobRow, worker: Worker, seq: int, now: int) -> dict[str, Any]:
    """The row of a task on its way to this worker, for all tasks of an array but for their number."""
    return {
        "id": row.id,
        "idx": 0,
        "owner": row.owner,
        "name": "",
        "queue": row.queue,
        "priority": row.priority,
        "state": JobState.ASSIGNED,
        "place": ON_WORKER,
        "group_id": row.group_id,
        "shape_id": row.shape_id,
        "program": row.program,
        "spec": None,
        "tasks": None,
        "retries": row.retries,
        "tries": 0,
        "losses": 0,
        "cancelling": 0,
        "watched": 0,
        "blockers": 0,
        "epoch": 1,
        "worker": worker.id,
        "send_seq": seq,
        "submitted_ms": row.submitted_ms,
        "queued_ms": row.queued_ms,
        "assigned_ms": now,
    }


# ---------------------------------------------------------------- the round after new work

_ANYTHING_WAITS = select(groups.c.id).where(QUEUED_SQL).limit(1)
_CLASSES = select(workers.c.free, workers.c.serves).where(HUNGRY_SQL).group_by(workers.c.free, workers.c.serves)
_OF_CLASS = (
    select(workers.c.id)
    .where(HUNGRY_SQL, workers.c.free == bindparam("of_free"), workers.c.serves == bindparam("of_serves"))
    .order_by((workers.c.running + workers.c.assigned).desc(), workers.c.id)
    .limit(64)
    .offset(bindparam("skip"))
)


def feed_hungry(moves: Moves, limits: Limits, cut_short: Collection[str] = ()) -> int:
    """Jobs came, or room did: fill the free room of every worker that has some, first of those that hold what the first
    jobs need, then the busiest (so that idle ones may go). Only when no free room is left to fill, the workers fed and
    those cut short prefetch, each its share."""
    fed, given = _share(moves, replace(limits, prefetch_jobs=0))
    hungry_no_more = sorted({*fed, *cut_short})
    for done, name in enumerate(hungry_no_more):
        if moves.connection.execute(_ANYTHING_WAITS).first() is None:
            break
        given += feed(moves, name, replace(limits, share=len(hungry_no_more) - done))
    return given


def _share(moves: Moves, within_room: Limits) -> tuple[list[str], int]:
    given = 0
    fed: list[str] = []
    for name in hungry_holders(moves):
        number = feed(moves, name, within_room)
        if number:
            given += number
            fed.append(name)
    for of_free, of_serves in moves.connection.execute(_CLASSES).all():
        misses = 0
        while misses < MISSES:
            query = {"of_free": of_free, "of_serves": of_serves, "skip": misses}
            names = moves.connection.execute(_OF_CLASS, query).scalars().all()
            for name in names:
                number = feed(moves, name, within_room)
                if number:
                    given += number
                    fed.append(name)
                else:
                    misses += 1
                if misses == MISSES:
                    break
            if not names:
                break
    return fed, given


def feed(moves: Moves, name: str, limits: Limits) -> int:
    worker = load(moves, name)
    if worker is None or not worker.accepts:
        return 0
    there = load_of(moves, worker, list(active_jobs(moves, name).values()))
    given = fill(moves, worker, there, limits)
    if given:
        settle(moves, worker, there)
        save(moves, worker)
    return given
