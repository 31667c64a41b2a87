"""What operators and managers do: cordon, drain, delete, freeze, declare gone; commands and tokens."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, text, update

from worker.protocol import LARGEST, WorkerState
from worker_manager.hub.contract import CordonOrder, Wire, manager_topic
from worker_manager.hub.refusals import Conflict, Invalid, NotFound
from worker_manager.hub.states import WorkerEvent, worker_step
from worker_manager.hub.store.agents import bury_worker
from worker_manager.hub.store.filling import fill
from worker_manager.hub.store.fleet import Worker, active_jobs, limits_of, load, load_of, save, settle, tell
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.tables import OVERTAKEN_SQL, commands, intents, managers, tokens, workers
from worker_manager.hub.store.values import dump

COMMAND_MS = 600_000
LOGS_MS = 120_000  # who asks for a worker's output waits for it
LOGS_KEPT = 65_536
TEXT_KEPT = 2_000
DRAIN_MS = 3_600_000
DECISIONS_KEPT = 100  # of each manager, for `explain`; all of them are events as well
SCOPES = ("read", "submit", "worker", "manager", "operator")


# ---------------------------------------------------------------- cordons


def cordon(moves: Moves, manager: str, orders: Sequence[CordonOrder]) -> dict[str, int | None]:
    return {order.worker: _cordon_one(moves, manager, order) for order in orders}


def _cordon_one(moves: Moves, manager: str, order: CordonOrder) -> int | None:
    worker = load(moves, order.worker)
    if worker is None or worker.state == WorkerState.GONE or worker.manager not in ("", manager):
        return None
    if order.only_if_idle and worker.busy:
        return None
    if worker.cordon is None:
        set_cordon(moves, worker, dict(order.reason), order.deadline_ms, manager)
        save(moves, worker)
    elif not order.only_if_idle and order.deadline_ms < (worker.cordon.get("deadline_ms") or LARGEST):
        _bring_forward(moves, worker, order, manager)
        save(moves, worker)
    return worker.cordon_generation


def set_cordon(moves: Moves, worker: Worker, reason: Wire, deadline_ms: int | None, by: str) -> None:
    worker.cordon = {"reason": reason, "deadline_ms": deadline_ms, "by": by}
    worker.cordon_generation += 1
    worker.state = worker_step(worker.state, WorkerEvent.CORDON)
    worker.hungry = 0
    tell(moves, worker)
    moves.event("worker.draining", worker.id, by=by, reason=reason, deadline_ms=deadline_ms)
    moves.batch.backlog_changed = True


def _bring_forward(moves: Moves, worker: Worker, order: CordonOrder, by: str) -> None:
    """It drains already, and has less time than it was given. The cordon stays the one that it is: an operator's stays
    an operator's, and what was ordered under it still holds."""
    before = worker.cordon or {}
    reason = dict(order.reason) if before.get("by") == by else before.get("reason")
    worker.cordon = {**before, "reason": reason, "deadline_ms": order.deadline_ms}
    tell(moves, worker)
    moves.event("worker.draining", worker.id, by=by, reason=dict(order.reason), deadline_ms=order.deadline_ms)
    moves.batch.backlog_changed = True


def uncordon(moves: Moves, manager: str, names: Sequence[str]) -> list[str]:
    """Those that accept jobs again. What an operator or the agent itself drains stays so."""
    again = []
    for name in names:
        worker = load(moves, name)
        if worker is None or worker.manager not in ("", manager):
            continue
        if worker.cordon is not None and worker.cordon.get("by") == manager and not worker.stop:
            lift_cordon(moves, worker, manager)
        if worker.accepts:
            again.append(name)
    return again


def lift_cordon(moves: Moves, worker: Worker, by: str) -> None:
    worker.cordon = None
    worker.cordon_generation += 1
    worker.state = worker_step(worker.state, WorkerEvent.UNCORDON)
    tell(moves, worker)
    moves.event("worker.undrained", worker.id, by=by)
    moves.batch.backlog_changed = True
    there = load_of(moves, worker, list(active_jobs(moves, worker.id).values()))
    fill(moves, worker, there, limits_of(moves.settings))
    settle(moves, worker, there)
    save(moves, worker)
    moves.flush()


# ---------------------------------------------------------------- an operator's


def _present(moves: Moves, name: str) -> Worker:
    worker = load(moves, name)
    if worker is None:
        raise NotFound(f"there is no worker {name}")
    return worker


def operator_reason(by: str, text: str) -> Wire:
    return {"code": "operator", "numbers": {"by": by, "text": text}, "text": f"{by}: {text}" if text else by}


def drain(moves: Moves, name: str, by: str, text: str, deadline_ms: int | None) -> None:
    worker = _present(moves, name)
    if worker.state == WorkerState.GONE:
        raise Conflict(f"{name} is gone", code="worker-gone")
    own = worker.cordon is not None and worker.cordon.get("by") == "agent"
    if not own:
        deadline = deadline_ms if deadline_ms is not None else moves.batch.now + DRAIN_MS
        set_cordon(moves, worker, operator_reason(by, text or "drain"), deadline, f"operator:{by}")
        save(moves, worker)


