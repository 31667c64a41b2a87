"""The shape of a limit: a small pure function of how the pool stands and how many are asked for."""

from collections.abc import Callable
from dataclasses import dataclass

from worker_manager.policy.model import Note
from worker_manager.policy.reasons import Reason
from worker_manager.policy.standing import Standing


@dataclass(frozen=True, slots=True)
class Held:
    """The lower count, why, and until when if time alone ends it."""

    count: int
    reason: Reason
    until: int | None = None


Limit = Callable[[Standing, int], Held | None]


@dataclass(frozen=True, slots=True)
class Limited:
    """What a row of limits left of a count."""

    count: int
    held: tuple[Held, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return tuple(held.reason for held in self.held)

    @property
    def until(self) -> tuple[int, ...]:
        return tuple(held.until for held in self.held if held.until is not None)
