"""As many new workers as hold the jobs for which there is no room, packed by shape."""

from worker_manager.policy.laws.base import Look, Wish
from worker_manager.policy.reasons import because


def pack(look: Look) -> Wish:
    if look.new:
        reason = because("backlog", jobs=look.for_new, workers=look.new)
    elif look.waiting:
        reason = because("enough", jobs=look.waiting, room=look.room)
    else:
        reason = because("no-backlog")
    return Wish(look.new, look.occupied + look.new, reason)