def undrain(moves: Moves, name: str, by: str) -> None:
    worker = _present(moves, name)
    if worker.state == WorkerState.GONE or worker.stop:
        raise Conflict(f"{name} is gone or told to stop", code="worker-gone")
    if worker.cordon is None:
        return
    if worker.cordon.get("by") == "agent":
        raise Conflict(f"{name} drains because it was told to on its own machine", code="agent-drains")
    lift_cordon(moves, worker, by)


def delete_worker(moves: Moves, name: str, force: bool, grace_ms: int, by: str) -> str | None:
    """The id of the command for its manager, if it has one."""
    worker = _present(moves, name)
    if worker.state == WorkerState.GONE:
        return None
    if worker.busy and not force:
        raise Conflict(
            f"{name} has {worker.running + worker.assigned} jobs: drain it, or use force", code="worker-busy"
        )
    if worker.cordon is None:
        set_cordon(moves, worker, operator_reason(by, "delete"), moves.batch.now + grace_ms, f"operator:{by}")
    worker.stop = 1
    tell(moves, worker)
    moves.event("worker.deleted", name, by=by, force=force, grace_ms=grace_ms)
    if force:
        bury_worker(moves, worker, WorkerEvent.DIE, f"deleted by {by}", active_jobs(moves, name))
        settle(moves, worker, load_of(moves, worker, []))
    save(moves, worker)
    moves.flush()
    if not worker.manager:
        return None
    return command(
        moves,
        worker.manager,
        worker.pool,
        "end-worker",
        by,
        target=name,
        generation=worker.cordon_generation,
        options={"force": force, "grace_ms": grace_ms},
        expires_ms=moves.batch.now + COMMAND_MS + grace_ms,
    )


def ask_logs(moves: Moves, name: str, max_bytes: int, by: str) -> str:
    """The id of the command that has its manager read what the worker wrote, through its backend."""
    row = moves.connection.execute(
        select(intents.c.manager, intents.c.pool).where(intents.c.worker == name, intents.c.pool != "")
    ).first()
    row = row or moves.connection.execute(select(workers.c.manager, workers.c.pool).where(workers.c.id == name)).first()
    if row is None:
        raise NotFound(f"there is no worker {name}")
    if not row.manager:
        raise Conflict(f"{name} was started by hand: its output is where that was", code="no-manager")
    expires = moves.batch.now + LOGS_MS
    options = {"max_bytes": max_bytes}
    return command(moves, row.manager, row.pool, "worker-logs", by, target=name, options=options, expires_ms=expires)


def declare_gone(moves: Moves, manager: str, names: Sequence[str], reason: str) -> None:
    for name in names:
        worker = load(moves, name)
        if worker is None or worker.state == WorkerState.GONE or worker.manager not in ("", manager):
            continue
        bury_worker(moves, worker, WorkerEvent.DIE, reason, active_jobs(moves, name))
        settle(moves, worker, load_of(moves, worker, []))
        save(moves, worker)
    moves.flush()


# ---------------------------------------------------------------- commands


def command(
    moves: Moves,
    manager: str,
    pool: str,
    kind: str,
    by: str,
    *,
    target: str = "",
    generation: int | None = None,
    options: Mapping[str, Any],
    expires_ms: int,
) -> str:
    name = f"c{secrets.token_hex(8)}"
    moves.connection.execute(
        insert(commands),
        {
            "id": name,
            "manager": manager,
            "pool": pool,
            "kind": kind,
            "target": target,
            "generation": generation,
            "options": dump(dict(options)),
            "by": by,
            "state": "pending",
            "result": "null",
            "created_ms": moves.batch.now,
            "expires_ms": expires_ms,
        },
    )
    moves.event("command.asked", name, manager=manager, pool=pool, kind=kind, target=target, by=by)
    moves.batch.topics.add(manager_topic(manager))
    return name


def freeze(moves: Moves, pool: str, kind: str, options: Mapping[str, Any], by: str, manager: str | None) -> list[str]:
    """One command for each manager that publishes such a pool."""
    named = [name for name, pools in published_pools(moves) if pool in pools and manager in (None, name)]
    if not named:
        raise NotFound(f"no manager has a pool {pool!r}" + (f" named {manager!r}" if manager else ""))
    until = options.get("until_ms") or moves.batch.now + COMMAND_MS
    return [command(moves, name, pool, kind, by, options=options, expires_ms=until) for name in named]


def published_pools(moves: Moves) -> list[tuple[str, set[str]]]:
    rows = moves.connection.execute(select(managers.c.name, managers.c.report).order_by(managers.c.name)).all()
    return [(row.name, {p.get("pool", "") for p in json.loads(row.report).get("pools", ())}) for row in rows]


