"""Everything else that is read: workers, pools, commands, events, the backlog, the summary."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, text

from worker.protocol import JobState, WorkerState
from worker_manager.hub.contract import Wire
from worker_manager.hub.refusals import Invalid, NotFound
from worker_manager.hub.store.launching import covered_by_others
from worker_manager.hub.store.meta import read_number
from worker_manager.hub.store.tables import (
    HERE_SQL,
    ON_WORKER_SQL,
    OVERTAKEN_SQL,
    attempts,
    commands,
    events,
    groups,
    jobs,
    managers,
    tallies,
    workers,
)
from worker_manager.hub.store.values import job_id

GONE_SHOWN_MS = 3_600_000  # a manager still sees a worker for so long after it has gone

# ---------------------------------------------------------------- workers


def get_worker(connection: Connection, name: str) -> Wire:
    row = connection.execute(select(workers).where(workers.c.id == name)).first()
    if row is None:
        coming = next((one for one in awaited(connection) if one["id"] == name), None)
        if coming is None:
            raise NotFound(f"there is no worker {name}")
        return coming
    wire = worker_wire(row)
    active = select(jobs.c.id, jobs.c.idx).where(jobs.c.worker == name, ON_WORKER_SQL).order_by(jobs.c.assigned_ms)
    wire["jobs"] = [job_id(one.id, one.idx) for one in connection.execute(active)]
    return wire


def list_workers(
    connection: Connection, pools: Sequence[str] | None, gone: bool, now: int, manager: str | None = None
) -> list[Wire]:
    query = select(workers).order_by(workers.c.pool, workers.c.ready_ms, workers.c.id)
    if pools is not None:
        query = query.where(workers.c.pool.in_(list(pools)))
    if manager is not None:
        query = query.where(workers.c.manager.in_((manager, "")))
        query = query.where((workers.c.state != WorkerState.GONE) | (workers.c.gone_ms > now - GONE_SHOWN_MS))
    elif not gone:
        query = query.where(HERE_SQL, workers.c.state != WorkerState.GONE)
    return [worker_wire(row) for row in connection.execute(query).all()]


def worker_wire(row: Any) -> Wire:
    cordon = None
    if row.cordon is not None:
        held = json.loads(row.cordon)
        cordon = {
            "generation": row.cordon_generation,
            "reason": held["reason"],
            "deadline_ms": held["deadline_ms"],
            "by": held.get("by"),
        }
    return {
        "id": row.id,
        "pool": row.pool,
        "manager": row.manager,
        "owner": row.owner,
        "state": row.state,
        "shape": json.loads(row.shape),
        "free": _not_below_zero(json.loads(row.free)),
        "running": row.running,
        "assigned": row.assigned,
        "runs": row.runs,
        "max_runs": row.max_runs,
        "jobs": [],
        "ready_ms": row.ready_ms,
        "seen_ms": row.seen_ms,
        "gone_ms": row.gone_ms,
        "idle_since_ms": row.idle_since,
        "cordon": cordon,
        "host": json.loads(row.host),
        "config": row.config,
    }


def _not_below_zero(shape: Wire) -> Wire:
    """Prefetched jobs wait for room; what is free is nothing then."""
    for name in ("cpus", "memory", "gpus", "disk"):
        if shape.get(name, 0) < 0:
            shape[name] = 0
    if "custom" in shape:
        shape["custom"] = {name: max(0, count) for name, count in shape["custom"].items()}
    return shape


def awaited(connection: Connection) -> list[Wire]:
    """Workers that were launched and have not registered, as their managers last told of them."""
    told = [
        {
            "id": one.get("worker"),
            "pool": pool.get("pool"),
            "manager": pool["manager"],
            "state": one.get("state"),
            "requested_ms": one.get("since"),
            "refusal": one.get("refusal"),
            "text": one.get("text"),
        }
        for pool in list_pools(connection)
        for one in pool.get("awaited") or ()
        if isinstance(one, dict)
    ]
    names = [one["id"] for one in told]
    here = set(connection.execute(select(workers.c.id).where(workers.c.id.in_(names))).scalars()) if names else ()
    return [one for one in told if one["id"] not in here]


# ---------------------------------------------------------------- the backlog

_GROUPS = (
    select(
        groups.c.key,
        groups.c.asks,
        (groups.c.queued + groups.c.unstarted).label("count"),
        groups.c.oldest,
        groups.c.touched_ms,
        groups.c.owner,
        groups.c.queue,
        groups.c.priority,
        groups.c.run_us,
        groups.c.running,
    )
    .where(groups.c.queued + groups.c.unstarted > 0)
    .order_by(groups.c.id)
)


def backlog(connection: Connection, manager: str | None, now: int) -> Wire:
    version = read_number(connection, "backlog_version")
    others = {} if manager is None else covered_by_others(connection, manager)
    listed = []
    for key, asks, count, oldest, touched, owner, queue, priority, run_us, running in connection.execute(_GROUPS).all():
        left = count - others.get(key, 0)
        if left > 0:
            listed.append(
                {
                    "key": key,
                    "asks": _asks(asks),
                    "count": left,
                    "oldest_ms": touched if oldest is None else oldest,
                    "owner": owner,
                    "queue": queue,
                    "priority": priority,
                    "run_ms": None if run_us is None else -(-run_us // 1000),
                    "running": running,
                }
            )
    return {"version": version, "now_ms": now, "groups": listed}


@lru_cache(maxsize=65_536)
def _asks(text: str) -> Wire:
    """Shared between answers: nobody changes what leaves here."""
    wire: Wire = json.loads(text)
    return wire


def pending_commands(connection: Connection, manager: str, now: int) -> list[Wire]:
    """Not those whose target is not as it was when they were asked: the next sweep refuses them."""
    overtaken = select(workers.c.id).where(workers.c.id == commands.c.target, OVERTAKEN_SQL).exists()
    query = (
        select(commands)
        .where(commands.c.manager == manager, text("commands.state = 'pending'"), commands.c.expires_ms > now)
        .where(~overtaken)
        .order_by(commands.c.created_ms, commands.c.id)
    )
    return [command_wire(row) for row in connection.execute(query)]


def command_wire(row: Any) -> Wire:
    return {
        "id": row.id,
        "manager": row.manager,
        "pool": row.pool,
        "kind": row.kind,
        "target": row.target,
        "generation": row.generation,
        "options": json.loads(row.options),
        "by": row.by,
        "state": row.state,
        "result": json.loads(row.result),
        "created_ms": row.created_ms,
        "expires_ms": row.expires_ms,
        "expires_at": row.expires_ms,
    }


def get_command(connection: Connection, name: str) -> Wire:
    row = connection.execute(select(commands).where(commands.c.id == name)).first()
    if row is None:
        raise NotFound(f"there is no command {name}")
    return command_wire(row)


# ---------------------------------------------------------------- pools


def list_pools(connection: Connection) -> list[Wire]:
    listed = []
    for row in connection.execute(select(managers).order_by(managers.c.name)):
        for pool in json.loads(row.report).get("pools", ()):
            listed.append({"frozen": None, **pool, "manager": row.name, "seen_ms": row.seen_ms})
    return listed


def explain_pool(connection: Connection, name: str) -> list[Wire]:
    listed = []
    for row in connection.execute(select(managers).order_by(managers.c.name)):
        report = json.loads(row.report)
        for pool in report.get("pools", ()):
            if pool.get("pool") == name:
                listed.append(
                    {
                        "frozen": None,
                        **pool,
                        "manager": row.name,
                        "seen_ms": row.seen_ms,
                        "verdicts": [v for v in report.get("verdicts", ()) if v.get("pool") == name],
                        "decisions": [d for d in report.get("decisions", ()) if d.get("pool") in (None, name)],
                    }
                )
    if not listed:
        raise NotFound(f"no manager has published a pool {name!r}")
    return listed


# ---------------------------------------------------------------- events


def list_events(
    connection: Connection, after: str | None, kind: str | None, subject: str | None, limit: int
) -> tuple[list[Wire], str]:
    newest = int(connection.execute(select(func.coalesce(func.max(events.c.seq), 0))).scalar_one())
    if after == "now":
        return [], str(newest)
    limit = max(1, min(limit, 1000))
    query = select(events).limit(limit)
    if kind is not None:
        query = query.where(events.c.kind == kind)
    if subject is not None:
        query = query.where(events.c.subject == subject)
    if after == "last":
        rows = connection.execute(query.where(events.c.seq <= newest).order_by(events.c.seq.desc())).all()
        return [_event_wire(row) for row in reversed(rows)], str(newest)
    since = _event_cursor(after)
    rows = connection.execute(query.where(events.c.seq > since).order_by(events.c.seq)).all()
    found = [_event_wire(row) for row in rows]
    # With a filter, what was passed over need not be looked at again.
    last = found[-1]["seq"] if len(found) == limit else max(newest, since)
    return found, str(last)


def _event_wire(row: Any) -> Wire:
    return {
        "seq": row.seq,
        "at_ms": row.at_ms,
        "kind": row.kind,
        "subject": row.subject,
        "data": json.loads(row.data),
    }


def _event_cursor(after: str | None) -> int:
    if after is None:
        return 0
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise Invalid("this cursor was not given by this hub", errors=[("after", "unreadable")])
    return int(after)


# ---------------------------------------------------------------- figures


def info(connection: Connection, now: int) -> Wire:
    counted = {row.state: row.count for row in connection.execute(select(tallies))}
    of_workers = connection.execute(select(workers.c.state, func.count()).group_by(workers.c.state)).all()
    return {
        "generation": read_number(connection, "generation"),
        "version": read_number(connection, "backlog_version"),
        "jobs": {state: counted.get(state, 0) for state in JobState.ALL},
        "workers": {state: count for state, count in of_workers},  # noqa: C416 - rows are not pairs to the type checker
        "now_ms": now,
    }


def summary(connection: Connection, since_ms: int | None, now: int) -> Wire:
    since = since_ms or 0
    counted = {row.state: row.count for row in connection.execute(select(tallies))}
    ended = (jobs.c.ended_ms.is_not(None), jobs.c.ended_ms >= since, jobs.c.tasks.is_(None))
    started = (*ended, jobs.c.started_ms.is_not(None), jobs.c.queued_ms.is_not(None))
    wait = jobs.c.started_ms - jobs.c.queued_ms
    first_started, first_submitted = connection.execute(
        select(func.min(jobs.c.started_ms), func.min(jobs.c.submitted_ms)).where(*started)
    ).one()
    return {
        "since_ms": since_ms,
        "now_ms": now,
        "jobs": {state: counted.get(state, 0) for state in JobState.ALL},
        "ended": connection.execute(select(func.count()).select_from(jobs).where(*ended)).scalar_one(),
        "wait_ms": _quantiles(connection, wait, started),
        "run_ms": _quantiles(connection, jobs.c.run_ms, (*ended, jobs.c.run_ms.is_not(None))),
        "first_submitted_ms": first_submitted,
        "first_started_ms": first_started,
        "requeued": connection.execute(
            select(func.count()).select_from(attempts).where(attempts.c.ended_ms >= since)
        ).scalar_one(),
        "workers": _worker_seconds(connection, since, now),
    }


def _quantiles(connection: Connection, value: Any, conditions: Sequence[Any]) -> Wire:
    count = int(connection.execute(select(func.count()).select_from(jobs).where(*conditions)).scalar_one())
    if not count:
        return {"p50": None, "p95": None, "max": None}
    query = select(value).where(*conditions).order_by(value).limit(1).offset(bindparam("at"))
    return {
        name: connection.execute(query, {"at": min(count - 1, count * part // 100)}).scalar_one()
        for name, part in (("p50", 50), ("p95", 95), ("max", 100))
    }


def _worker_seconds(connection: Connection, since: int, now: int) -> Wire:
    """A worker's time is wasted while it has nothing to do at all. The idle time of one that was ready before `since`
    is counted in proportion."""
    life_ms = idle_ms = count = 0
    query = select(
        workers.c.ready_ms,
        workers.c.gone_ms,
        workers.c.seen_ms,
        workers.c.state,
        workers.c.idle_ms,
        workers.c.idle_since,
    )
    for row in connection.execute(query.where(func.coalesce(workers.c.gone_ms, now) >= since)):
        end = row.gone_ms if row.gone_ms is not None else row.seen_ms if row.state == WorkerState.LOST else now
        life = max(0, end - row.ready_ms)
        idle = min(life, row.idle_ms + (max(0, end - row.idle_since) if row.idle_since is not None else 0))
        within = max(0, end - max(since, row.ready_ms))
        count += 1
        life_ms += within
        idle_ms += idle * within // life if life else 0
    return {"count": count, "worker_ms": life_ms, "used_ms": life_ms - idle_ms, "wasted_ms": idle_ms}
