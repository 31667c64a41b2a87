"""Workers' own calls: register and report. Both are safe to repeat."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import bindparam, delete, insert, select, update

from worker.protocol import CacheNews, Outcome, Register, Registered, Report, Reported, Result, Shape, WorkerState
from worker_manager.hub.contract import LogPiece, Settings
from worker_manager.hub.match import Limits, Serves
from worker_manager.hub.preference import INPUTS
from worker_manager.hub.refusals import Conflict, Gone, Invalid, Unauthorized
from worker_manager.hub.states import JobEvent, WorkerEvent, event_of, worker_step
from worker_manager.hub.store import kept
from worker_manager.hub.store.filling import fill
from worker_manager.hub.store.fleet import (
    NAMES,
    Worker,
    active_jobs,
    limits_of,
    load,
    load_of,
    save,
    settle,
    tell,
)
from worker_manager.hub.store.launching import close_coverage
from worker_manager.hub.store.moves import MEASURES, NO_MEASURES, JobRow, Moves
from worker_manager.hub.store.output import index_output
from worker_manager.hub.store.tables import attempts, intents, notices, tokens, workers
from worker_manager.hub.store.values import dump, parse_job_id, serves_text, shape_text

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_INTENT = select(intents).where(intents.c.token_sha256 == bindparam("hash"))
_TOKEN = select(tokens).where(tokens.c.sha256 == bindparam("hash"))


# ---------------------------------------------------------------- register


def register(moves: Moves, message: Register, token_sha256: str) -> Registered:
    refuse_incomplete(message)
    intent = moves.connection.execute(_INTENT, {"hash": token_sha256}).first()
    if intent is not None:
        return register_intent(moves, message, intent)
    token = moves.connection.execute(_TOKEN, {"hash": token_sha256}).first()
    if token is None:
        raise Unauthorized("this join token is unknown", code="token-unknown")
    if token.expires_ms is not None and token.expires_ms <= moves.batch.now:
        raise Unauthorized("this token has expired", code="token-expired")
    if not {"worker", "operator"} & set(json.loads(token.scopes)):
        raise Unauthorized("this token is not for workers", code="token-unknown")
    return _register_by_hand(moves, message, token.owner)


def refuse_incomplete(message: Register) -> None:
    if not message.get("nonce") or not re.fullmatch(r"[0-9a-f]{64}", message.get("credential_sha256", "")):
        raise Invalid("a registration carries a nonce and the SHA-256 of the worker's credential")


def register_intent(moves: Moves, message: Register, intent: Any) -> Registered:
    """The worker of a launch, which has shown that it is this intent's."""
    if intent.state == "buried":
        raise Unauthorized("this worker was given up before it came: its join token is revoked", code="token-revoked")
    named = message.get("worker")
    if named and named != intent.worker and not intent.joins_by:
        raise Conflict(f"this join token is {intent.worker}'s, not {named}'s", code="second-registrant")
    there = load(moves, intent.worker)
    if there is not None:
        return _again(moves, there, message)
    moves.connection.execute(update(intents).where(intents.c.worker == intent.worker).values(state="registered"))
    close_coverage(moves, intent.submission, 1)
    return _admit(moves, message, intent.worker, intent.pool, intent.manager, intent.owner, intent.serves)


def _register_by_hand(moves: Moves, message: Register, owner: str) -> Registered:
    name = message.get("worker") or f"w-{secrets.token_hex(5)}"
    if not LABEL.fullmatch(name):
        raise Invalid(f"{name[:64]!r} is no name for a worker: lowercase letters, digits and dashes, at most 40")
    there = load(moves, name)
    if there is not None and there.state != WorkerState.GONE:
        return _again(moves, there, message)
    if moves.connection.execute(select(intents.c.worker).where(intents.c.worker == name)).first():
        raise Conflict(f"{name} is a manager's worker, not one started by hand", code="second-registrant")
    session = 1
    if there is not None:
        session = there.session + 1
        moves.connection.execute(delete(workers).where(workers.c.id == name))
        moves.connection.execute(delete(notices).where(notices.c.worker == name))
    return _admit(moves, message, name, message.get("pool") or "", "", owner, serves_text(Serves()), session)


