"""The shape of a law: a pure function from what it sees of one pool to what it wishes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from worker_manager.policy.reasons import Reason, because
from worker_manager.policy.standing import Standing


@dataclass(frozen=True, slots=True)
class Look:
    """What a law sees of one pool."""

    standing: Standing
    waiting: int  # jobs that wait and could be served here
    unplaced: int  # of them, those without room on workers that run
    room: int  # of them, those with room on workers that run or are on their way
    for_new: int  # of them, those that this pool would have to launch for
    occupied: int  # workers that have or were given jobs, those on their way included
    new: int  # new workers that hold what found no room, those beyond the maximum included
    soon: int = 0  # of `room`, those without, but done before a new worker would be ready

    def option(self, name: str, defaults: Mapping[str, int]) -> int:
        return int(self.standing.pool.law_options.get(name, defaults[name]))

    def at_rest(self) -> Reason:
        """Why no worker is to be launched."""
        if self.soon:
            return because("soon-done", jobs=self.soon, start_ms=self.standing.start_ms)
        if self.waiting:
            return because("enough", jobs=self.waiting, room=self.room)
        return because("no-backlog")


@dataclass(frozen=True, slots=True)
class Wish:
    """`more` new workers now, and `total` to keep: what goes beyond `total` may go."""

    more: int
    total: int
    reason: Reason


Law = Callable[[Look], Wish]
