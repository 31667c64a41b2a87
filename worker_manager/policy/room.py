"""What pools have to offer to jobs, and where the jobs went: the values that placing them goes through."""

from dataclasses import dataclass, field

from worker.protocol import Shape
from worker_manager.policy.bins import Row
from worker_manager.policy.model import JobGroup, WorkerView
from worker_manager.policy.standing import Standing

READY, COMING, RECALLED, NEW = range(4)  # kinds of room, in the order in which they are filled
SOON = 4  # no room, but done before a new worker would be ready
HELD = 5  # on workers that hold them already, unstarted: they need no other room


@dataclass(frozen=True, slots=True)
class Load:
    """`each` jobs of a group on each of `count` workers from number `start` on."""

    start: int
    count: int
    group: str
    each: int


@dataclass(slots=True)
class PoolRoom:
    """What one pool has to offer, being used up."""

    standing: Standing
    workers: tuple[tuple[WorkerView, ...], ...]  # READY, COMING, RECALLED: those behind the rows
    rows: tuple[Row, ...]  # by kind
    new_shape: Shape
    may_open: int
    assigned: dict[Shape, int]  # jobs, by worker's shape, that are held but not started: the backlog counts them too
    opened: int = 0
    beyond: float = 0.0  # workers that would be opened if more might be
    loads: tuple[list[Load], ...] = field(default_factory=lambda: ([], [], [], []))


@dataclass(slots=True)
class Placed:
    """Where the jobs of one group went."""

    group: JobGroup
    left: int  # no room anywhere yet
    by_pool: dict[str, list[int]] = field(default_factory=dict)  # jobs by kind of room
    home: str = ""  # the pool that would launch for what is left

    def book(self, pool: str, kind: int, jobs: int) -> None:
        if jobs:
            self.by_pool.setdefault(pool, [0] * 6)[kind] += jobs
            self.left -= jobs
