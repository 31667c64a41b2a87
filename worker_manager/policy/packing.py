"""Puts job groups onto room that is there, onto room on its way, and onto new workers.

The arithmetic behind every law; its cost is that of groups × pools, whatever the number of jobs. Order: priority, then
what has the fewest pools to go to, then what asks for most. The size of the backlog does not change that order, and
neither does the order in which a snapshot was written down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from worker.protocol import Shape, fits
from worker_manager.policy.bins import UNLIMITED, Bins, Row, Suits
from worker_manager.policy.eligible import Eligibility, serves
from worker_manager.policy.model import JobGroup, WorkerView
from worker_manager.policy.room import COMING, HELD, NEW, READY, RECALLED, SOON, Load, Placed, PoolRoom
from worker_manager.policy.soon import expect
from worker_manager.policy.standing import Standing


@dataclass(slots=True)
class Share:
    """The jobs that fell to one pool."""

    now: int = 0  # with room on workers that run
    room: int = 0  # with room on workers that run or are on their way
    soon: int = 0  # done before a new worker would be ready
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
        return tuple(room.workers[kind][i] for i in sorted(touched))

    def covers(self, pool: str, count: int, batch: int) -> list[tuple[tuple[str, int], ...]]:
        """(group, jobs) on the first `count` new workers, for each batch of them."""
        if count <= 0:
            return []
        batches: list[dict[str, int]] = [{} for _ in range(0, count, batch)]
        for load in self.rooms[pool].loads[NEW]:
            first, end = load.start, min(load.start + load.count, count)
            for number in range(first // batch, -(-end // batch)):
                inside = min(end, (number + 1) * batch) - max(first, number * batch)
                jobs = batches[number]
                jobs[load.group] = jobs.get(load.group, 0) + inside * load.each
        return [tuple(sorted(jobs.items())) for jobs in batches]

    def wanted_new(self, pool: str) -> int:
        """New workers, those included for which the pool has no room."""
        room = self.rooms[pool]
        return room.opened + ceil(round(room.beyond, 6))


def place(
    now: int,
    standings: Mapping[str, Standing],
    groups: Iterable[JobGroup],
    eligibility: Eligibility,
    shapes: Mapping[str, Shape],
    headroom: Mapping[str, int],
    suits: Suits,
) -> Placement:
    rooms = {name: _room(one, shapes[name], headroom[name], suits) for name, one in standings.items()}
    order = sorted((group for group in groups if group.count > 0), key=lambda group: _rank(group, eligibility))
    placed = tuple(_seat(group, rooms, eligibility) for group in order)
    expect(now, placed, rooms, eligibility)
    for one in placed:
        _open_for(one, rooms, eligibility)
    return Placement(rooms, placed, _shares(rooms, placed))


def _rank(group: JobGroup, eligibility: Eligibility) -> tuple[object, ...]:
    asks = group.asks
    kinds = (asks.gpus > 0) + len(asks.custom) + len(asks.tags)
    size = (-asks.gpus, -asks.cpus, -asks.memory, -asks.disk)
    return (-group.priority, len(eligibility.offers(group)), -kinds, *size, group.oldest, group.key)


def _seat(group: JobGroup, rooms: Mapping[str, PoolRoom], eligibility: Eligibility) -> Placed:
    """The room that is there, and that is on its way, whoever made it."""
    placed = Placed(group, group.count)
    names = [offer.pool for offer in eligibility.offers(group)]
    if len(names) < len(rooms):  # a worker may have more than its pool promises
        names += [name for name, room in rooms.items() if name not in names and serves(room.standing.pool, group)]
    _take_back_assigned(placed, names, rooms)
    for kind in (READY, COMING, RECALLED):
        for name in names:
            if placed.left and rooms[name].rows[kind]:
                _fill(placed, name, rooms[name], kind)
    return placed


def _open_for(placed: Placed, rooms: Mapping[str, PoolRoom], eligibility: Eligibility) -> None:
    """New workers for what is left, in the pools that serve it best."""
    offers = eligibility.offers(placed.group)
    for offer in offers:
        if placed.left:
            _fill(placed, offer.pool, rooms[offer.pool], NEW)
            _open(placed, offer.pool, rooms[offer.pool], offer.per_worker)
    if placed.left and offers:
        placed.home = offers[0].pool
        rooms[placed.home].beyond += placed.left / offers[0].per_worker


def _take_back_assigned(placed: Placed, names: Iterable[str], rooms: Mapping[str, PoolRoom]) -> None:
    """Jobs that a worker has been given already need no other room. Which group they are of nobody tells, so the first
    that may be meant is taken to be."""
    for name in names:
        for shape, jobs in tuple(rooms[name].assigned.items()):
            taken = min(placed.left, jobs)
            if taken and not fits(placed.group.asks, shape):
                rooms[name].assigned[shape] -= taken
                placed.book(name, HELD, taken)


def _fill(placed: Placed, pool: str, room: PoolRoom, kind: int) -> None:
    loads, key = room.loads[kind], placed.group.key

    def took(start: int, count: int, each: int) -> None:
        loads.append(Load(start, count, key, each))

    left = room.rows[kind].fill(placed.group.asks, placed.left, took)
    placed.book(pool, kind, placed.left - left)


def _open(placed: Placed, pool: str, room: PoolRoom, per_worker: int) -> None:
    """Open as many new workers as what is left needs and the pool may have, and fill them."""
    count = min(ceil(placed.left / per_worker), room.may_open)
    if count > 0:
        runs = room.standing.pool.runs_per_worker or UNLIMITED
        room.rows[NEW].add(Bins(room.opened, count, room.new_shape, runs))
        room.may_open -= count
        room.opened += count
        _fill(placed, pool, room, NEW)


def _room(standing: Standing, shape: Shape, may_open: int, suits: Suits) -> PoolRoom:
    recallable = () if standing.closed else standing.recallable
    workers = (
        tuple(sorted(standing.ready, key=_shortest_idle_first)),
        standing.launching,
        tuple(sorted(recallable, key=_shortest_idle_first)),
    )
    return PoolRoom(
        standing=standing,
        workers=workers,
        rows=(*(_row(some, standing.pool.runs_per_worker, suits) for some in workers), Row(suits)),
        new_shape=shape,
        may_open=may_open,
        assigned=_assigned(standing.workers),
    )


def _assigned(workers: Iterable[WorkerView]) -> dict[Shape, int]:
    jobs: dict[Shape, int] = {}
    for worker in workers:
        if worker.assigned:
            jobs[worker.shape] = jobs.get(worker.shape, 0) + worker.assigned
    return jobs


def _shortest_idle_first(worker: WorkerView) -> tuple[object, ...]:
    """Equal workers stand together, and those that are idle for the longest time stay so."""
    free = worker.free
    return (free.gpus, free.cpus, free.memory, free.disk, -(worker.idle_since or 0), worker.id)


def _row(workers: tuple[WorkerView, ...], runs_per_worker: int | None, suits: Suits) -> Row:
    row = Row(suits)
    last: Bins | None = None
    same: Shape | None = None
    for number, worker in enumerate(workers):
        runs = UNLIMITED
        if runs_per_worker is not None:
            runs = runs_per_worker - worker.runs - worker.running - worker.assigned
        if last is not None and last.runs == runs and same == worker.free:
            last.count += 1
            continue
        if last is not None:
            row.add(last)
        last, same = Bins(number, 1, worker.free, runs), worker.free
    if last is not None:
        row.add(last)
    return row


def _shares(rooms: Iterable[str], groups: Iterable[Placed]) -> dict[str, Share]:
    shares = {pool: Share() for pool in rooms}
    for placed in groups:
        for pool, jobs in placed.by_pool.items():
            share = shares[pool]
            here = jobs[HELD] + jobs[READY] + jobs[SOON]
            share.now += here
            share.room += here + jobs[COMING] + jobs[RECALLED]
            share.soon += jobs[SOON]
            share.new += jobs[NEW]
        if placed.home:
            shares[placed.home].new += placed.left
    return shares
