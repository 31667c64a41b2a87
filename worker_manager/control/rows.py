"""The ledger's rows as the policy's values, and as they go over the wire."""

from functools import lru_cache
from json import loads
from typing import Any

from sqlalchemy import Connection, Row, select

from worker.protocol import Shape
from worker_manager.control import schema
from worker_manager.policy.facts import IntentFact, Memory, PoolMemory
from worker_manager.policy.model import Failure, History, Note

FAILURES_KEPT_MS = 3 * 3_600_000
FAILURES_KEPT = 100


def memory_of(connection: Connection, now: int) -> Memory:
    intents = schema.intents
    opened = connection.execute(select(intents).where(intents.c.closed_at.is_(None)).order_by(intents.c.id))
    rows = connection.execute(select(schema.notes).order_by(schema.notes.c.pool, schema.notes.c.owner))
    notes = tuple(Note(row.pool, row.owner, row.version, loads(row.value)) for row in rows)
    return Memory(tuple(_intent(row) for row in opened), _pools(connection, now), notes)


def _pools(connection: Connection, now: int) -> dict[str, PoolMemory]:
    failed = schema.failures
    recent = select(failed).where(failed.c.at > now - FAILURES_KEPT_MS).order_by(failed.c.at, failed.c.id)
    failures: dict[str, list[Failure]] = {}
    for row in connection.execute(recent):
        failures.setdefault(row.pool, []).append(Failure(row.at, row.kind, row.text, row.retry_after_ms))
    known = {row.pool: row for row in connection.execute(select(schema.pools))}
    return {
        name: _pool(known.get(name), tuple(failures.get(name, ())[-FAILURES_KEPT:])) for name in {*known, *failures}
    }


def _pool(row: Row[Any] | None, failures: tuple[Failure, ...]) -> PoolMemory:
    if row is None:
        return PoolMemory(History(failures=failures))
    starts = tuple(loads(row.starts))
    history = History(row.last_launch_at, row.last_drain_at, row.last_success_at, failures, starts)
    return PoolMemory(history, row.frozen_until, row.freeze_text)


def _intent(row: Row[Any]) -> IntentFact:
    return IntentFact(
        id=row.id,
        pool=row.pool,
        state=row.state,
        shape=_shape(row.shape),
        requested_at=row.requested_at,
        call_deadline=row.call_deadline,
        submitted_at=row.submitted_at,
        handle=row.handle,
        seen_listed_at=row.seen_listed_at,
        missed_listings=row.missed_listings,
        registered_at=row.registered_at,
        end_asked_at=row.end_asked_at,
        force_asked_at=row.force_asked_at,
        config=row.config,
    )


@lru_cache(maxsize=1024)
def _shape(text: str) -> Shape:
    return Shape.from_wire(loads(text))


def decision_of(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "at_ms": row.at,
        "pool": row.pool,
        "action": row.action,
        "subject": row.subject,
        "reason": loads(row.reason),
        "limited": loads(row.limited),
        "outcome": row.outcome,
        "text": row.text,
    }
