"""Who goes, and why. A busy worker never goes.

Two kinds. What is broken is ended through the backend, whatever is wanted: it never registered, waits too long for a
machine, is lost, unknown to the ledger, overdue. What is not needed goes gently: a worker that is still queued at the
backend is cancelled, an idle one is drained, first those that are idle for the longest time.

To whoever applies this: before a worker that has not registered is ended its token is revoked, and if it has
registered meanwhile it stays; a drain cordons only what is still idle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.protocol import WorkerState
from worker_manager.policy.awaited import SENTENCE_TOLD, shortened
from worker_manager.policy.limits import apply as apply_limits
from worker_manager.policy.limits import bounds, cooldown, stabilise, step
from worker_manager.policy.limits.base import Limit
from worker_manager.policy.model import Action, Drain, End, WorkerView
from worker_manager.policy.reasons import Reason, because
from worker_manager.policy.standing import Standing

GENTLY: tuple[Limit, ...] = (cooldown.down, step.down)
UNNEEDED: tuple[Limit, ...] = (bounds.kept, stabilise.stabilise)


@dataclass(frozen=True, slots=True)
class Retired:
    actions: tuple[Action, ...] = ()
    reasons: tuple[Reason, ...] = ()  # what kept those that might have gone
    due: tuple[int, ...] = ()  # when time alone makes another one go


def retire(standing: Standing, needed: frozenset[str], wanted: int) -> Retired:
    """Everything that goes from one pool, when `wanted` workers are to stay and jobs were placed on those `needed`."""
    if standing.closed:
        return Retired()
    broken, due = _broken(standing)
    going = {end.worker for end in broken}
    replaced, replaced_due = _outlived(standing, needed | going)
    going |= {drain.worker for drain in replaced}
    unneeded, unneeded_due = _unneeded(standing, needed | going, wanted)
    surplus = max(0, standing.live - len(going & _live(standing)) - wanted)
    spare = apply_limits(UNNEEDED, standing, min(surplus, len(unneeded)))
    gentle = [*replaced, *unneeded[: spare.count]]
    paced = apply_limits(GENTLY, standing, len(gentle))
    due += (*replaced_due, *unneeded_due, *spare.until, *paced.until)
    return Retired((*broken, *gentle[: paced.count]), spare.reasons + paced.reasons, due)


def wind_up(standing: Standing) -> Retired:
    """Everything goes from a pool that is no longer configured: what waits for a machine is cancelled, and what works
    takes no more jobs and finishes those that it has."""
    if standing.closed:
        return Retired()
    broken, due = _broken(standing)
    going = {end.worker for end in broken}
    why = because("unconfigured")
    deadline = standing.now + standing.pool.limits.drain_timeout_ms
    queued = [End(w.pool, w.id, why) for w in standing.launching if w.id not in going and _is_queued(w)]
    drained = [
        Drain(w.pool, w.id, why, deadline, only_if_idle=False)
        for w in standing.ready
        if w.id not in going and w.registers and _is_ours(w)
    ]
    return Retired((*broken, *queued, *drained), (), due)


# ---------------------------------------------------------------- broken


def _broken(standing: Standing) -> tuple[list[End], tuple[int, ...]]:
    ends, due = [], []
    for worker in standing.workers:
        found = _overdue(worker, standing)
        if isinstance(found, int):
            due.append(found)
        elif found is not None and worker.handle is not None:
            ends.append(found)
    return ends, tuple(due)


def _overdue(worker: WorkerView, standing: Standing) -> End | int | None:
    """The end of a broken worker, or when it comes to that if nothing changes."""
    now, limits = standing.now, standing.pool.limits
    heard = worker.state in (WorkerState.READY, WorkerState.DRAINING) and worker.seen_at is not None
    if worker.busy and worker.state != WorkerState.LOST:
        return None
    if worker.end_asked_at is not None:
        asked = worker.force_asked_at or worker.end_asked_at
        waited = now - worker.end_asked_at
        why = because("end-overdue", waited_ms=waited, limit_ms=limits.end_grace_ms)
        return _when(standing, worker, asked + limits.end_grace_ms, why, force=True)
    if not worker.known and worker.listed and not heard:
        return End(worker.pool, worker.id, because("orphaned"))
    if worker.state == WorkerState.LOST:
        silent_since = worker.seen_at if worker.seen_at is not None else worker.requested_at
        why = because("lost", silent_ms=now - silent_since, limit_ms=limits.lost_timeout_ms)
        return _when(standing, worker, silent_since + limits.lost_timeout_ms, why)
    if worker.state == WorkerState.STARTING or (worker.state == WorkerState.UNKNOWN and worker.listed):
        since = worker.started_at or worker.submitted_at or worker.requested_at
        why = because("never-registered", waited_ms=now - since, limit_ms=limits.start_timeout_ms)
        return _when(standing, worker, since + limits.start_timeout_ms, why) if worker.registers else None
    if worker.state == WorkerState.SUBMITTED and worker.listed and limits.queue_timeout_ms is not None:
        since = worker.submitted_at or worker.requested_at
        says = f": {shortened(worker.detail, SENTENCE_TOLD)}" if worker.detail else ""
        why = because("queued-too-long", waited_ms=now - since, limit_ms=limits.queue_timeout_ms, says=says)
        return _when(standing, worker, since + limits.queue_timeout_ms, why)
    if worker.state == WorkerState.DRAINING and worker.drain_deadline is not None:
        why = because("drain-overdue", limit_ms=limits.drain_timeout_ms)
        return _when(standing, worker, worker.drain_deadline, why)
    return None


def _when(standing: Standing, worker: WorkerView, at: int, why: Reason, force: bool = False) -> End | int:
    return End(worker.pool, worker.id, why, force) if standing.now >= at else at


# ---------------------------------------------------------------- outlived


def _outlived(standing: Standing, staying: frozenset[str] | set[str]) -> tuple[list[Drain], tuple[int, ...]]:
    """Idle workers that are too old, or of an older configuration, whether more of them are wanted or not."""
    limits, now = standing.pool.limits, standing.now
    drains, due = [], []
    for worker in standing.ready:
        if not _is_idle(worker) or worker.id in staying:
            continue
        drifted = limits.retire_drifted and worker.config and worker.config != standing.pool.config
        old_at = worker.requested_at + limits.max_age_ms if limits.max_age_ms is not None else None
        if drifted:
            drains.append(_drain(standing, worker, because("drifted")))
        elif old_at is not None and now >= old_at:
            drains.append(_drain(standing, worker, because("too-old", limit_ms=limits.max_age_ms)))
        elif old_at is not None:
            due.append(old_at)
    return drains, tuple(due)


# ---------------------------------------------------------------- not needed


def _unneeded(
    standing: Standing, staying: frozenset[str] | set[str], wanted: int
) -> tuple[list[End | Drain], tuple[int, ...]]:
    """Those that nobody needs, the least loss first: still queued (newest first), then idle for the longest time."""
    limits, now = standing.pool.limits, standing.now
    queued = [w for w in standing.launching if w.id not in staying and _is_queued(w)]
    idle = [w for w in standing.ready if w.id not in staying and _is_idle(w)]
    ripe = [w for w in idle if now - (w.idle_since or 0) >= limits.idle_ms]
    due = tuple((w.idle_since or 0) + limits.idle_ms for w in idle if w not in ripe)
    going: list[End | Drain] = [
        End(worker.pool, worker.id, because("surplus-queued"))
        for worker in sorted(queued, key=lambda w: (-w.requested_at, w.id))
    ]
    for worker in sorted(ripe, key=lambda w: (w.idle_since or 0, w.id)):
        why = because(
            "idle",
            idle_ms=now - (worker.idle_since or 0),
            limit_ms=limits.idle_ms,
            wanted=wanted,
            have=standing.live,
        )
        going.append(_drain(standing, worker, why))
    return going, due


def _is_idle(worker: WorkerView) -> bool:
    """Known to be idle, and one that a cordon reaches. A worker that someone started by hand goes when it wants to."""
    return worker.registers and not worker.busy and worker.idle_since is not None and _is_ours(worker)


def _is_ours(worker: WorkerView) -> bool:
    return worker.known or bool(worker.listed)


def _is_queued(worker: WorkerView) -> bool:
    return worker.state == WorkerState.SUBMITTED and bool(worker.listed) and worker.handle is not None


def _live(standing: Standing) -> set[str]:
    return {worker.id for worker in (*standing.ready, *standing.launching)}


def _drain(standing: Standing, worker: WorkerView, why: Reason) -> Drain:
    return Drain(worker.pool, worker.id, why, deadline=standing.now + standing.pool.limits.drain_timeout_ms)


__all__: Sequence[str] = ("Retired", "retire", "wind_up")
