"""Puts job groups onto room that is there, onto room on its way, and onto new workers.

The arithmetic behind every law. Jobs are placed by group and workers by kind: equal workers of a pool stand together
in one bin class, and a group takes from a class in one step however many jobs it has. So the cost is that of
groups × classes with room, never of jobs × workers.

Order: priority, then what has the fewest pools to go to, then what asks for most. Whatever its size a backlog is
placed the same way, so the same snapshot gives the same plan in whatever order it was written down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from worker.protocol import Shape, how_many
from worker_manager.policy.eligible import FULL_SCORE_JOBS, Eligibility
from worker_manager.policy.model import JobGroup, PoolView, WorkerView
from worker_manager.policy.standing import Standing

READY, COMING, RECALLED, NEW = range(4)  # kinds of room, in the order in which they are filled


class Bins:
    """Some equal workers of one pool, next to each other in that pool's row of their kind."""

    __slots__ = ("count", "cpus", "free", "memory", "runs", "start")

    def __init__(self, start: int, count: int, free: Shape, runs: int) -> None:
        self.start = start
        self.count = count
        self.free = free
        self.runs = runs  # jobs that each may still take before it exits
        self.cpus = free.cpus
        self.memory = free.memory


@dataclass(frozen=True, slots=True)
class Load:
    """`each` jobs of a group on each of `count` workers from `start` on."""

    start: int
    count: int
    group: str
    each: int


@dataclass(slots=True)
class PoolRoom:
    """What one pool has to offer, being used up."""

    rows: tuple[tuple[WorkerView, ...], ...]  # READY, COMING, RECALLED: the workers behind the bins
    bins: tuple[list[Bins], ...]  # by kind
    new_shape: Shape
    new_runs: int
    may_open: int
    assigned: int  # jobs that its workers hold but have not started: they are in the backlog's count too
    opened: int = 0
    beyond: float = 0.0  # workers that would be opened if more might be
    least_cpus: int = 0  # no job asks for less
    least_memory: int = 0
    loads: tuple[list[Load], ...] = field(default_factory=lambda: ([], [], [], []))

    def of_use(self, one: Bins) -> bool:
        return one.runs > 0 and one.cpus >= self.least_cpus and one.memory >= self.least_memory


@dataclass(slots=True)
class Placed:
    """Where the jobs of one group went."""

    group: JobGroup
    by_pool: dict[str, list[int]] = field(default_factory=dict)  # jobs by kind of room
    left: int = 0  # no room anywhere yet
    home: str = ""  # the pool that would launch for what is left


@dataclass(slots=True)
class Share:
    """The jobs that fell to one pool."""

    now: int = 0  # with room on workers that run
    room: int = 0  # with room on workers that run or are on their way
    new: int = 0  # it would have to launch for them, whether it may or not


@dataclass(frozen=True, slots=True)
class Placement:
    rooms: Mapping[str, PoolRoom]
    groups: tuple[Placed, ...]
    shares: Mapping[str, Share]

    def used(self, pool: str, kind: int) -> tuple[WorkerView, ...]:
        """The workers of one kind that jobs were put onto."""
        room = self.rooms[pool]
        touched = {i for load in room.loads[kind] for i in range(load.start, load.start + load.count)}
        return tuple(room.rows[kind][i] for i in sorted(touched))

    def covers(self, pool: str, first: int, count: int) -> tuple[tuple[str, int], ...]:
        """(group, jobs) on `count` of the new workers, from number `first` on."""
        jobs: dict[str, int] = {}
        for load in self.rooms[pool].loads[NEW]:
            inside = min(first + count, load.start + load.count) - max(first, load.start)
            if inside > 0:
                jobs[load.group] = jobs.get(load.group, 0) + inside * load.each
        return tuple(sorted(jobs.items()))

    def wanted_new(self, pool: str) -> int:
        """New workers, those included for which the pool has no room."""
        room = self.rooms[pool]
        return room.opened + ceil(round(room.beyond, 6))


def place(
    standings: Mapping[str, Standing],
    groups: Iterable[JobGroup],
    eligibility: Eligibility,
    shapes: Mapping[str, Shape],
    headroom: Mapping[str, int],
) -> Placement:
    order = sorted((group for group in groups if group.count > 0), key=lambda group: _rank(group, eligibility))
    rooms = {name: _room(standing, shapes[name], headroom[name]) for name, standing in standings.items()}
    for room in rooms.values():
        room.least_cpus = min((group.asks.cpus for group in order), default=0)
        room.least_memory = min((group.asks.memory for group in order), default=0)
    spent: set[tuple[Shape, str, int]] = set()  # what found no room once will find none later: room only shrinks
    placed = tuple(_place(group, rooms, standings, eligibility, spent) for group in order)
    return Placement(rooms, placed, _shares(rooms, placed))


def _shares(rooms: Iterable[str], groups: Iterable[Placed]) -> dict[str, Share]:
    shares = {pool: Share() for pool in rooms}
    for placed in groups:
        for pool, jobs in placed.by_pool.items():
            share = shares[pool]
            share.now += jobs[READY]
            share.room += jobs[READY] + jobs[COMING] + jobs[RECALLED]
            share.new += jobs[NEW]
        if placed.home:
            shares[placed.home].new += placed.left
    return shares


def _rank(group: JobGroup, eligibility: Eligibility) -> tuple[object, ...]:
    asks = group.asks
    kinds = (asks.gpus > 0) + len(asks.custom) + len(asks.tags)
    size = (asks.gpus, asks.cpus, asks.memory, asks.disk)
    return (-group.priority, len(eligibility.offers(group)), -kinds, tuple(-n for n in size), group.oldest, group.key)


