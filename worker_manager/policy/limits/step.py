"""At most so many at a time, either way."""

from worker_manager.policy.limits.base import Held
from worker_manager.policy.reasons import because
from worker_manager.policy.standing import Standing


def up(standing: Standing, count: int) -> Held | None:
    step = standing.pool.limits.step_up
    if step is None or count <= step:
        return None
    return Held(step, because("step-up", step=step, wanted=count))


def down(standing: Standing, count: int) -> Held | None:
    step = standing.pool.limits.step_down
    if step is None or count <= step:
        return None
    return Held(step, because("step-down", step=step, surplus=count))
