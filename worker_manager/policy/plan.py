"""The decision. Reads like a table of contents; each chapter is a file.

Snapshot → how each pool stands → room for workers in each → jobs placed → what each law wishes
         → what the limits leave of it → who goes → what becomes of every job group → Plan
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from worker.protocol import WorkerState
from worker_manager.policy import limits, notices
from worker_manager.policy.awaited import awaited, held_by_platform
from worker_manager.policy.bins import UNLIMITED, Suits
from worker_manager.policy.eligible import Eligibility
from worker_manager.policy.laws import LAWS, Look
from worker_manager.policy.learned import new_worker_shape
from worker_manager.policy.limits import bounds, breaker, frozen, stabilise
from worker_manager.policy.model import Action, Drain, Launch, Note, Plan, PoolPlan, Snapshot, Undrain
from worker_manager.policy.packing import Placement, place
from worker_manager.policy.reasons import Reason, because
from worker_manager.policy.retire import retire, wind_up
from worker_manager.policy.room import COMING, READY, RECALLED
from worker_manager.policy.standing import Standing, observed, standings
from worker_manager.policy.verdicts import verdicts


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """All that is decided about one pool."""

    actions: tuple[Action, ...]
    line: PoolPlan
    launched: int
    held: tuple[Reason, ...]  # why not more are launched
    notes: tuple[Note | None, ...]
    due: tuple[int, ...]


def plan(snapshot: Snapshot) -> Plan:
    """What to do now. The same snapshot, however ordered, gives the same plan."""
    stands = standings(snapshot)
    if not snapshot.backlog_readable:
        return _nothing(snapshot, stands, because("backlog-unreadable", text=snapshot.backlog_text))
    leaving = {name: _leave(one) for name, one in stands.items() if not one.pool.configured}
    stands = {name: one for name, one in stands.items() if name not in leaving}
    learned = {name: new_worker_shape(standing) for name, standing in stands.items()}
    shapes = {name: shape for name, (shape, _) in learned.items()}
    headroom = {name: limits.apply(limits.DOORS, one, UNLIMITED).count for name, one in stands.items()}
    suits = Suits()
    eligibility = Eligibility([one.pool for one in stands.values()], shapes, suits)
    placement = place(snapshot.now, stands, snapshot.groups, eligibility, shapes, headroom, suits)
    decisions = {name: _decide(standing, placement) for name, standing in stands.items()}
    everything = [one for _, one in sorted({**decisions, **leaving}.items())]
    return Plan(
        now=snapshot.now,
        backlog_version=snapshot.backlog_version,
        actions=tuple(action for decision in everything for action in decision.actions),
        pools=tuple(decision.line for decision in everything),
        verdicts=verdicts(
            placement,
            eligibility,
            launched={name: one.launched for name, one in decisions.items()},
            held={name: one.held[-1] for name, one in decisions.items()},
        ),
        notes=_notes(
            *(note for _, note in learned.values()), *(note for one in decisions.values() for note in one.notes)
        ),
        next_due=_next_due(snapshot.now, everything),
    )


def _decide(standing: Standing, placement: Placement) -> PoolDecision:
    look = _look(standing, placement)
    wish = LAWS[standing.pool.law](look)
    wanted = max(standing.pool.limits.min_workers, min(standing.pool.limits.max_workers, wish.total))
    recalled = _recalled(standing, placement, max(wish.more, standing.deficit) - look.new)
    lacking = max(0, standing.deficit - len(recalled))
    asked = max(wish.more - len(recalled), min(wish.more, look.new), lacking)
    raised = bounds.raised_to_minimum(standing, wish.more) if lacking > wish.more else None
    limited = limits.apply(limits.UP, standing, asked)
    gone = retire(standing, _needed(standing, placement), wanted)
    whys = (wish.reason, raised) if raised else (wish.reason,)
    leaving = (*notices.heed(standing), *gone.actions)
    due = (*limited.until, *gone.due, standing.pool.frozen_until or 0)
    blind = frozen.unreadable(standing, 0)  # told also when nothing was to be launched: nothing goes either
    limits_told = limited.reasons if blind is None else tuple(dict.fromkeys((*limited.reasons, blind.reason)))
    platform = held_by_platform(standing)
    limits_told = (*limits_told, platform) if platform else limits_told
    return PoolDecision(
        actions=(*recalled, *_launches(standing, placement, asked, limited, whys[-1]), *leaving),
        line=_line(standing, wanted, limited.count, leaving, (*whys, *limits_told, *gone.reasons), due),
        launched=limited.count,
        held=limited.reasons or whys,
        notes=(stabilise.remembered(standing, wanted), breaker.remembered(standing)),
        due=due,
    )


def _leave(standing: Standing) -> PoolDecision:
    """Of a pool that is no longer configured, nothing is asked but that it goes."""
    gone = wind_up(standing)
    closed = limits.apply(limits.CLOSED, standing, 1).reasons
    reasons = (because("unconfigured"), *closed)
    leaving = (*notices.heed(standing), *gone.actions)
    line = _line(standing, 0, 0, leaving, reasons, gone.due)
    return PoolDecision(leaving, line, 0, reasons, (), gone.due)


def _look(standing: Standing, placement: Placement) -> Look:
    name = standing.pool.name
    share = placement.shares[name]
    used = [placement.used(name, kind) for kind in (READY, COMING, RECALLED)]
    occupied = {worker.id for row in used for worker in row} | {w.id for w in standing.ready if w.busy}
    return Look(
        standing=standing,
        waiting=share.room + share.new,
        unplaced=share.room + share.new - share.now,
        room=share.room,
        for_new=share.new,
        occupied=len(occupied),
        new=placement.wanted_new(name),
        soon=share.soon,
    )


def _needed(standing: Standing, placement: Placement) -> frozenset[str]:
    rows = (placement.used(standing.pool.name, kind) for kind in (READY, COMING, RECALLED))
    return frozenset(worker.id for row in rows for worker in row)


def _recalled(standing: Standing, placement: Placement, instead: int) -> tuple[Undrain, ...]:
    """Idle drains to undo: those on which jobs were placed, and as many more as may stand in for new workers."""
    if standing.closed:
        return ()
    used = placement.used(standing.pool.name, RECALLED)
    spare = [worker for worker in standing.recallable if worker not in used]
    chosen = (*used, *spare[: max(0, instead - len(used))])
    return tuple(Undrain(worker.pool, worker.id, because("wanted-again")) for worker in chosen)


def _launches(
    standing: Standing, placement: Placement, asked: int, limited: limits.Limited, why: Reason
) -> tuple[Launch, ...]:
    """One for each call to the backend, with the jobs that its workers are for."""
    name, batch = standing.pool.name, max(1, standing.pool.max_batch)
    sizes = [min(batch, limited.count - first) for first in range(0, limited.count, batch)]
    covers = placement.covers(name, limited.count, batch)
    return tuple(
        Launch(name, size, why, some, wanted=asked, limited=limited.reasons)
        for size, some in zip(sizes, covers, strict=True)
    )


def _line(
    standing: Standing,
    wanted: int,
    launch: int,
    gone: Iterable[Action],
    reasons: tuple[Reason, ...],
    due: Iterable[int] = (),
) -> PoolPlan:
    seen = sum(1 for worker in standing.workers if observed(worker))
    ready = (*standing.ready, *(worker for worker in standing.warned if worker.state == WorkerState.READY))
    return PoolPlan(
        pool=standing.pool.name,
        wanted=wanted,
        requested=standing.have - seen,
        observed=seen,
        ready=len(ready),
        idle=sum(1 for worker in ready if not worker.busy),
        draining=sum(1 for worker in standing.workers if worker.state == WorkerState.DRAINING),
        min_workers=standing.pool.limits.min_workers,
        max_workers=standing.pool.limits.max_workers,
        launch=launch,
        drain=sum(1 for action in gone if isinstance(action, Drain)),
        reasons=(*reasons, *notices.told(standing)),
        frozen_until=standing.pool.frozen_until if standing.frozen else None,
        freeze_text=standing.pool.freeze_text if standing.frozen else "",
        next_due=_first_after(standing.now, due),
        awaited=awaited(standing),
    )


def _nothing(snapshot: Snapshot, stands: Mapping[str, Standing], why: Reason) -> Plan:
    """Nothing is known of the jobs, nor of the workers that run them: nothing is decided, and nothing forgotten."""
    return Plan(
        now=snapshot.now,
        backlog_version=snapshot.backlog_version,
        actions=(),
        pools=tuple(_line(one, one.live, 0, (), (why,)) for one in stands.values()),
        verdicts=(),
        notes=_notes(*snapshot.notes),
    )


def _notes(*notes: Note | None) -> tuple[Note, ...]:
    return tuple(sorted((note for note in notes if note), key=lambda note: (note.pool, note.owner)))


def _next_due(now: int, decisions: Iterable[PoolDecision]) -> int | None:
    """The first instant at which time alone may change the plan."""
    return _first_after(now, (due for decision in decisions for due in decision.due))


def _first_after(now: int, instants: Iterable[int]) -> int | None:
    return min((at for at in instants if at > now), default=None)
