"""As many new workers as hold the jobs for which there is no room, packed by shape."""

from worker_manager.policy.laws.base import Look, Wish
from worker_manager.policy.reasons import because


def pack(look: Look) -> Wish:
    reason = because("backlog", jobs=look.for_new, workers=look.new) if look.new else look.at_rest()
    return Wish(look.new, look.occupied + look.new, reason)
