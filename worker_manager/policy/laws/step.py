"""One worker at a time, while fewer are on their way than jobs wait. CodaLab's law, with the room on workers that run
taken off first."""

from worker_manager.policy.laws.base import Look, Wish
from worker_manager.policy.reasons import because


def step(look: Look) -> Wish:
    pending = len(look.standing.launching)
    if look.for_new and look.unplaced > pending:
        return Wish(1, look.occupied + 1, because("step-one", jobs=look.unplaced, pending=pending))
    if look.waiting and not look.soon:
        return Wish(0, look.occupied, because("enough", jobs=look.waiting, room=look.waiting - look.unplaced + pending))
    return Wish(0, look.occupied, look.at_rest())
