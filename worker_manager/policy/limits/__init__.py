"""What may hold a launch back, one file for each. A limit may only lower a count, and says so with its numbers.

A new limit is a new file and one line here. The order is that of the reasons on the screen. The minimum is no limit:
it raises a launch before any of them is asked (`bounds.raised_to_minimum`).
"""

from collections.abc import Sequence

from worker_manager.policy.limits import backoff, bounds, breaker, cooldown, frozen, step
from worker_manager.policy.limits.base import Held, Limit, Limited
from worker_manager.policy.standing import Standing

# Nothing at all is decided about the pool.
CLOSED: tuple[Limit, ...] = (frozen.unreadable, frozen.frozen)
# They say whether the pool can take workers at all, so the jobs may go to another pool instead.
DOORS: tuple[Limit, ...] = (*CLOSED, breaker.breaker, backoff.backoff, bounds.maximum)
# They only set the pace: the jobs wait for this pool.
PACE: tuple[Limit, ...] = (cooldown.up, step.up)
UP: tuple[Limit, ...] = DOORS + PACE


def apply(limits: Sequence[Limit], standing: Standing, count: int) -> Limited:
    """The count that is left after all of them, with the reason of each that lowered it."""
    held: list[Held] = []
    for limit in limits:
        if count <= 0:
            break
        found = limit(standing, count)
        if found is not None and found.count < count:
            held.append(found)
            count = max(0, found.count)
    return Limited(count, tuple(held))


__all__ = ["CLOSED", "DOORS", "PACE", "UP", "Held", "Limit", "Limited", "apply"]
