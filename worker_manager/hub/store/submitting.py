"""Submitting and cancelling jobs."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from worker.protocol import JobState, WorkerState
from worker_manager.hub.contract import Dependency, NewJob, Wire
from worker_manager.hub.refusals import Forbidden, IdempotencyMismatch, Invalid, NotFound, Refusal
from worker_manager.hub.runtimes import program_of
from worker_manager.hub.store.fleet import load, notify, save
from worker_manager.hub.store.inputs import Known, check_jobs_of_inputs, refer_blobs, with_numbers
from worker_manager.hub.store.meta import take_numbers
from worker_manager.hub.store.moves import COLUMNS, ONE, JobRow, Moves
from worker_manager.hub.store.tables import (
    IN_QUEUE,
    IN_QUEUE_SQL,
    NOWHERE,
    ON_WORKER_SQL,
    WHOLE,
    arrays,
    dependencies,
    idempotency,
    jobs,
)
from worker_manager.hub.store.values import dump, job_id, parse_job_id

_REMEMBERED = select(idempotency.c.request_sha256, idempotency.c.answer).where(
    idempotency.c.owner == bindparam("of_owner"), idempotency.c.key == bindparam("of_key")
)
_STATES = select(jobs.c.id, jobs.c.state, jobs.c.owner, jobs.c.tasks).where(
    jobs.c.id.in_(bindparam("wanted", expanding=True)), jobs.c.idx == WHOLE
)
_WATCH = update(jobs).where(jobs.c.id == bindparam("job"), jobs.c.idx == WHOLE).values(watched=1)
_TASKS_WAITING = select(*COLUMNS).where(jobs.c.id == bindparam("id"), jobs.c.idx != WHOLE, IN_QUEUE_SQL)
_TASKS_ACTIVE = select(*COLUMNS).where(jobs.c.id == bindparam("id"), jobs.c.idx != WHOLE, ON_WORKER_SQL)
_UNOPENED = select(arrays.c.count - arrays.c.next_idx).where(arrays.c.id == bindparam("array"))
_CANCELLING = update(jobs).where(jobs.c.id == bindparam("job"), jobs.c.idx == bindparam("task")).values(cancelling=1)


def submit(moves: Moves, owner: str, new: Sequence[NewJob], key: str | None, request_sha256: str) -> list[Wire]:
    if key is not None and (answer := _remembered(moves, owner, key, request_sha256)) is not None:
        return answer
    first = take_numbers(moves.connection, "next_job", len(new))
    blockers = _dependencies(moves, owner, new, first)
    rows = [_row(moves, owner, job, first, first + i, blockers.get(first + i, 0)) for i, job in enumerate(new)]
    moves.connection.execute(insert(jobs), rows)
    _open_arrays(moves, new, first, blockers)
    _watch(moves, blockers.watched)
    refer_blobs(moves, owner, new, first)
    if blockers.rows:
        moves.connection.execute(insert(dependencies), blockers.rows)
    for number, text in blockers.refused.items():
        _refuse(moves, number, text)
    moves.event("jobs.submitted", job_id(first), owner=owner, jobs=len(new), last=job_id(first + len(new) - 1))
    moves.flush()
    answer = [{"id": job_id(first + i), "count": job.array or 1} for i, job in enumerate(new)]
    if key is not None:
        moves.connection.execute(
            insert(idempotency),
            {
                "owner": owner,
                "key": key,
                "request_sha256": request_sha256,
                "answer": dump(answer),
                "created_ms": moves.batch.now,
            },
        )
    return answer


def _remembered(moves: Moves, owner: str, key: str, request_sha256: str) -> list[Wire] | None:
    row = moves.connection.execute(_REMEMBERED, {"of_owner": owner, "of_key": key}).first()
    if row is None:
        return None
    if row.request_sha256 != request_sha256:
        raise IdempotencyMismatch("this idempotency key was used for another request: take a new one")
    answer: list[Wire] = json.loads(row.answer)
    return answer


class Blockers(dict[int, int]):
    """Job number → how many jobs it waits for; and what must be written for that."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.watched: set[int] = set()
        self.refused: dict[int, str] = {}  # jobs that need what has failed already


