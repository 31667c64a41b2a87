"""Small worlds for the policy's tests: everything has a default, and a test names only what it is about."""

from dataclasses import replace
from typing import Any

from worker.protocol import Shape, WorkerState
from worker_manager.policy.facts import IntentFact, PoolSettings, Sight, Sights, WorkerFact
from worker_manager.policy.model import (
    Action,
    Drain,
    End,
    Failure,
    History,
    JobGroup,
    Launch,
    Limits,
    Note,
    Plan,
    PoolView,
    Snapshot,
    Undrain,
    WorkerView,
)

NOW = 1_700_000_000_000
GiB = 2**30
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
SHAPE = Shape(cpus=4000, memory=16 * GiB)
ONE_CPU = Shape(cpus=1000, memory=GiB)


def group(key: str = "g", count: int = 1, asks: Shape = ONE_CPU, **more: Any) -> JobGroup:
    return JobGroup(key, asks, count, more.pop("oldest", NOW - MINUTE), **more)


def pool(name: str = "p", shape: Shape = SHAPE, **more: Any) -> PoolView:
    """Keywords that name a limit set that limit, the others the pool's own fields."""
    limits = {key: more.pop(key) for key in tuple(more) if key in Limits.__slots__}
    history = {key: more.pop(key) for key in tuple(more) if key in History.__slots__}
    return PoolView(name, "memory", shape, Limits(**limits), history=History(**history), **more)


def ready(id: str = "w", used: int = 0, **more: Any) -> WorkerView:
    """A worker that registered, with `used` of its CPUs held by as many running jobs."""
    shape = more.pop("shape", SHAPE)
    busy = used or more.get("assigned", 0)
    defaults: dict[str, Any] = {
        "pool": "p",
        "state": WorkerState.READY,
        "shape": shape,
        "free": shape.less(ONE_CPU, used),
        "requested_at": NOW - HOUR,
        "submitted_at": NOW - HOUR,
        "ready_at": NOW - HOUR + MINUTE,
        "seen_at": NOW - SECOND,
        "running": used,
        "idle_since": None if busy else NOW - SECOND,
        "listed": True,
        "handle": f"handle-{id}",
    }
    return WorkerView(id, **{**defaults, **more})


def idle(id: str = "w", for_ms: int = HOUR, **more: Any) -> WorkerView:
    return ready(id, idle_since=NOW - for_ms, **more)


def launching(id: str = "w", state: str = WorkerState.SUBMITTED, **more: Any) -> WorkerView:
    """A worker on its way, since a minute."""
    shape = more.pop("shape", SHAPE)
    defaults: dict[str, Any] = {
        "pool": "p",
        "state": state,
        "shape": shape,
        "free": shape,
        "requested_at": NOW - MINUTE,
        "submitted_at": NOW - MINUTE,
        "listed": state in (WorkerState.STARTING, WorkerState.SUBMITTED),
        "handle": f"handle-{id}",
    }
    return WorkerView(id, **{**defaults, **more})


def draining(id: str = "w", code: str = "idle", **more: Any) -> WorkerView:
    since = {"idle_since": NOW - HOUR, "drain_deadline": NOW + HOUR}
    return ready(id, state=WorkerState.DRAINING, drain_code=code, **{**since, **more})


def snapshot(
    groups: list[JobGroup] | None = None,
    workers: list[WorkerView] | None = None,
    pools: list[PoolView] | None = None,
    notes: tuple[Note, ...] = (),
    **more: Any,
) -> Snapshot:
    return Snapshot(NOW, tuple(groups or ()), tuple(workers or ()), tuple(pools or [pool()]), notes, **more)


def failed(ago_ms: int, kind: str = "capacity", **more: Any) -> Failure:
    return Failure(NOW - ago_ms, kind, "no machine of this kind", **more)


# ------------------------------------------------ what a plan does


def of_kind(plan: Plan, kind: type[Action]) -> list[Any]:
    return [action for action in plan.actions if isinstance(action, kind)]


def launched(plan: Plan, name: str | None = None) -> int:
    return sum(action.count for action in of_kind(plan, Launch) if name in (None, action.pool))


def drained(plan: Plan) -> list[str]:
    return [action.worker for action in of_kind(plan, Drain)]


def ended(plan: Plan) -> list[str]:
    return [action.worker for action in of_kind(plan, End)]


def undrained(plan: Plan) -> list[str]:
    return [action.worker for action in of_kind(plan, Undrain)]


def texts(plan: Plan, name: str = "p") -> list[str]:
    return [reason.text for line in plan.pools if line.pool == name for reason in line.reasons]


def codes(plan: Plan, name: str = "p") -> list[str]:
    return [reason.code for line in plan.pools if line.pool == name for reason in line.reasons]


# ------------------------------------------------ facts, for derive


def settings(name: str = "p", **more: Any) -> PoolSettings:
    limits = {key: more.pop(key) for key in tuple(more) if key in Limits.__slots__}
    return PoolSettings(name, "memory", more.pop("shape", SHAPE), Limits(**limits), **more)


def intent(id: str = "w", state: str = "submitted", **more: Any) -> IntentFact:
    defaults: dict[str, Any] = {
        "pool": "p",
        "shape": SHAPE,
        "requested_at": NOW - HOUR,
        "call_deadline": NOW - HOUR + MINUTE,
        "submitted_at": NOW - HOUR + SECOND if state == "submitted" else None,
        "handle": f"handle-{id}" if state == "submitted" else None,
    }
    return IntentFact(id, state=state, **{**defaults, **more})


def fact(id: str = "w", state: str = "ready", **more: Any) -> WorkerFact:
    defaults: dict[str, Any] = {
        "pool": "p",
        "shape": SHAPE,
        "free": SHAPE,
        "running": 0,
        "assigned": 0,
        "runs": 0,
        "ready_at": NOW - HOUR,
        "seen_at": NOW - MINUTE,
        "idle_since": NOW - MINUTE,
    }
    return WorkerFact(id, state=state, **{**defaults, **more})


def listing(*phases: tuple[str, str], **more: Any) -> Sights:
    """A listing a second ago, of (worker, phase)."""
    seen = tuple(Sight(id, phase, f"handle-{id}") for id, phase in phases)
    return Sights(**{"at": NOW - SECOND, "seen": seen, **more})


def later(view: Snapshot, ms: int, **more: Any) -> Snapshot:
    return replace(view, now=view.now + ms, **more)
