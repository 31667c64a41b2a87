"""Nothing is decided about a pool that is frozen by a person, or whose backend cannot be read."""

from worker_manager.policy.limits.base import Held
from worker_manager.policy.reasons import because
from worker_manager.policy.standing import Standing


def unreadable(standing: Standing, _count: int) -> Held | None:
    if standing.pool.readable:
        return None
    return Held(0, because("backend-unreadable", text=standing.pool.unreadable_text))


def frozen(standing: Standing, _count: int) -> Held | None:
    until = standing.pool.frozen_until
    if until is None or until <= standing.now:
        return None
    text = standing.pool.freeze_text or "no reason given"
    return Held(0, because("frozen", left_ms=until - standing.now, text=text), until)
