"""So many idle workers at all times (`idle-workers`, 1 by default), on top of what the jobs need."""

from worker_manager.policy.laws.base import Look, Wish
from worker_manager.policy.reasons import because

OPTIONS = {"idle-workers": 1}


def idle(look: Look) -> Wish:
    keep = look.option("idle-workers", OPTIONS)
    total = look.occupied + look.new + keep
    more = max(look.new, total - look.standing.live)
    if look.new:
        return Wish(more, total, because("backlog", jobs=look.for_new, workers=look.new))
    if more:
        return Wish(more, total, because("keep-idle", keep=keep, idle=look.standing.live - look.occupied))
    return Wish(0, total, look.at_rest())
