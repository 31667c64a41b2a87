"""A pause after the last launch, and one after the last worker that went. Both are known after a restart."""

from worker_manager.policy.limits.base import Held
from worker_manager.policy.reasons import because
from worker_manager.policy.standing import Standing


def up(standing: Standing, count: int) -> Held | None:
    """Not from zero, and not for what the minimum lacks."""
    pause = standing.pool.limits.cooldown_up_ms
    last = standing.pool.history.last_launch_at
    if last is None or standing.now >= last + pause or standing.have == 0:
        return None
    left = last + pause - standing.now
    return Held(min(count, standing.deficit), because("cooldown-up", left_ms=left, cooldown_ms=pause), last + pause)


def down(standing: Standing, _count: int) -> Held | None:
    pause = standing.pool.limits.cooldown_down_ms
    last = standing.pool.history.last_drain_at
    if last is None or standing.now >= last + pause:
        return None
    left = last + pause - standing.now
    return Held(0, because("cooldown-down", left_ms=left, cooldown_ms=pause), last + pause)
