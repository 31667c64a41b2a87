"""What a simulation is given: pools with their times, jobs, and faults with their chances."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.protocol import Shape
from worker_manager.policy.facts import PoolSettings


@dataclass(frozen=True)
class Span:
    """A time between two bounds, in milliseconds."""

    low: int
    high: int

    def draw(self, chance: random.Random) -> int:
        return chance.randint(self.low, self.high)


@dataclass(frozen=True)
class SimPool:
    settings: PoolSettings
    queue: Span = Span(0, 0)  # until it has a machine
    boot: Span = Span(30_000, 90_000)  # until it registers
    end: Span = Span(0, 5_000)  # until it is gone when it was told to end
    quota: int | None = None  # workers that the platform allows
    really: Shape | None = None  # what its workers turn out to have; None: what is promised


@dataclass(frozen=True, slots=True)
class SimJob:
    at: int  # ms after the start
    run_ms: int
    asks: Shape = Shape()
    owner: str = ""
    queue: str = "default"
    priority: int = 0


@dataclass(frozen=True)
class Faults:
    """Chances, each of one event, between 0 and 1; rates by hour of a worker's life."""

    refused: float = 0.0  # a launch, for want of capacity
    unanswered: float = 0.0  # a launch; half of these happened nevertheless
    dead_at_boot: float = 0.0  # a worker
    crashes_an_hour: float = 0.0  # a worker ends without a word
    vanishings_an_hour: float = 0.0  # so, and the platform forgets it
    silences_an_hour: float = 0.0  # a worker runs on, but is not heard any more
    unreadable_backend: float = 0.0  # a listing
    torn_listing: float = 0.0  # a listing that misses workers, and says so
    unreadable_backlog: float = 0.0  # an observation
    unanswered_ends: float = 0.0  # an order to end; half of these happened nevertheless
    until: int | None = None  # no new faults after this, ms after the start


Price = Callable[[str, int], float]  # of (pool, worker-milliseconds)


def free_of_charge(_pool: str, _worker_ms: int) -> float:
    return 0.0


@dataclass
class Chance:
    """The dice of one simulation."""

    seed: int
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)  # noqa: S311 - a simulation is to be repeatable

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.dice.random() < probability

    def after(self, an_hour: float) -> int | None:
        """When an event of this hourly rate happens first, in ms."""
        return int(self.dice.expovariate(an_hour) * 3_600_000) if an_hour > 0 else None
