"""Puts together what ledger, backends and source each know into one Snapshot.

Live loop, dry run, replay and simulation all pass through here, so none of them can see the world in its own way.
Unknown is capacity, never zero: an intent whose create call was ambiguous counts until it is certain that it made
nothing, a worker that a source hears from counts whatever a listing says, and a pool whose backend could not be read
keeps all it had while nothing is decided about it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from worker.protocol import Shape, WorkerState
from worker_manager.policy.facts import (
    BacklogFact,
    IntentFact,
    Memory,
    PoolMemory,
    PoolSettings,
    Sight,
    Sights,
    WorkerFact,
)
from worker_manager.policy.model import PoolView, Snapshot, Warned, WorkerView

NOTHING = Shape(cpus=0)  # the free room of a worker of which nobody tells how much is free
GONE_AFTER = 2  # complete listings in a row without it
EVERYONE = "*"  # among a pool's owners
NO_NOTICES: Mapping[str, Sequence[Warned]] = MappingProxyType({})
UNREAD = Sights(at=0, failed="it has not been listed yet")

# What a listing says of one worker: backends.base.WorkerPhase's values, and three kinds of absence.
ABSENT = "absent"  # not on a complete listing
VANISHED = "vanished"  # not on GONE_AFTER complete listings in a row, past the backend's lag
UNREADABLE = "unreadable"  # no listing, or one with a page missing
PHASES = ("pending", "starting", "running", "ending", "ended", "unknown", ABSENT, VANISHED, UNREADABLE)

# What the source says of it: policy.facts.WorkerFact's states, and three kinds of silence.
UNHEARD = "unheard"  # workers register with this source, and this one has not
FOREIGN = "foreign"  # workers do not register with this source
SOURCES = (UNHEARD, FOREIGN, "ready", "draining", "lost", "gone")

AS_CALLED = ""  # neither has seen it: what the create call said is all there is
CALLED = {
    "requested": WorkerState.REQUESTED,
    "submitted": WorkerState.SUBMITTED,
    "unknown": WorkerState.UNKNOWN,
}

_S = WorkerState
STATES: Mapping[str, Mapping[str, str]] = {
    source: dict(zip(PHASES, row, strict=True))
    for source, row in {
        # pending, starting, running, ending, ended, unknown, absent, vanished, unreadable
        UNHEARD: (
            *(_S.SUBMITTED, _S.STARTING, _S.STARTING, _S.DRAINING, _S.GONE, _S.UNKNOWN),
            *(AS_CALLED, _S.GONE, AS_CALLED),
        ),
        FOREIGN: (
            *(_S.SUBMITTED, _S.STARTING, _S.READY, _S.DRAINING, _S.GONE, _S.UNKNOWN),
            *(AS_CALLED, _S.GONE, AS_CALLED),
        ),
        "ready": (
            *(_S.READY, _S.READY, _S.READY, _S.DRAINING, _S.GONE, _S.READY),
            *(_S.READY, _S.READY, _S.READY),
        ),
        "draining": (
            *(_S.DRAINING, _S.DRAINING, _S.DRAINING, _S.DRAINING, _S.GONE, _S.DRAINING),
            *(_S.DRAINING, _S.DRAINING, _S.DRAINING),
        ),
        "lost": (
            *(_S.LOST, _S.LOST, _S.LOST, _S.LOST, _S.GONE, _S.LOST),
            *(_S.LOST, _S.GONE, _S.LOST),
        ),
        # it said goodbye, but its machine may not have gone yet
        "gone": (
            *(_S.DRAINING, _S.DRAINING, _S.DRAINING, _S.DRAINING, _S.GONE, _S.DRAINING),
            *(_S.GONE, _S.GONE, _S.DRAINING),
        ),
    }.items()
}


def derive(
    now: int,
    pools: Sequence[PoolSettings],
    memory: Memory,
    sights: Mapping[str, Sights],
    backlog: BacklogFact,
    notices: Mapping[str, Sequence[Warned]] = NO_NOTICES,
) -> Snapshot:
    """One consistent view of the world at `now`; `notices` by pool. Left out: workers that are gone, and pools that
    were not handed in."""
    heard = {fact.id: fact for fact in backlog.workers}
    intents: dict[str, list[IntentFact]] = {}
    for intent in memory.intents:
        intents.setdefault(intent.pool, []).append(intent)
    workers: list[WorkerView] = []
    views = []
    for pool in sorted(pools, key=lambda pool: pool.name):
        listing = sights.get(pool.name, UNREAD)
        views.append(_pool(now, pool, memory.pools.get(pool.name, PoolMemory()), listing, backlog.owner))
        found = _workers(now, pool, intents.get(pool.name, []), listing, backlog, heard)
        workers += _warned(found, notices[pool.name]) if pool.name in notices else found
    return Snapshot(
        now=now,
        groups=tuple(sorted(backlog.groups, key=lambda group: group.key)) if backlog.failed is None else (),
        workers=tuple(sorted(workers, key=lambda worker: worker.id)),
        pools=tuple(views),
        notes=memory.notes,
        backlog_version=backlog.version,
        backlog_readable=backlog.failed is None,
        backlog_text=backlog.failed or "",
    )


def state_of(call: str, phase: str, source: str) -> str:
    """The state of a worker by what the create call, the listing and the source say."""
    return STATES[source][phase] or CALLED[call]


def certain_from(intent: IntentFact, list_lag_ms: int) -> int:
    """A complete listing made after this instant shows the worker, if there is one."""
    called = intent.submitted_at if intent.state == "submitted" and intent.submitted_at is not None else None
    return (intent.call_deadline if called is None else called) + list_lag_ms


def phase_of(
    intent: IntentFact | None, sight: Sight | None, listing: Sights, fact: WorkerFact | None, list_lag_ms: int
) -> str:
    """What the listing says of one worker. Its end is not believed while the source heard from it after the listing,
    and its absence means nothing on a listing that is older than the worker or misses a page."""
    if sight is not None:
        spoke_later = fact is not None and fact.state in ("ready", "draining") and fact.seen_at > listing.at
        return UNREADABLE if sight.phase == "ended" and spoke_later else sight.phase
    if listing.failed is not None:
        return UNREADABLE
    if intent is not None and intent.missed_listings >= GONE_AFTER:
        return VANISHED
    too_early = intent is not None and listing.at <= certain_from(intent, list_lag_ms)
    return UNREADABLE if too_early or not listing.complete else ABSENT


def source_of(intent: IntentFact | None, fact: WorkerFact | None, backlog: BacklogFact) -> str:
    """What the source says of one worker. One that had registered and is not known any more has left."""
    if fact is not None:
        return fact.state
    if intent is not None and intent.registered_at is not None:
        return "ready" if backlog.failed is not None else "gone"
    return UNHEARD if backlog.registers else FOREIGN


def _served(owners: tuple[str, ...], own: str) -> tuple[str, ...]:
    """Empty: everyone. The source's own rule, which decides who gets the workers' jobs."""
    if EVERYONE in owners:
        return ()
    return owners or ((own,) if own else ())


def _pool(now: int, pool: PoolSettings, memory: PoolMemory, listing: Sights, owner: str) -> PoolView:
    frozen = memory.frozen_until is not None and memory.frozen_until > now
    return PoolView(
        name=pool.name,
        backend=pool.backend,
        shape=pool.shape,
        limits=pool.limits,
        law=pool.law,
        law_options=pool.law_options,
        owners=_served(pool.owners, owner),
        queues=pool.queues,
        max_batch=pool.max_batch,
        readable=listing.failed is None,
        unreadable_text=listing.failed or "",
        frozen_until=memory.frozen_until if frozen else None,
        freeze_text=memory.freeze_text if frozen else "",
        history=memory.history,
        config=pool.config,
        runs_per_worker=pool.runs_per_worker,
        configured=pool.configured,
    )


def _warned(workers: Sequence[WorkerView], notices: Sequence[Warned]) -> Iterator[WorkerView]:
    """Each with the notice that leaves it the least time."""
    soonest: dict[str, Warned] = {}
    for notice in sorted(notices, key=lambda one: (one.deadline is None, one.deadline or 0, one.id)):
        soonest.setdefault(notice.handle, notice)
    for worker in workers:
        meant = soonest.get(worker.handle) if worker.handle else None
        yield worker if meant is None else replace(worker, notice=meant)


def _workers(
    now: int,
    pool: PoolSettings,
    intents: Sequence[IntentFact],
    listing: Sights,
    backlog: BacklogFact,
    heard: Mapping[str, WorkerFact],
) -> list[WorkerView]:
    known = {intent.id: intent for intent in intents}
    seen = {sight.id: sight for sight in listing.seen} if listing.failed is None else {}
    told = {fact.id: fact for fact in backlog.workers if fact.pool == pool.name}
    views = []
    for name in sorted({*known, *seen, *told}):
        view = _worker(now, pool, name, known.get(name), seen.get(name), listing, heard.get(name), backlog)
        if view.state != WorkerState.GONE:
            views.append(view)
    return views


def _worker(
    now: int,
    pool: PoolSettings,
    name: str,
    intent: IntentFact | None,
    sight: Sight | None,
    listing: Sights,
    fact: WorkerFact | None,
    backlog: BacklogFact,
) -> WorkerView:
    source = source_of(intent, fact, backlog)
    phase = phase_of(intent, sight, listing, fact, pool.list_lag_ms)
    state = state_of(intent.state if intent else "submitted", phase, source)
    if intent is None and sight is None and fact is not None and fact.state == "gone":
        state = WorkerState.GONE  # the source remembers it, and nobody else
    shape = fact.shape if fact else intent.shape if intent else pool.shape
    ended = intent.end_asked_at if intent else None
    drain_deadline = fact.drain_deadline if fact else None
    if source == "gone":
        left_at = (fact.seen_at if fact else None) or now
        drain_deadline = left_at + pool.limits.end_grace_ms
    if ended is not None and now - ended >= pool.limits.end_grace_ms and state != WorkerState.GONE:
        state = state if fact is not None and fact.running + fact.assigned else WorkerState.STUCK
    return WorkerView(
        id=name,
        pool=pool.name,
        state=state,
        shape=shape,
        free=_free(shape, state, fact, source),
        requested_at=_requested_at(intent, sight, fact, listing, now),
        running=fact.running if fact else 0,
        assigned=fact.assigned if fact else 0,
        runs=fact.runs if fact else 0,
        submitted_at=intent.submitted_at if intent else None,
        ready_at=fact.ready_at if fact else intent.registered_at if intent else None,
        seen_at=fact.seen_at if fact else None,
        idle_since=fact.idle_since if fact else None,
        drain_deadline=drain_deadline,
        drain_code=fact.drain_code if fact and source != "gone" else "",  # a goodbye cannot be undone
        end_asked_at=ended,
        force_asked_at=intent.force_asked_at if intent else None,
        listed=True if sight is not None else False if phase in (ABSENT, VANISHED) else None,
        config=(fact.config if fact else "") or (intent.config if intent else ""),
        registers=backlog.registers,
        handle=sight.handle if sight else intent.handle if intent else None,
        refusal=sight.refusal if sight else None,
        detail=sight.detail if sight else "",
        started_at=sight.started_at if sight else None,
        left=source == "gone",
        known=intent is not None,
    )


def _free(shape: Shape, state: str, fact: WorkerFact | None, source: str) -> Shape:
    if fact is not None:
        return fact.free
    if source == FOREIGN and state == WorkerState.READY:
        return NOTHING  # jobs wait although it runs, so it is taken to be full
    return shape


def _requested_at(
    intent: IntentFact | None, sight: Sight | None, fact: WorkerFact | None, listing: Sights, now: int
) -> int:
    if intent is not None:
        return intent.requested_at
    if sight is not None and sight.started_at is not None:
        return sight.started_at
    return fact.ready_at if fact is not None else min(now, listing.at)