def _again(moves: Moves, there: Worker, message: Register) -> Registered:
    """The reply was lost, or this is a second registrant."""
    same = there.nonce == message.get("nonce") and secrets.compare_digest(
        there.credential, message.get("credential_sha256", "")
    )
    if not same:
        raise Conflict(f"{there.id} has registered already from another process: exit", code="second-registrant")
    if there.state == WorkerState.GONE:
        raise Gone(f"{there.id} is gone")
    return _registered(moves, there.id, there.session)


def _admit(
    moves: Moves, message: Register, name: str, pool: str, manager: str, owner: str, serves: str, session: int = 1
) -> Registered:
    now = moves.batch.now
    shape = Shape.from_wire(message.get("shape") or {})
    worker = Worker(
        id=name,
        pool=pool,
        manager=manager,
        owner=owner,
        state=WorkerState.READY,
        shape=shape,
        free=shape,
        serves=serves,
        hungry=0,
        running=0,
        assigned=0,
        runs=0,
        max_runs=message.get("max_runs"),
        session=session,
        nonce=str(message.get("nonce", "")),
        credential=message.get("credential_sha256", ""),
        out_seq=0,
        in_seq=0,
        last_stale="[]",
        stop=0,
        cordon=None,
        cordon_generation=0,
        ready_ms=now,
        seen_ms=now,
        gone_ms=None,
        idle_since=None,
        idle_ms=0,
        idle_exit_ms=message.get("idle_exit_ms"),
        host=dump(message.get("host") or {}),
        config=str(message.get("config", ""))[:128],
    )
    there = load_of(moves, worker, [])
    settle(moves, worker, there)
    values = {field: getattr(worker, field) for field in NAMES}
    moves.connection.execute(
        insert(workers), {**values, "shape": shape_text(shape), "free": shape_text(worker.free), "cordon": None}
    )
    fill(moves, worker, there, limits_of(moves.settings))
    settle(moves, worker, there)
    save(moves, worker)
    moves.event("worker.ready", name, pool=pool, manager=manager)
    moves.batch.backlog_changed = True
    moves.flush()
    return _registered(moves, name, session)


def _registered(moves: Moves, name: str, session: int) -> Registered:
    settings = moves.settings
    return {
        "worker": name,
        "session": session,
        "lease_ms": settings.lease_ms,
        "poll_ms": settings.poll_ms,
        "heartbeat_ms": settings.heartbeat_ms,
        "now_ms": moves.batch.now,
    }


# ---------------------------------------------------------------- who calls


def admit_call(worker: str, state: str | None, credential: str, given: str, session: int, asked: int) -> None:
    """Raises Gone, Unauthorized or Conflict('session-superseded')."""
    if state is None:
        raise Gone(f"there is no worker {worker}")
    if not secrets.compare_digest(credential, given):
        raise Unauthorized(f"this is not the credential of {worker}")
    if state == WorkerState.GONE:
        raise Gone(f"{worker} is gone: its jobs were given to others")
    if asked != session:
        raise Conflict(f"session {asked} of {worker} is over: {session} is current", code="session-superseded")


# ---------------------------------------------------------------- report


