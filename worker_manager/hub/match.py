"""Which waiting jobs go to a worker. Pure.

First what fits into its free room: by priority, then by age. Then prefetch: jobs that wait on the worker itself, so
that a slot that falls free need not wait for a round trip. Prefetched work is limited to half a second of *measured*
run time for each slot that falls free soon; jobs whose run time nobody has measured are never prefetched: long ones
would hide on a worker. And prefetch overtakes nobody: once a job that could run there has to wait for room, nothing
that comes after it is prefetched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from worker.protocol import Shape, fits, how_many

MOST_TAGS = 6


@dataclass(frozen=True, slots=True)
class Candidate:
    """One job group, as the matcher sees it."""

    group: int
    asks: Shape
    floor: Shape
    waiting: int
    priority: int
    oldest: int
    owner: str = ""
    queue: str = "default"
    run_us: int | None = None  # what the last of its jobs that was looked at is guessed to take; None: nothing known


@dataclass(frozen=True, slots=True)
class Waiting:
    """One job from the head of a group's queue."""

    asks: Shape
    run_us: int | None = None  # a cautious guess; None: unknown


@dataclass(frozen=True, slots=True)
class Serves:
    owners: tuple[str, ...] = ()  # empty: every owner
    queues: tuple[str, ...] = ()

    def admits(self, owner: str, queue: str) -> bool:
        return (not self.owners or owner in self.owners) and (not self.queues or queue in self.queues)


@dataclass(frozen=True, slots=True)
class Room:
    """What one worker can take. `free` may be below zero where prefetched jobs wait for room."""

    shape: Shape
    free: Shape
    serves: Serves = Serves()
    unstarted: int = 0  # jobs assigned and not started
    unstarted_us: int = 0  # the work of those of them whose run time is known and short
    left: int | None = None  # jobs that it may still take before it exits
    turns: Shape | None = None  # what falls free soon: its shape without the jobs that take long; None: all of it
    closed: bool = False  # somebody waits for its room: no prefetch


@dataclass(frozen=True, slots=True)
class Limits:
    prefetch_us: int = 500_000  # for each slot; a job that is guessed to take longer is a long one
    prefetch_jobs: int = 256  # 0: none
    share: int = 1  # workers that prefetch from the same queue now
    late_us: int = 200_000  # so much longer than guessed, and a job counts as long: reports take a while to arrive
    soon_us: int = 100_000  # an unstarted job that starts within this is not called back: that takes as long
    batch_jobs: int = 256  # of one group at a time
    look_through: int = 256  # jobs of a mixed group that are looked at one by one


@dataclass(frozen=True, slots=True)
class Look:
    """How many jobs from the head of a group's queue to look at, and whether each must be measured by itself."""

    group: int
    jobs: int


def tag_sets(tags: Sequence[str], exclusive: bool) -> tuple[tuple[str, ...], ...] | None:
    """Every set of tags that a job may ask of such a worker, so that a query can skip all other groups; None where
    they are too many to name."""
    if len(tags) > MOST_TAGS:
        return None
    smallest = 1 if exclusive else 0
    return tuple(chosen for size in range(smallest, len(tags) + 1) for chosen in combinations(sorted(tags), size))


def in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda c: (-c.priority, c.oldest, c.group))


def look(room: Room, candidate: Candidate, limits: Limits) -> Look | None:
    """None when nothing of this group can go there now."""
    if not candidate.waiting or not room.serves.admits(candidate.owner, candidate.queue):
        return None
    most = min(candidate.waiting, limits.batch_jobs)
    if room.left is not None:
        most = min(most, room.left)
    count = how_many(candidate.asks, room.free, most)
    if count < most and _may_wait(candidate.asks, room, limits):
        inside = holding(room, Waiting(candidate.asks, candidate.run_us or 0), count, limits)
        ahead = prefetchable(inside, Waiting(candidate.asks, candidate.run_us or 1), limits, most - count)
        ahead = min(ahead, -(-(candidate.waiting - count) // limits.share))
        count += ahead if candidate.run_us is not None else min(1, ahead)  # unknown: the first of them tells
    if count:
        return Look(candidate.group, count)
    if most and candidate.floor != candidate.asks and not fits(candidate.floor, room.free):
        return Look(candidate.group, min(candidate.waiting, limits.look_through))
    return None


def _may_wait(asks: Shape, room: Room, limits: Limits) -> bool:
    return bool(limits.prefetch_jobs) and not room.closed and not fits(asks, room.shape)


def prefetchable(room: Room, job: Waiting, limits: Limits, most: int) -> int:
    """How many such jobs may wait on the worker, beyond what stands on it."""
    if job.run_us is None or job.run_us > limits.prefetch_us or most <= 0 or room.closed:
        return 0
    slots = how_many(job.asks, room.shape if room.turns is None else room.turns, limits.batch_jobs)
    run_us = max(1, job.run_us)
    by_time = (limits.prefetch_us * slots - room.unstarted_us) // run_us
    return max(0, min(most, by_time, limits.prefetch_jobs - room.unstarted))


def take(room: Room, jobs: Sequence[Waiting], limits: Limits) -> tuple[list[int], Room]:
    """Which of these jobs (by index, in queue order) go there, and the room that is left."""
    taken: list[int] = []
    for first, job, count in _runs(jobs):
        most = count if room.left is None else min(count, room.left)
        inside = how_many(job.asks, room.free, most)
        room = holding(room, job, inside, limits)
        extra = 0
        if inside < most and _may_wait(job.asks, room, limits):
            extra = prefetchable(room, job, limits, most - inside)
            room = holding(room, job, extra, limits)
        taken += range(first, first + inside + extra)
        if inside + extra < most and not fits(job.asks, room.shape):
            room = replace(room, closed=True)
    return taken, room


def passed_by(room: Room, candidate: Candidate, taken: int) -> Room:
    """After this group had its turn: what could run here and was not taken waits for room."""
    if room.closed or taken >= candidate.waiting or fits(candidate.floor, room.shape):
        return room
    if not room.serves.admits(candidate.owner, candidate.queue):
        return room
    return replace(room, closed=True)


def is_long(run_us: int | None, limits: Limits, so_far_us: int = 0) -> bool:
    """Nobody should wait behind it."""
    return run_us is None or run_us > limits.prefetch_us or so_far_us > run_us + limits.late_us


def holding(room: Room, job: Waiting, number: int, limits: Limits) -> Room:
    """The room with so many more of such jobs on it."""
    if not number:
        return room
    long = is_long(job.run_us, limits)
    turns = room.shape if room.turns is None else room.turns
    return replace(
        room,
        free=room.free.less(job.asks, number),
        unstarted=room.unstarted + number,
        unstarted_us=room.unstarted_us + (0 if long else number * (job.run_us or 0)),
        left=None if room.left is None else room.left - number,
        turns=turns.less(job.asks, number) if long else turns,
    )


def has_room(free: Shape) -> bool:
    """A worker without a CPU to spare takes nothing but jobs that ask for none: it need not be looked at."""
    return free.cpus > 0


def is_overfull(free: Shape) -> bool:
    """More was given than there is room for: some of it waits on the worker."""
    return min(free.cpus, free.memory, free.gpus, free.disk, *(count for _, count in free.custom)) < 0


def _runs(jobs: Sequence[Waiting]) -> Iterable[tuple[int, Waiting, int]]:
    """Runs of equal jobs: (index of the first, the job, how many)."""
    first = 0
    for index in range(1, len(jobs) + 1):
        if index == len(jobs) or (jobs[index] is not jobs[first] and jobs[index] != jobs[first]):
            yield first, jobs[first], index - first
            first = index
