"""Which waiting jobs go to a worker. Pure.

First what fits into its free room: by priority, then by age. Then prefetch: jobs that wait on the worker itself, so
that a slot that falls free need not wait for a round trip. Prefetched work is limited to half a second of *measured*
run time for each slot; jobs whose run time nobody has measured are never prefetched: long ones would hide on a worker.
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
    run_us: int | None = None  # measured, in microseconds


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
    unstarted_us: int = 0  # their measured work
    left: int | None = None  # jobs that it may still take before it exits


@dataclass(frozen=True, slots=True)
class Limits:
    prefetch_us: int = 500_000  # for each slot
    prefetch_jobs: int = 256  # 0: none
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
    if count < most:
        count += prefetchable(room, candidate, limits, most - count, starting=count)
    if count:
        return Look(candidate.group, count)
    if most and candidate.floor != candidate.asks and not fits(candidate.floor, room.free):
        return Look(candidate.group, min(candidate.waiting, limits.look_through))
    return None


def prefetchable(room: Room, candidate: Candidate, limits: Limits, most: int, starting: int = 0) -> int:
    """How many jobs of this group may wait on the worker, beyond those that have room."""
    if candidate.run_us is None or most <= 0:
        return 0
    slots = how_many(candidate.asks, room.shape, limits.batch_jobs)
    if not slots:
        return 0
    run_us = max(1, candidate.run_us)
    waiting_us = room.unstarted_us + starting * run_us
    by_time = (limits.prefetch_us * slots - waiting_us) // run_us
    by_count = limits.prefetch_jobs - room.unstarted - starting
    return max(0, min(most, by_time, by_count))


def take(room: Room, candidate: Candidate, shapes: Sequence[Shape], limits: Limits) -> tuple[list[int], Room]:
    """Which of these jobs (by index, in queue order) go there, and the room that is left."""
    taken: list[int] = []
    for first, shape, count in _runs(shapes):
        most = count if room.left is None else min(count, room.left)
        inside = how_many(shape, room.free, most)
        extra = 0
        if inside < most and not fits(shape, room.shape):
            extra = prefetchable(room, candidate, limits, most - inside, starting=inside)
        number = inside + extra
        if number:
            taken += range(first, first + number)
            room = holding(room, shape, number, candidate.run_us)
    return taken, room


def holding(room: Room, shape: Shape, number: int, run_us: int | None) -> Room:
    return replace(
        room,
        free=room.free.less(shape, number),
        unstarted=room.unstarted + number,
        unstarted_us=room.unstarted_us + number * (run_us or 0),
        left=None if room.left is None else room.left - number,
    )


def has_room(free: Shape) -> bool:
    """A worker without a CPU to spare takes nothing but jobs that ask for none: it need not be looked at."""
    return free.cpus > 0


def _runs(shapes: Sequence[Shape]) -> Iterable[tuple[int, Shape, int]]:
    """Runs of equal shapes: (index of the first, the shape, how many)."""
    first = 0
    for index in range(1, len(shapes) + 1):
        if index == len(shapes) or shapes[index] is not shapes[first]:
            yield first, shapes[first], index - first
            first = index
