"""One worker for so many jobs (`target-jobs`, 1 by default), whatever fits: for queues that tell only a number."""

from math import ceil

from worker_manager.policy.laws.base import Look, Wish
from worker_manager.policy.reasons import because

OPTIONS = {"target-jobs": 1}


def backlog(look: Look) -> Wish:
    live = look.standing.live
    running = sum(worker.running for worker in look.standing.ready)
    total = ceil((look.waiting + running) / max(1, look.option("target-jobs", OPTIONS)))
    if look.waiting == 0:
        return Wish(0, max(total, look.occupied), because("no-backlog"))
    more = max(0, total - live)
    if more == 0:
        return Wish(0, max(total, look.occupied), because("enough", jobs=look.waiting, room=look.waiting))
    return Wish(more, max(total, look.occupied), because("backlog", jobs=look.waiting, workers=more))