def report(moves: Moves, name: str, credential_sha256: str, message: Report, logs: Sequence[LogPiece]) -> Reported:
    worker = load(moves, name)
    admit_call(
        name,
        worker.state if worker else None,
        worker.credential if worker else "",
        credential_sha256,
        worker.session if worker else 0,
        message.get("session", 0),
    )
    assert worker is not None  # noqa: S101 - admit_call has refused None; this tells the type checker
    seq = message.get("seq", 0)
    if seq <= worker.in_seq:
        stale = json.loads(worker.last_stale) if seq == worker.in_seq else []
        return _reported(moves, worker, worker.in_seq, stale)
    worker.seen_ms = moves.batch.now
    revive(moves, worker)
    if message.get("cache"):  # before jobs are given out: the end of one often brings word of what it has fetched
        moves.choices.inventory.learn(name, worker.session, cast(CacheNews, message["cache"]), worker.ready_ms)
    active = active_jobs(moves, name)
    mine = {(row.id, row.idx, row.epoch) for row in active.values()} if logs else set()
    results = message.get("results") or []
    stale = _take_started(moves, active, message.get("started") or [], _told_by_results(results))
    stale += _take_results(moves, worker, active, results)
    moves.write_jobs()
    index_output(moves, name, logs, mine)
    if message.get("shape"):
        worker.shape = _as_when_ready(Shape.from_wire(message["shape"]), moves.batch.now - worker.ready_ms)
    if worker.shape.machine and (results or message.get("started")):
        moves.batch.new_work = True  # its neighbours wait to be told what is left of the machine
    if message.get("draining"):
        _drains_itself(moves, worker, message.get("why") or {})
    if message.get("leaving"):
        bury_worker(moves, worker, WorkerEvent.LEAVE, str(message["leaving"])[:200], active)
        there = load_of(moves, worker, [])
    else:
        there = load_of(moves, worker, list(active.values()))
        fill(moves, worker, there, _limits_after(moves.settings, message))
    settle(moves, worker, there)
    worker.in_seq, worker.last_stale = seq, dump(stale)
    save(moves, worker)
    moves.flush()
    return _reported(moves, worker, seq, stale)


def _reported(moves: Moves, worker: Worker, ack: int, stale: list[list[Any]]) -> Reported:
    answer: Reported = {"ack": ack, "stale": stale, "lease_ms": moves.settings.lease_ms, "now_ms": moves.batch.now}
    if INPUTS in worker.shape.can and moves.choices.inventory.must_ask(worker.id, worker.session):
        answer["tell"] = ["cache"]
    return answer


Active = dict[tuple[int, int], JobRow]


def _current(active: Active, job: Any, epoch: Any) -> JobRow | None:
    try:
        row = active.get(parse_job_id(str(job)))
    except Exception:
        return None
    return row if row is not None and row.epoch == epoch else None


def _by_our_clock(row: JobRow, at: int, now: int) -> int:
    """The worker's clock may be wrong; a start lies between the assignment and now."""
    return max(row.assigned_ms or 0, min(int(at), now))


class Running:
    """A row whose start stands in the same report as its result: the row as it will be."""

    def __init__(self, row: JobRow, started_ms: int) -> None:
        self._row = row
        self.state = "running"
        self.started_ms = started_ms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


def _told_by_results(results: Sequence[Result]) -> set[tuple[Any, Any]]:
    """Attempts that began and ended since the last report: their results tell both at once. Not those handed back,
    because what that costs depends on whether they ran."""
    return {
        (result.get("job"), result.get("epoch"))
        for result in results
        if result.get("started_ms") is not None and result.get("outcome") != Outcome.RETURNED
    }


def _take_started(
    moves: Moves, active: Active, started: Sequence[Sequence[Any]], told_by_results: set[tuple[Any, Any]]
) -> list[list[Any]]:
    stale: list[list[Any]] = []
    for job, epoch, started_ms in started:
        if (job, epoch) in told_by_results:
            continue
        row = _current(active, job, epoch)
        if row is None:
            stale.append([job, epoch])
        elif row.state != "running":
            at = _by_our_clock(row, started_ms, moves.batch.now)
            moves.start(row, at)
            active[(row.id, row.idx)] = Running(row, at)
    return stale