def _dependencies(moves: Moves, owner: str, new: Sequence[NewJob], first: int) -> Blockers:
    blockers = Blockers()
    wanted: dict[int, dict[int, str]] = {}
    for i, job in enumerate(new):
        for n, dependency in enumerate(job.depends_on):
            on = _resolved(dependency, i, n, first)
            needs = wanted.setdefault(i, {})
            needs[on] = "success" if "success" in (needs.get(on), dependency.needs) else "end"
    earlier = sorted({on for needs in wanted.values() for on in needs if on < first})
    states: dict[int, tuple[str, str, int | None]] = {}
    for start in range(0, len(earlier), 500):
        found = moves.connection.execute(_STATES, {"wanted": earlier[start : start + 500]})
        states.update({row.id: (row.state, row.owner, row.tasks) for row in found})
    check_jobs_of_inputs(owner, new, first, states)
    for i, needs in wanted.items():
        for on, need in needs.items():
            _depend(blockers, first + i, i, on, need, states, first)
    return blockers


def _resolved(dependency: Dependency, i: int, n: int, first: int) -> int:
    where = f"jobs[{i}].{dependency.where or f'depends_on[{n}].job'}"
    text = dependency.job
    if text.startswith("#"):
        if not (text[1:].isascii() and text[1:].isdigit()) or int(text[1:]) >= i:
            raise Invalid(
                f"{where}: {text!r} must name an earlier job of the same request",
                errors=[(where, "not an earlier job")],
            )
        return first + int(text[1:])
    try:
        number, idx = parse_job_id(text)
    except NotFound as error:
        raise Invalid(f"{where}: {error.detail}", errors=[(where, "no such job")]) from None
    if idx != WHOLE:
        raise Invalid(
            f"{where}: {text} is a task; a job may wait for the whole array {job_id(number)}",
            errors=[(where, "a task of an array")],
        )
    if number >= first:
        raise Invalid(f"{where}: there is no job {text}", errors=[(where, "no such job")])
    return number


def _depend(
    blockers: Blockers,
    number: int,
    i: int,
    on: int,
    needs: str,
    states: Known,
    first: int,
) -> None:
    if on < first:
        if on not in states:
            where = f"jobs[{i}].depends_on"
            raise Invalid(f"{where}: there is no job {job_id(on)}", errors=[(where, "no such job")])
        state = states[on][0]
        if state in JobState.FINAL:
            if needs == "success" and state != JobState.SUCCEEDED:
                blockers.refused[number] = f"{job_id(on)}, which it needs, ended as {state}"
                blockers[number] = blockers.get(number, 0) + 1
            return
    blockers[number] = blockers.get(number, 0) + 1
    blockers.rows.append({"on_id": on, "job_id": number, "needs": needs})
    blockers.watched.add(on)


def _row(moves: Moves, owner: str, job: NewJob, first: int, number: int, blockers: int) -> dict[str, Any]:
    tasks = job.array or 1
    state = JobState.BLOCKED if blockers else JobState.QUEUED
    group = None
    if not blockers:
        group = moves.groups.of(owner, job.queue, job.priority, job.shape)
        moves.groups.delta(group).queued += tasks
    moves.tally(state, tasks)
    spec = {
        "name": job.name,
        "command": list(job.command),
        "env": dict(job.env),
        "shape": job.shape.to_wire(),
        "time_limit_ms": job.shape.walltime,
        "grace_ms": job.grace_ms,
        "output_limit": job.output_limit,
        **({"work": dict(with_numbers(job.work, first))} if job.work else {}),
    }
    return {
        "id": number,
        "idx": WHOLE,
        "owner": owner,
        "name": job.name,
        "queue": job.queue,
        "priority": job.priority,
        "state": state,
        "place": NOWHERE if blockers else IN_QUEUE,
        "group_id": group,
        "shape_id": moves.book.id_of(moves.connection, job.shape),
        "program": program_of(owner, job.name, job.command),
        "spec": dump(spec),
        "tasks": job.array,
        "retries": job.retries,
        "tries": 0,
        "losses": 0,
        "cancelling": 0,
        "watched": 0,
        "blockers": blockers,
        "epoch": 0,
        "submitted_ms": moves.batch.now,
        "queued_ms": None if blockers else moves.batch.now,
    }


def _open_arrays(moves: Moves, new: Sequence[NewJob], first: int, blockers: Blockers) -> None:
    rows = [
        {
            "id": first + i,
            "count": job.array,
            "next_idx": 0,
            **dict.fromkeys(JobState.ALL, 0),
            JobState.BLOCKED if blockers.get(first + i) else JobState.QUEUED: job.array,
        }
        for i, job in enumerate(new)
        if job.array
    ]
    if rows:
        moves.connection.execute(insert(arrays), rows)


def _watch(moves: Moves, watched: set[int]) -> None:
    if watched:
        moves.connection.execute(_WATCH, [{"job": number} for number in sorted(watched)])


def _refuse(moves: Moves, number: int, text: str) -> None:
    row = moves.connection.execute(ONE, {"id": number, "idx": WHOLE}).one()
    if row.tasks:
        moves.cancel_array(row, row.tasks, JobState.BLOCKED, "dependency-failed", text)
    else:
        moves.cancel_waiting(row, "dependency-failed", text)