def publish(moves: Moves, manager: str, report: Mapping[str, Any]) -> None:
    """What is not in the report stays as it was told before."""
    before = moves.connection.execute(select(managers.c.report).where(managers.c.name == manager)).scalar()
    told = json.loads(before) if before is not None else {}
    known = told.get("decisions", [])
    kept = {name: report[name] if name in report else told.get(name, []) for name in ("pools", "verdicts")}
    decisions = _not_told_before(report.get("decisions") or [], known)
    kept["decisions"] = [*known, *decisions][-DECISIONS_KEPT:]
    values = {"report": dump(kept), "seen_ms": moves.batch.now}
    if before is None:
        moves.connection.execute(insert(managers), {"name": manager, **values})
    else:
        moves.connection.execute(update(managers).where(managers.c.name == manager).values(**values))
    for result in report.get("results") or ():
        _record_result(moves, manager, result)
    for decision in decisions:
        if isinstance(decision, Mapping):
            moves.event("decision", str(decision.get("pool", ""))[:64], manager=manager, decision=dict(decision))


def _not_told_before(decisions: Sequence[Any], known: Sequence[Any]) -> Sequence[Any]:
    """A manager tells its decisions in order, and again when it did not hear that they came."""
    last = known[-1] if known else None
    return decisions[decisions.index(last) + 1 :] if last in decisions else decisions


_RESULT = (
    update(commands)
    .where(
        commands.c.id == bindparam("of"), commands.c.manager == bindparam("from_manager"), commands.c.state == "pending"
    )
    .values(state=bindparam("to_state"), result=bindparam("to_result"))
)


def _record_result(moves: Moves, manager: str, result: Mapping[str, Any]) -> None:
    name, ok, text = str(result.get("command", "")), bool(result.get("ok")), str(result.get("text", ""))
    if len(text) > TEXT_KEPT:
        kind = moves.connection.execute(select(commands.c.kind).where(commands.c.id == name)).scalar()
        text = text[:LOGS_KEPT] if kind == "worker-logs" else text[:TEXT_KEPT]
    done = moves.connection.execute(
        _RESULT,
        {
            "of": name,
            "from_manager": manager,
            "to_state": "done" if ok else "failed",
            "to_result": dump({"ok": ok, "text": text}),
        },
    )
    if done.rowcount:
        moves.event("command.done" if ok else "command.failed", name, manager=manager, text=text[:TEXT_KEPT])


_OVERTAKEN = (
    select(commands.c.id)
    .join(workers, workers.c.id == commands.c.target)
    .where(text("commands.state = 'pending'"), commands.c.kind == "end-worker", OVERTAKEN_SQL)
)


def refuse_overtaken(moves: Moves) -> None:
    """Ends of workers that were cordoned anew, or freed, after the order."""
    for name in moves.connection.execute(_OVERTAKEN).scalars().all():
        result = {"ok": False, "text": "refused: the worker was freed, or cordoned anew, after this was asked"}
        moves.connection.execute(
            update(commands).where(commands.c.id == name).values(state="failed", result=dump(result))
        )
        moves.event("command.failed", name, text=result["text"])


def expire_commands(moves: Moves) -> int:
    due = (
        moves.connection.execute(
            select(commands.c.id).where(commands.c.state == "pending", commands.c.expires_ms <= moves.batch.now)
        )
        .scalars()
        .all()
    )
    for name in due:
        moves.connection.execute(update(commands).where(commands.c.id == name).values(state="expired"))
        moves.event("command.expired", name)
    return len(due)


# ---------------------------------------------------------------- tokens


def create_token(
    moves: Moves, token_sha256: str, owner: str, scopes: Sequence[str], expires_ms: int | None, by: str
) -> Wire:
    wrong = sorted(set(scopes) - set(SCOPES))
    if wrong or not scopes:
        raise Invalid(f"a token's scopes are some of {', '.join(SCOPES)}" + (f", not {wrong[0]!r}" if wrong else ""))
    there = moves.connection.execute(select(tokens).where(tokens.c.sha256 == token_sha256)).first()
    if there is None:
        if moves.connection.execute(select(intents.c.worker).where(intents.c.token_sha256 == token_sha256)).first():
            raise Conflict("this is a join token")
        name = f"t{secrets.token_hex(6)}"
        moves.connection.execute(
            insert(tokens),
            {
                "id": name,
                "sha256": token_sha256,
                "owner": owner,
                "scopes": dump(sorted(set(scopes))),
                "expires_ms": expires_ms,
                "created_ms": moves.batch.now,
                "created_by": by,
            },
        )
        moves.event("token.created", name, owner=owner, scopes=sorted(set(scopes)), by=by)
        there = moves.connection.execute(select(tokens).where(tokens.c.id == name)).one()
    return token_wire(there)


def token_wire(row: Any) -> Wire:
    return {
        "id": row.id,
        "owner": row.owner,
        "scopes": json.loads(row.scopes),
        "expires_ms": row.expires_ms,
        "created_ms": row.created_ms,
        "created_by": row.created_by,
    }


def delete_token(moves: Moves, name: str, by: str) -> None:
    if not moves.connection.execute(delete(tokens).where(tokens.c.id == name)).rowcount:
        raise NotFound(f"there is no token {name}")
    moves.event("token.deleted", name, by=by)
