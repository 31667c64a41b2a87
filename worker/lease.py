"""The hub's promise not to give this worker's jobs to another, measured by a clock that does not jump.

It holds from the moment at which the newest answered request was *sent*: the hub cannot have counted from earlier.
"""

from typing import Optional


class Lease:
    def __init__(self, ms: int, asked_at: int) -> None:
        self.ms = ms
        self.answered = asked_at  # when the newest request that was answered had been sent

    def renew(self, ms: Optional[int], asked_at: int) -> bool:
        """False when a newer request was answered already."""
        if ms is not None:
            self.ms = ms
        if asked_at <= self.answered:
            return False
        self.answered = asked_at
        return True

    @property
    def ends(self) -> int:
        return self.answered + self.ms

    @property
    def fence_at(self) -> int:
        """Early enough that every job is dead when the lease ends."""
        return self.ends - min(max(self.ms // 10, 200), 5000)

    def silent_for(self, now: int) -> int:
        """How long the hub has not answered."""
        return now - self.answered
