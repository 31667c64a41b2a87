"""Which workers keep their room for jobs that waited long: what `keeping` decides, read from the tables.

Decided anew with every sweep and kept in memory: a restart costs a starving job one sweep.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, select

from worker.protocol import Shape, WorkerState
from worker_manager.hub.contract import Wire
from worker_manager.hub.keeping import MOST, Host, Kept, keep, starving
from worker_manager.hub.match import Candidate
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.tables import HERE_SQL, QUEUED_SQL, groups, workers
from worker_manager.hub.store.values import serves_of, shape_of

LOOKED_AT = 8 * MOST  # starving groups; many of them may be such that no worker here can run them

_STARVING = (
    select(
        groups.c.id,
        groups.c.key,
        groups.c.asks,
        groups.c.floor,
        groups.c.queued,
        groups.c.priority,
        groups.c.oldest,
        groups.c.owner,
        groups.c.queue,
    )
    .where(QUEUED_SQL, groups.c.oldest <= bindparam("before"))
    .order_by(groups.c.priority.desc(), groups.c.oldest, groups.c.id)
    .limit(LOOKED_AT)
)
_HOSTS = select(
    workers.c.id, workers.c.pool, workers.c.shape, workers.c.free, workers.c.serves, workers.c.ready_ms
).where(HERE_SQL, workers.c.state == WorkerState.READY, workers.c.stop == 0)


def reserve(moves: Moves) -> tuple[Mapping[str, Kept], Mapping[str, Wire]]:
    """(worker → what it keeps its room for, group key → the words about it for whoever asks why its jobs wait)."""
    patience = moves.settings.patience_ms
    now = moves.batch.now
    rows = moves.connection.execute(_STARVING, {"before": now - patience}).all() if patience else []
    if not rows:
        return {}, {}
    hosts = [_host(row, now) for row in moves.connection.execute(_HOSTS).all()]
    before = {kept.group: worker for worker, kept in moves.kept.items()}
    kept = keep(starving(map(_candidate, rows), now, patience), hosts, before)
    for worker, for_group in kept.items():
        if before.get(for_group.group) != worker:
            moves.event("worker.keeps-room", worker, waited_ms=now - for_group.oldest, priority=for_group.priority)
    keys = {row.id: row.key for row in rows}
    return kept, {keys[one.group]: _word(one) for one in kept.values()}


def _candidate(row: Any) -> Candidate:
    asks, least = shape_of(row.asks), shape_of(row.floor)
    return Candidate(row.id, asks, least, row.queued, row.priority, row.oldest or 0, row.owner, row.queue)


def _host(row: Any, now: int) -> Host:
    shape: Shape = shape_of(row.shape)
    if shape.walltime is not None:  # in minutes, so that workers of one age stay alike
        shape = replace(shape, walltime=max(0, shape.walltime - (now - row.ready_ms)) // 60_000 * 60_000)
    return Host(row.id, row.pool, shape, shape_of(row.free), serves_of(row.serves))


def _word(kept: Kept) -> Wire:
    text = f"{kept.worker} takes nothing that comes after it until it has room for it"
    reason = {"code": "room-kept", "numbers": {"worker": kept.worker, "since_ms": kept.oldest}, "text": text}
    return {"manager": "hub", "pool": kept.pool, "status": "waiting", "jobs": None, "reason": reason}
