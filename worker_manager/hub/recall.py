"""Which unstarted jobs a worker is asked to give back while others have room. Pure.

Only jobs that would not start soon where they are: a recall takes as long as that. Behind jobs of which nobody knows
when they end all are called back; else as many as makes those who work and those who wait end together. Nothing is
asked for twice, and what is on its way back counts as having its room taken: so no job wanders to and fro.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.protocol import Shape, fits, how_many
from worker_manager.hub.match import Limits, Serves

NEVER = None  # nobody knows when it starts
MANY = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """One job on a worker."""

    asks: Shape
    owner: str
    queue: str
    run_us: int | None  # a guess; None: unknown
    running_us: int | None = None  # so far; None: not started
    asked: bool = False  # it was asked back already


class Spare:
    """The free room of workers that nothing waits for."""

    def __init__(self, rooms: Iterable[tuple[Shape, Serves]]) -> None:
        self._rooms: dict[tuple[Shape, Serves], int] = {}
        for room in rooms:
            self._rooms[room] = self._rooms.get(room, 0) + 1

    def __bool__(self) -> bool:
        return bool(self._rooms)

    def slots(self, job: Standing) -> int:
        return sum(
            how_many(job.asks, free, MANY) * workers
            for (free, serves), workers in self._rooms.items()
            if serves.admits(job.owner, job.queue)
        )

    def use(self, job: Standing) -> None:
        """Where there is room for it."""
        for (free, serves), workers in self._rooms.items():
            if serves.admits(job.owner, job.queue) and not fits(job.asks, free):
                if workers == 1:
                    del self._rooms[free, serves]
                else:
                    self._rooms[free, serves] = workers - 1
                left = (free.less(job.asks), serves)
                self._rooms[left] = self._rooms.get(left, 0) + 1
                return


def starts_in(shape: Shape, jobs: Sequence[Standing], limits: Limits) -> list[int | None]:
    """For each, in the order in which they stand there: in how many microseconds it starts; 0 for those that run."""
    starts: list[int | None] = [0] * len(jobs)
    ends: list[tuple[int, int]] = []  # (when, which)
    free, now = shape, 0
    for n, job in enumerate(jobs):
        if job.running_us is not None:
            free = free.less(job.asks)
            if job.run_us is not None and job.running_us <= job.run_us + limits.late_us:
                heapq.heappush(ends, (max(0, job.run_us - job.running_us), n))
    for n, job in enumerate(jobs):
        if job.running_us is not None:
            continue
        while fits(job.asks, free) and ends:
            at, ended = heapq.heappop(ends)
            now = max(now, at)
            free = free.plus(jobs[ended].asks)
        if fits(job.asks, free):
            starts[n] = NEVER
            continue
        starts[n] = now
        free = free.less(job.asks)
        if job.run_us is not None:
            heapq.heappush(ends, (now + job.run_us, n))
    return starts


def to_recall(shape: Shape, jobs: Sequence[Standing], spare: Spare, limits: Limits) -> list[int]:
    """Indexes of the jobs to ask back; what they will take of `spare` is taken."""
    starts = starts_in(shape, jobs, limits)
    free_to_go = [n for n, job in enumerate(jobs) if job.running_us is None and not job.asked]
    stuck = [n for n in free_to_go if starts[n] is NEVER]
    late = [n for n in free_to_go if (starts[n] or 0) > limits.soon_us]
    chosen = [n for n in stuck if spare.slots(jobs[n])]
    for n in chosen:
        spare.use(jobs[n])
    if late and (there := spare.slots(jobs[late[-1]])):
        here = max(1, how_many(jobs[late[-1]].asks, shape, MANY))
        share = max(1, len(late) * there // (there + here))
        for n in [n for n in late[-share:] if spare.slots(jobs[n])]:
            spare.use(jobs[n])
            chosen.append(n)
    return sorted(chosen)
