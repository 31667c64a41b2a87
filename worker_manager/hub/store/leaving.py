"""Idle workers of which no manager takes care: theirs is silent, or has not their pool any more.

A manager drains its idle workers itself. Where there is none, a worker that is idle for as long as it was started to be
(`idle_exit_ms`) may go, down to the minimum that its manager published last: nobody pays for what nobody watches.
A manager that comes back meanwhile may call it back, as if it had drained it itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select

from worker.protocol import WorkerState, format_duration
from worker_manager.hub.store.fleet import load, save
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.operating import set_cordon
from worker_manager.hub.store.tables import HERE_SQL, managers, workers

_IDLE = (
    select(workers.c.id, workers.c.pool, workers.c.manager)
    .where(
        HERE_SQL,
        workers.c.state == WorkerState.READY,
        workers.c.manager != "",
        workers.c.idle_since + workers.c.idle_exit_ms <= bindparam("now"),
    )
    .order_by(workers.c.idle_since)
)
_READY = (
    select(workers.c.pool, func.count())
    .where(HERE_SQL, workers.c.state == WorkerState.READY, workers.c.manager == bindparam("of"))
    .group_by(workers.c.pool)
)
_REPORTS = select(managers).where(managers.c.name.in_(bindparam("names", expanding=True)))


@dataclass(frozen=True, slots=True)
class _Word:
    """What a manager said last."""

    is_silent: bool
    pools: Mapping[str, Mapping[str, Any]]

    def takes_care_of(self, pool: str, now: int) -> bool:
        frozen = (self.pools.get(pool) or {}).get("frozen") or {}
        return int(frozen.get("until_ms") or 0) > now or (not self.is_silent and pool in self.pools)

    def minimum(self, pool: str) -> int:
        return int((self.pools.get(pool) or {}).get("min_workers") or 0)


def let_idle_go(moves: Moves, booted_ms: int) -> None:
    """A hub that has begun a moment ago gives managers the time to speak."""
    now = moves.batch.now
    if now - booted_ms < moves.settings.silent_manager_ms:
        return
    idle = moves.connection.execute(_IDLE, {"now": now}).all()
    words = _words(moves, sorted({row.manager for row in idle}))
    unwatched = [row for row in idle if not words[row.manager].takes_care_of(row.pool, now)]
    for manager in sorted({row.manager for row in unwatched}):
        ready = {pool: int(count) for pool, count in moves.connection.execute(_READY, {"of": manager})}
        for row in unwatched:
            least = words[manager].minimum(row.pool)
            if row.manager == manager and ready[row.pool] > least:
                _let_go(moves, row.id, least, ready[row.pool])
                ready[row.pool] -= 1


def _words(moves: Moves, names: Sequence[str]) -> dict[str, _Word]:
    words = {name: _Word(True, {}) for name in names}
    since = moves.batch.now - moves.settings.silent_manager_ms
    for row in moves.connection.execute(_REPORTS, {"names": list(names)}) if names else ():
        pools = {str(pool.get("pool")): pool for pool in json.loads(row.report).get("pools", ())}
        words[row.name] = _Word(row.seen_ms < since, pools)
    return words


def _let_go(moves: Moves, name: str, least: int, here: int) -> None:
    worker = load(moves, name)
    if worker is None or worker.idle_since is None:
        return
    idle, limit = moves.batch.now - worker.idle_since, worker.idle_exit_ms
    numbers = {"idle_ms": idle, "limit_ms": limit, "wanted": least, "have": here}
    text = f"idle for {format_duration(idle)}, and no manager takes care of it: {least} wanted, {here} here"
    set_cordon(moves, worker, {"code": "idle", "numbers": numbers, "text": text}, None, worker.manager)
    save(moves, worker)