# ---------------------------------------------------------------- cancelling


def cancel(moves: Moves, job: str, owner: str | None, by: str) -> bool:
    """True when something changed. Raises NotFound, Forbidden."""
    number, idx = parse_job_id(job)
    row = moves.connection.execute(ONE, {"id": number, "idx": idx}).first()
    if row is None:
        row = _open_cancelled_task(moves, job, number, idx, owner)
    if owner is not None and row.owner != owner:
        raise Forbidden(f"{job} belongs to another owner")
    if row.state in JobState.FINAL or row.cancelling:
        return False
    text = f"cancelled by {by}"
    if row.tasks:
        _cancel_array(moves, row, text)
    elif row.worker is not None and row.state in (JobState.ASSIGNED, JobState.RUNNING):
        _tell_workers(moves, [row])
    else:
        moves.cancel_waiting(row, "cancelled", text)
    moves.event("job.cancel", job, by=by)
    moves.flush()
    return True


def cancel_many(moves: Moves, names: Sequence[str], owner: str | None, by: str) -> list[Wire]:
    """One that is refused, which it is before anything of it has changed, does not stop the others."""
    answers: list[Wire] = []
    for name in names:
        try:
            cancel(moves, name, owner, by)
        except Refusal as refused:
            answers.append({"id": name, "code": refused.code, "detail": refused.detail})
        else:
            number, idx = parse_job_id(name)
            row = moves.connection.execute(ONE, {"id": number, "idx": idx}).one()
            answers.append({"id": name, "state": row.state})
    return answers


def _cancel_array(moves: Moves, row: JobRow, text: str) -> None:
    state = JobState.BLOCKED if row.state == JobState.BLOCKED else JobState.QUEUED
    unopened = moves.connection.execute(_UNOPENED, {"array": row.id}).scalar_one()
    moves.cancel_array(row, unopened, state, "cancelled", text)
    for task in moves.connection.execute(_TASKS_WAITING, {"id": row.id}).all():
        moves.cancel_waiting(task, "cancelled", text)
    _tell_workers(moves, moves.connection.execute(_TASKS_ACTIVE, {"id": row.id}).all())


def _tell_workers(moves: Moves, rows: Sequence[JobRow]) -> None:
    if not rows:
        return
    moves.connection.execute(_CANCELLING, [{"job": row.id, "task": row.idx} for row in rows])
    for name in sorted({row.worker for row in rows}):
        worker = load(moves, name)
        if worker is not None and worker.state != WorkerState.GONE:
            notify(moves, worker, "cancel", [row for row in rows if row.worker == name], "cancelled")
            save(moves, worker)


def _open_cancelled_task(moves: Moves, job: str, number: int, idx: int, owner: str | None) -> JobRow:
    """A task without a row yet: its array is opened up to it, so that it can be cancelled by itself."""
    array = moves.connection.execute(ONE, {"id": number, "idx": WHOLE}).first()
    if idx == WHOLE or array is None or not array.tasks or idx >= array.tasks:
        raise NotFound(f"there is no job {job}")
    if owner is not None and array.owner != owner:
        raise Forbidden(f"{job} belongs to another owner")
    if array.state == JobState.BLOCKED:
        raise Invalid(f"{job} waits for a dependency with its whole array: cancel {job_id(number)}")
    if idx - (first := moves.connection.execute(_NEXT, {"array": number}).scalar_one()) > 10_000:
        raise Invalid(f"{job} is too far down its array to be cancelled by itself: cancel {job_id(number)}")
    _open_queued(moves, array, first, idx + 1)
    return moves.connection.execute(ONE, {"id": number, "idx": idx}).one()


_NEXT = select(arrays.c.next_idx).where(arrays.c.id == bindparam("array"))


def _open_queued(moves: Moves, array: JobRow, first: int, last: int) -> None:
    full = moves.connection.execute(select(jobs).where(jobs.c.id == array.id, jobs.c.idx == WHOLE)).one()
    template = {**full._mapping, "spec": None, "tasks": None, "watched": 0, "state": JobState.QUEUED, "place": IN_QUEUE}
    moves.connection.execute(insert(jobs), [{**template, "idx": task} for task in range(first, last)])
    moves.connection.execute(update(arrays).where(arrays.c.id == array.id).values(next_idx=last))
    if last == array.tasks:
        moves.connection.execute(
            update(jobs).where(jobs.c.id == array.id, jobs.c.idx == WHOLE).values(place=NOWHERE, state=JobState.RUNNING)
        )