def _take_results(moves: Moves, worker: Worker, active: Active, results: Sequence[Result]) -> list[list[Any]]:
    stale: list[list[Any]] = []
    for result in results:
        row = _current(active, result.get("job"), result.get("epoch"))
        if row is None:
            stale.append([result.get("job"), result.get("epoch")])
            continue
        outcome = str(result.get("outcome"))
        reason = str(result.get("reason") or "")[:64]
        event = event_of(outcome, reason)
        if event is None:
            raise Invalid(f"{outcome[:40]!r} is no outcome")
        measures = {name: result.get(name) for name in MEASURES}
        if result.get("started_ms") is not None:
            measures["started_ms"] = _by_our_clock(row, result["started_ms"], moves.batch.now)
        moves.finish(row, event, measures, reason, str(result.get("text") or "")[:2000])
        del active[(row.id, row.idx)]
        if outcome != Outcome.RETURNED:
            worker.runs += 1
            if result.get("files"):
                kept.keep(moves, row, result["files"])
    return stale


def _as_when_ready(shape: Shape, age_ms: int) -> Shape:
    """Everyone who reads a worker's walltime takes its age off it. What it tells later has its age off already."""
    return shape if shape.walltime is None else replace(shape, walltime=shape.walltime + age_ms)


def _limits_after(settings: Settings, message: Report) -> Limits:
    """A worker that hands jobs back does not prefetch them again in the same breath: others come first."""
    limits = limits_of(settings)
    if any(result.get("outcome") == Outcome.RETURNED for result in message.get("results") or ()):
        return replace(limits, prefetch_jobs=0)
    return limits


def _drains_itself(moves: Moves, worker: Worker, why: Mapping[str, str]) -> None:
    """The agent was told to drain on its own machine: no plan of ours undoes that. Why it does may come later."""
    reason = {"code": why.get("code") or "agent", "text": why.get("text") or "the agent drains"}
    before = worker.cordon or {}
    if before.get("by") == "agent" and (not why or before["reason"] == reason):
        return
    worker.cordon = {"reason": reason, "deadline_ms": None, "by": "agent"}
    worker.cordon_generation += 1
    worker.state = worker_step(worker.state, WorkerEvent.CORDON)
    tell(moves, worker)
    moves.event("worker.draining", worker.id, by="agent", reason=reason)
    moves.batch.backlog_changed = True


def revive(moves: Moves, worker: Worker) -> None:
    """A lost worker speaks again: it starts anew, and is told to kill what was taken from it."""
    if worker.state != WorkerState.LOST:
        return
    worker.state = worker_step(worker.state, WorkerEvent.SEEN, cordoned=worker.cordon is not None)
    taken = moves.connection.execute(
        select(attempts.c.id, attempts.c.idx, attempts.c.epoch).where(
            attempts.c.worker == worker.id, attempts.c.outcome == "lost"
        )
    ).all()
    if taken:
        seq = tell(moves, worker)
        moves.connection.execute(
            insert(notices),
            [
                {
                    "worker": worker.id,
                    "seq": seq,
                    "kind": "cancel",
                    "id": row.id,
                    "idx": row.idx,
                    "epoch": row.epoch,
                    "reason": "lost",
                }
                for row in taken
            ],
        )
    moves.event("worker.back", worker.id)
    moves.batch.backlog_changed = True


def bury_worker(moves: Moves, worker: Worker, event: WorkerEvent, reason: str, active: Active) -> None:
    """It leaves, is dead or lost: what stands on it goes back to the queue."""
    worker.state = worker_step(worker.state, event)
    lost = worker.state == WorkerState.LOST
    for row in active.values():
        moves.finish(row, JobEvent.LOSE, NO_MEASURES, "worker-lost" if lost else "worker-gone", reason)
    moves.write_jobs()
    if not lost:
        worker.gone_ms = moves.batch.now
        moves.choices.inventory.forget(worker.id)
        moves.connection.execute(delete(notices).where(notices.c.worker == worker.id))
    tell(moves, worker)
    moves.event("worker.lost" if lost else "worker.gone", worker.id, reason=reason, jobs=len(active))
    moves.batch.backlog_changed = True
    active.clear()
