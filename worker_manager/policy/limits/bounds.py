"""Between the minimum and the maximum. The minimum alone raises a launch, before all limits."""

from worker_manager.policy.limits.base import Held
from worker_manager.policy.reasons import Reason, because
from worker_manager.policy.standing import Standing


def raised_to_minimum(standing: Standing, count: int) -> Reason | None:
    """Why more must be launched than the law wants: the minimum lacks more."""
    if standing.deficit <= count:
        return None
    return because("min-workers", have=standing.live, min=standing.pool.limits.min_workers)


def maximum(standing: Standing, count: int) -> Held | None:
    """All count that exist or may exist: requested, observed, leaving, lost."""
    most = standing.pool.limits.max_workers
    room = max(0, most - standing.have)
    if count <= room:
        return None
    return Held(room, because("max-workers", have=standing.have + room, max=most))


def kept(standing: Standing, count: int) -> Held | None:
    """As many may go as leave the minimum."""
    least = standing.pool.limits.min_workers
    spare = max(0, standing.live - least)
    if count <= spare:
        return None
    return Held(spare, because("min-workers-keep", have=standing.live - spare, min=least))