def _place(
    group: JobGroup,
    rooms: Mapping[str, PoolRoom],
    standings: Mapping[str, Standing],
    eligibility: Eligibility,
    spent: set[tuple[Shape, str, int]],
) -> Placed:
    placed = Placed(group, left=group.count)
    offers = eligibility.offers(group)
    names = [offer.pool for offer in offers]
    names += [n for n in rooms if n not in names and _serves(standings[n].pool, group) and _lived_in(rooms[n])]
    for name in names:
        taken = min(placed.left, rooms[name].assigned)
        if taken:
            rooms[name].assigned -= taken
            _book(placed, name, READY, taken)
    for kind in (READY, COMING, RECALLED):
        for name in names:
            if placed.left:
                _fill(placed, name, rooms[name], kind, spent)
    for offer in offers:
        if placed.left:
            room = rooms[offer.pool]
            _fill(placed, offer.pool, room, NEW, spent)
            _open(placed, offer.pool, room, offer.per_worker)
    if placed.left and offers:
        home = next((offer for offer in offers if rooms[offer.pool].may_open > 0), offers[0])
        placed.home = home.pool
        rooms[home.pool].beyond += placed.left / home.per_worker
    return placed


def _serves(pool: PoolView, group: JobGroup) -> bool:
    return (not pool.owners or group.owner in pool.owners) and (not pool.queues or group.queue in pool.queues)


def _lived_in(room: PoolRoom) -> bool:
    return any(room.bins)


def _book(placed: Placed, pool: str, kind: int, jobs: int) -> None:
    placed.by_pool.setdefault(pool, [0, 0, 0, 0])[kind] += jobs
    placed.left -= jobs


def _fill(placed: Placed, pool: str, room: PoolRoom, kind: int, spent: set[tuple[Shape, str, int]]) -> None:
    """Put jobs into the bins of one kind, first fit."""
    bins = room.bins[kind]
    asks = placed.group.asks
    if not bins or (asks, pool, kind) in spent:
        return
    emptied = False
    for one in tuple(bins):
        if one.cpus < asks.cpus or one.memory < asks.memory:
            continue
        each = how_many(asks, one.free, one.runs)
        if not each:
            continue
        _load(placed, pool, room, kind, one, min(each, placed.left))
        emptied = emptied or not room.of_use(one)
        if not placed.left:
            break
    if placed.left and kind != NEW:
        spent.add((asks, pool, kind))
    if emptied:
        bins[:] = [one for one in bins if room.of_use(one)]


def _load(placed: Placed, pool: str, room: PoolRoom, kind: int, one: Bins, each: int) -> None:
    """Put `each` jobs on each worker of a class, or on as many of them as there are jobs for."""
    group = placed.group
    full = min(one.count, placed.left // each)
    rest = placed.left - full * each if full < one.count else 0
    untouched = one.count - full - (1 if rest else 0)
    start, free, runs = one.start, one.free, one.runs
    room.loads[kind].append(Load(start, full, group.key, each))
    _book(placed, pool, kind, full * each)
    one.count = full
    one.free = free.less(group.asks, each)
    one.runs = runs - each
    one.cpus, one.memory = one.free.cpus, one.free.memory
    if rest:
        room.loads[kind].append(Load(start + full, 1, group.key, rest))
        _book(placed, pool, kind, rest)
        room.bins[kind].append(Bins(start + full, 1, free.less(group.asks, rest), runs - rest))
    if untouched:
        room.bins[kind].append(Bins(start + one.count + (1 if rest else 0), untouched, free, runs))


def _open(placed: Placed, pool: str, room: PoolRoom, per_worker: int) -> None:
    """Open as many new workers as what is left needs, and the pool may have."""
    count = min(ceil(placed.left / per_worker), room.may_open)
    if count <= 0:
        return
    fresh = Bins(room.opened, count, room.new_shape, room.new_runs)
    room.may_open -= count
    room.opened += count
    room.bins[NEW].append(fresh)
    _load(placed, pool, room, NEW, fresh, min(per_worker, placed.left))


def _room(standing: Standing, shape: Shape, may_open: int) -> PoolRoom:
    rows = (
        tuple(sorted(standing.ready, key=_fullest_first)),
        standing.launching,
        tuple(sorted(standing.recallable, key=_fullest_first)),
    )
    runs = standing.pool.runs_per_worker
    return PoolRoom(
        rows=rows,
        bins=(*(_bins(row, runs) for row in rows), []),
        new_shape=shape,
        new_runs=runs or FULL_SCORE_JOBS,
        may_open=may_open,
        assigned=sum(worker.assigned for worker in standing.workers),
    )


def _fullest_first(worker: WorkerView) -> tuple[object, ...]:
    """Best fit, so that idle workers stay idle; and of those the one that is idle for the shortest time."""
    free = worker.free
    return (free.gpus, free.cpus, free.memory, -(worker.idle_since or 0), worker.id)


def _bins(row: tuple[WorkerView, ...], runs_per_worker: int | None) -> list[Bins]:
    bins: list[Bins] = []
    for at, worker in enumerate(row):
        runs = FULL_SCORE_JOBS
        if runs_per_worker is not None:
            runs = runs_per_worker - worker.runs - worker.running - worker.assigned
        last = bins[-1] if bins else None
        if last is not None and last.runs == runs and last.free == worker.free:
            last.count += 1
        else:
            bins.append(Bins(at, 1, worker.free, runs))
    return [one for one in bins if one.runs > 0]


__all__ = ["COMING", "NEW", "READY", "RECALLED", "Bins", "Placed", "Placement", "place"]
