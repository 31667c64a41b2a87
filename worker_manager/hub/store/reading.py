"""Jobs as their readers see them: one, many, their output and their worker's view."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Connection, bindparam, func, select, text

from worker.protocol import Assignment, JobState, Polled, WorkerState, format_bytes
from worker_manager.hub.contract import HeldAttempt, JobFilter, LogPiece, LogView, Wire
from worker_manager.hub.refusals import Invalid, NotFound
from worker_manager.hub.states import array_state
from worker_manager.hub.store import kept
from worker_manager.hub.store.agents import admit_call
from worker_manager.hub.store.arrays import STATES, counts_of
from worker_manager.hub.store.choices import Choices
from worker_manager.hub.store.tables import (
    IN_QUEUE_SQL,
    NO_TASK_SQL,
    ON_WORKER_SQL,
    WHOLE,
    arrays,
    attempts,
    dependencies,
    groups,
    jobs,
    log_chunks,
    notices,
    workers,
)
from worker_manager.hub.store.values import job_id, parse_job_id
from worker_manager.hub.store.verdicts import Verdicts

_WIDE = select(jobs, groups.c.key.label("group_key")).outerjoin(groups, groups.c.id == jobs.c.group_id)
_SHOWN = ("exit_code", "signal", "reason", "text", "run_ms", "cpu_ms", "max_rss")
ON_A_WORKER = (JobState.ASSIGNED, JobState.RUNNING)
MOST_SHOWN = 20  # of the jobs that one waits for
_TIMES = ("submitted_ms", "queued_ms", "started_ms", "ended_ms")


# ---------------------------------------------------------------- one job


def job_wire(row: Any, spec: Mapping[str, Any], array: Any, verdicts: Verdicts) -> Wire:
    """Job, as the API names it. `array` is its counters, where it is one."""
    counts = None if array is None else counts_of(array)
    state = row.state
    if counts is not None and state not in JobState.FINAL:
        state = array_state(counts)
    shape = dict(spec.get("shape", {}))
    tags = shape.pop("tags", [])
    shape.pop("walltime", None)
    shape.pop("can", None)
    waits = state in (JobState.QUEUED, JobState.BLOCKED) or (counts is not None and counts.queued > 0)
    return {
        "id": job_id(row.id, row.idx),
        "name": spec.get("name", ""),
        "owner": row.owner,
        "queue": row.queue,
        "priority": row.priority,
        "state": state,
        "command": spec.get("command", []),
        "resources": {"cpus": 1000, **shape},
        "tags": tags,
        "env": spec.get("env", {}),
        "time_limit_ms": spec.get("time_limit_ms"),
        "grace_ms": spec.get("grace_ms"),
        "output_limit": spec.get("output_limit"),
        **spec.get("work", {}),
        "retries": row.retries,
        "attempt": row.epoch,
        "losses": row.losses,
        "cancelling": bool(row.cancelling) and state not in JobState.FINAL,
        "worker": row.worker,
        **{name: getattr(row, name) for name in _SHOWN},
        **{name: getattr(row, name) for name in _TIMES},
        "array": None if counts is None else {"count": array.count, **{s: getattr(array, s) for s in STATES}},
        "unservable": verdicts.unservable(row.group_key) if waits else None,
        "waits": verdicts.waits(row.group_key) if waits else None,
        "waits_for": [],
    }


def get_job(connection: Connection, job: str, verdicts: Verdicts) -> Wire:
    row, spec = _find(connection, job)
    array = _array(connection, row.id) if row.tasks else None
    wire = job_wire(row, spec, array, verdicts)
    _tell_dependencies(connection, [wire])
    if wire["state"] in (JobState.QUEUED, JobState.BLOCKED):
        wire["why"] = verdicts.of_group(row.group_key)
    wire["attempts"] = _attempts(connection, row)
    if "outputs" in wire:
        wire["files"] = kept.totals(connection, row.id, row.idx, row.epoch)
    return wire


def _find(connection: Connection, job: str) -> tuple[Any, Mapping[str, Any]]:
    """Its row and spec; for a task that was never opened, as it would be."""
    number, idx = parse_job_id(job)
    row = connection.execute(_WIDE.where(jobs.c.id == number, jobs.c.idx == idx)).first()
    if row is not None and row.spec is not None:
        return row, json.loads(row.spec)
    array = None if idx == WHOLE else connection.execute(_WIDE.where(jobs.c.id == number, jobs.c.idx == WHOLE)).first()
    if array is None or not array.tasks or idx >= array.tasks:
        raise NotFound(f"there is no job {job}")
    return row or _Unopened(array, idx), json.loads(array.spec)


class _Unopened:
    """A task without a row: waiting with its array, or cancelled with it."""

    def __init__(self, array: Any, idx: int) -> None:
        self._array = array
        self.idx = idx
        self.tasks = None
        self.started_ms = None
        over = bool(array.cancelling) or array.state in JobState.FINAL
        self.state = (
            JobState.CANCELLED if over else JobState.BLOCKED if array.state == JobState.BLOCKED else JobState.QUEUED
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)


def _array(connection: Connection, number: int) -> Any:
    return connection.execute(select(arrays).where(arrays.c.id == number)).one()


def _attempts(connection: Connection, row: Any) -> list[Wire]:
    earlier = connection.execute(
        select(attempts).where(attempts.c.id == row.id, attempts.c.idx == row.idx).order_by(attempts.c.epoch)
    ).all()
    listed = [_attempt_wire(one, one.outcome) for one in earlier]
    if row.worker is not None and (not listed or listed[-1]["epoch"] != row.epoch) and row.epoch:
        listed.append(_attempt_wire(row, row.state))
    return listed


def _attempt_wire(row: Any, outcome: str) -> Wire:
    names = ("epoch", "worker", "assigned_ms", "started_ms", "ended_ms", *_SHOWN)
    return {**{name: getattr(row, name) for name in names}, "outcome": outcome}


def ahead_of(connection: Connection, job: str) -> int | None:
    """How many jobs of its group stand before it; None when it does not wait. Counts at most 100,000."""
    row, _ = _find(connection, job)
    if row.state != JobState.QUEUED or row.group_id is None:
        return None
    before = (
        select(text("1"))
        .select_from(jobs)
        .where(
            jobs.c.group_id == row.group_id,
            IN_QUEUE_SQL,
            (jobs.c.priority > row.priority)
            | (
                (jobs.c.priority == row.priority)
                & ((jobs.c.id < row.id) | ((jobs.c.id == row.id) & (jobs.c.idx < row.idx)))
            ),
        )
        .limit(100_000)
        .subquery()
    )
    return int(connection.execute(select(func.count()).select_from(before)).scalar_one())


# ---------------------------------------------------------------- many jobs


def list_jobs(connection: Connection, wanted: JobFilter, verdicts: Verdicts) -> tuple[list[Wire], str | None]:
    limit = max(1, min(wanted.limit, 1000))
    query = _WIDE.order_by(jobs.c.id.desc(), jobs.c.idx.desc()).limit(limit + 1)
    for condition in _conditions(wanted):
        query = query.where(condition)
    rows = connection.execute(query).all()
    shown = rows[:limit]
    specs = _specs(connection, shown)
    counters = _counters(connection, shown)
    found = [
        job_wire(row, specs[(row.id, row.idx)], counters.get(row.id) if row.tasks else None, verdicts) for row in shown
    ]
    for wire in found:
        for name in ("inputs", "outputs"):  # a thousand lines each: only one job at a time tells them
            wire.pop(name, None)
    _tell_dependencies(connection, found)
    after = f"{shown[-1].id}.{shown[-1].idx}" if len(rows) > limit else None
    return found, after


def _tell_dependencies(connection: Connection, found: Sequence[Wire]) -> None:
    """What has ended is not waited for any more, and its row is gone."""
    blocked: dict[int, list[Wire]] = {}
    for wire in found:
        if wire["state"] == JobState.BLOCKED:
            blocked.setdefault(parse_job_id(wire["id"])[0], []).append(wire)
    if not blocked:
        return
    asked = select(dependencies.c.job_id, dependencies.c.on_id).where(dependencies.c.job_id.in_(list(blocked)))
    for row in connection.execute(asked.order_by(dependencies.c.on_id)):
        for wire in blocked[row.job_id]:
            if len(wire["waits_for"]) < MOST_SHOWN:
                wire["waits_for"].append(job_id(row.on_id, WHOLE))


def _conditions(wanted: JobFilter) -> list[Any]:
    conditions: list[Any] = []
    if wanted.array is not None:
        conditions += [jobs.c.id == parse_job_id(wanted.array)[0], jobs.c.idx != WHOLE]
    elif wanted.worker is None:
        conditions.append(NO_TASK_SQL)
    for name in ("owner", "queue", "name", "worker"):
        if getattr(wanted, name) is not None:
            conditions.append(jobs.c[name] == getattr(wanted, name))
    if wanted.state is not None:
        conditions.append(_in_state(wanted.state))
        if wanted.worker is not None and wanted.state in (JobState.ASSIGNED, JobState.RUNNING):
            conditions.append(ON_WORKER_SQL)
    if wanted.cursor is not None:
        number, idx = _cursor(wanted.cursor)
        conditions.append((jobs.c.id < number) | ((jobs.c.id == number) & (jobs.c.idx < idx)))
    return conditions


def _in_state(state: str) -> Any:
    """An array whose tasks wait counts as running once one of them has been given out."""
    if state not in JobState.ALL:
        raise Invalid(f"{state!r} is no state of a job: {', '.join(JobState.ALL)}", errors=[("state", "unknown")])
    return jobs.c.state == state


def _cursor(cursor: str) -> tuple[int, int]:
    number, _, idx = cursor.partition(".")
    try:
        return int(number), int(idx)
    except ValueError:
        raise Invalid("this cursor was not given by this hub", errors=[("cursor", "unreadable")]) from None


def _specs(connection: Connection, rows: Sequence[Any]) -> dict[tuple[int, int], Mapping[str, Any]]:
    shared = {row.id for row in rows if row.spec is None}
    of_array: dict[int, Any] = {}
    if shared:
        found = connection.execute(select(jobs.c.id, jobs.c.spec).where(jobs.c.id.in_(shared), jobs.c.idx == WHOLE))
        of_array = {row.id: json.loads(row.spec) for row in found}
    return {(row.id, row.idx): of_array[row.id] if row.spec is None else json.loads(row.spec) for row in rows}


def _counters(connection: Connection, rows: Sequence[Any]) -> dict[int, Any]:
    wanted = [row.id for row in rows if row.tasks]
    if not wanted:
        return {}
    return {row.id: row for row in connection.execute(select(arrays).where(arrays.c.id.in_(wanted)))}


# ---------------------------------------------------------------- output


def log_view(connection: Connection, job: str, attempt: int | None, offset: int, limit: int) -> LogView:
    row, _ = _find(connection, job)
    epoch = row.epoch if attempt is None else attempt
    if attempt is None and row.state in (JobState.QUEUED, JobState.ASSIGNED) and epoch > 1:
        epoch = max(1, epoch - (row.state == JobState.ASSIGNED))
    mine = (log_chunks.c.id == row.id, log_chunks.c.idx == row.idx, log_chunks.c.epoch == epoch)
    found = connection.execute(
        select(log_chunks)
        .where(*mine, log_chunks.c.offset + log_chunks.c.length > offset)
        .order_by(log_chunks.c.offset)
        .limit(limit)
    ).all()
    size = connection.execute(select(func.max(log_chunks.c.offset + log_chunks.c.length)).where(*mine)).scalar()
    over = row.state in JobState.FINAL or epoch < row.epoch
    name = job_id(row.id, row.idx)
    pieces = tuple(LogPiece(name, epoch, p.offset, p.length, p.segment, p.segment_offset) for p in found)
    return LogView(name, epoch, pieces, int(size or 0), over)


# ---------------------------------------------------------------- a worker's poll

_POLLED = select(
    workers.c.state,
    workers.c.credential,
    workers.c.session,
    workers.c.out_seq,
    workers.c.cordon,
    workers.c.cordon_generation,
    workers.c.stop,
).where(workers.c.id == bindparam("worker"))
_NEWS = (
    select(jobs.c.id, jobs.c.idx, jobs.c.epoch, jobs.c.owner, jobs.c.spec)
    .where(
        jobs.c.worker == bindparam("worker"),
        ON_WORKER_SQL,
        jobs.c.state == JobState.ASSIGNED,
        jobs.c.send_seq > bindparam("ack"),
    )
    .order_by(jobs.c.send_seq, jobs.c.id, jobs.c.idx)
)
_NOTICES = (
    select(notices.c.kind, notices.c.id, notices.c.idx, notices.c.epoch, notices.c.reason)
    .where(notices.c.worker == bindparam("worker"), notices.c.seq > bindparam("ack"))
    .order_by(notices.c.seq)
)


def admit_worker(connection: Connection, worker: str, credential: str) -> None:
    row = connection.execute(_POLLED, {"worker": worker}).first()
    admit_call(worker, row.state if row else None, row.credential if row else "", credential, 0, 0)


def held_attempt(
    connection: Connection, worker: str, credential: str, session: int, job: str, epoch: int
) -> HeldAttempt:
    row = connection.execute(_POLLED, {"worker": worker}).first()
    if row is None:
        admit_call(worker, None, "", credential, 0, session)
    else:
        admit_call(worker, row.state, row.credential, credential, row.session, session)
    return kept.held(connection, worker, job, epoch)


def poll(connection: Connection, worker: str, credential: str, session: int, ack: int) -> Polled:
    row = connection.execute(_POLLED, {"worker": worker}).first()
    admit_call(
        worker,
        row.state if row else None,
        row.credential if row else "",
        credential,
        row.session if row else 0,
        session,
    )
    assert row is not None  # noqa: S101 - admit_call has refused None; this tells the type checker
    polled: Polled = {
        "seq": row.out_seq,
        "assign": [],
        "cancel": [],
        "recall": [],
        "drain": None,
        "stop": bool(row.stop),
    }
    if row.cordon is not None:
        cordon = json.loads(row.cordon)
        polled["drain"] = {
            "reason": cordon["reason"],
            "deadline_ms": cordon["deadline_ms"],
            "cordon": row.cordon_generation,
        }
    if row.out_seq > ack and row.state != WorkerState.LOST:
        asked = {"worker": worker, "ack": ack}
        polled["assign"] = _assignments(connection, connection.execute(_NEWS, asked).all())
        for notice in connection.execute(_NOTICES, asked):
            word = {"job": job_id(notice.id, notice.idx), "epoch": notice.epoch}
            if notice.kind == "cancel":
                polled["cancel"].append({**word, "reason": notice.reason})
            else:
                polled["recall"].append(word)
    return polled


def _assignments(connection: Connection, rows: Sequence[Any]) -> list[Assignment]:
    specs = _specs(connection, rows)
    return [
        cast(
            Assignment,
            {
                **specs[(row.id, row.idx)],
                "job": job_id(row.id, row.idx),
                "epoch": row.epoch,
                "owner": row.owner,
                "array_index": None if row.idx == WHOLE else row.idx,
            },
        )
        for row in rows
    ]


def explain_job(connection: Connection, job: str, verdicts: Verdicts, choices: Choices) -> Wire:
    row, spec = _find(connection, job)
    array = _array(connection, row.id) if row.tasks else None
    wire = job_wire(row, spec, array, verdicts)
    _tell_dependencies(connection, [wire])
    listed = verdicts.of_group(row.group_key) if wire["state"] in (JobState.QUEUED, JobState.BLOCKED) else []
    chosen = choices.explain(row.id, row.idx, row.epoch) if wire["state"] in ON_A_WORKER else None
    return {
        "job": wire["id"],
        "state": wire["state"],
        "group": row.group_key,
        "text": _sentence(wire, listed) + (f", which held {format_bytes(chosen.held)} of its inputs" if chosen else ""),
        "held_bytes": chosen.held if chosen else None,
        "verdicts": listed,
        "ahead": ahead_of(connection, job),
    }


def _sentence(wire: Wire, verdicts: Sequence[Wire]) -> str:
    state = wire["state"]
    if state == JobState.BLOCKED:
        return "waits for " + (", ".join(wire["waits_for"]) or "the jobs that it depends on")
    if state == JobState.QUEUED:
        if wire["unservable"]:
            return f"no pool can ever run it: {wire['unservable'].get('text', '')}"
        if not verdicts:
            return "waits; no manager has said anything about it yet"
        best = wire["waits"] or verdicts[0]
        return f"waits; {best.get('pool')}: {(best.get('reason') or {}).get('text', '')}"
    if state in ON_A_WORKER:
        return f"{'is being ended' if wire['cancelling'] else state} on {wire['worker'] or 'workers'}"
    return f"{state}{': ' + wire['text'] if wire['text'] else ''}"
