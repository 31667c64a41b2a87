"""Work that is done before a new worker would be ready: nothing is launched for it.

The room of one job on a worker is a slot, and a slot with short jobs becomes free again and again. All slots together
have some time until a new worker of the pool would be ready; jobs that fit into that time, a new worker could not begin
sooner. Jobs that ask alike share their slots. Nothing is expected for jobs that nobody has measured, that take longer
than a start, or that have waited for as long as a start already, for then what was expected did not come true: each of
them is taken to hold a slot for the whole time, so that no order among the jobs changes the sum.
"""

from collections.abc import Iterable, Mapping, Sequence

from worker_manager.policy.eligible import Eligibility, Offer
from worker_manager.policy.room import COMING, READY, RECALLED, SOON, Placed, PoolRoom

Rooms = Mapping[str, PoolRoom]


def expect(now: int, groups: Sequence[Placed], rooms: Rooms, eligibility: Eligibility) -> None:
    """Books what is left of each group and done soon, in the order of the groups."""
    starts = {name: room.standing.start_ms for name, room in rooms.items()}
    if not any(starts.values()) or not any(placed.left and placed.group.run_ms is not None for placed in groups):
        return
    for offers, alike in _alike(groups, eligibility):
        known = [starts[offer.pool] or 0 for offer in offers]
        if any(placed.left for placed in alike):
            _book(now, min(known, default=0), offers, alike, rooms)


def _alike(groups: Sequence[Placed], eligibility: Eligibility) -> Iterable[tuple[tuple[Offer, ...], Sequence[Placed]]]:
    """Those that ask alike and may go to the same pools."""
    alike: dict[tuple[object, ...], tuple[tuple[Offer, ...], list[Placed]]] = {}
    for placed in groups:
        offers = eligibility.offers(placed.group)
        alike.setdefault((placed.group.asks, offers), (offers, []))[1].append(placed)
    return alike.values()


def _book(now: int, start_ms: int, offers: Sequence[Offer], alike: Sequence[Placed], rooms: Rooms) -> None:
    run_ms = [_run_ms(now, start_ms, placed) for placed in alike]
    left_ms = _slots_ms(start_ms, offers, alike, run_ms, rooms)
    for placed, each in zip(alike, run_ms, strict=True):
        if each is not None:
            done = max(0, min(placed.group.count, left_ms // each))
            left_ms -= done * each
            without_room = done - (placed.group.count - placed.left)
            placed.book(offers[0].pool, SOON, max(0, min(placed.left, without_room)))


def _run_ms(now: int, start_ms: int, placed: Placed) -> int | None:
    """How long each of its jobs holds a slot; None: as long as there is."""
    group = placed.group
    if group.run_ms is None or group.run_ms >= start_ms or now - group.oldest >= start_ms:
        return None
    return max(1, group.run_ms)


def _slots_ms(
    start_ms: int, offers: Sequence[Offer], alike: Sequence[Placed], run_ms: Sequence[int | None], rooms: Rooms
) -> int:
    """The time of all slots together, less what jobs of unknown length hold of it."""
    busy = sum(w.running for offer in offers if _again(rooms[offer.pool]) for w in rooms[offer.pool].standing.ready)
    total = 0
    for placed, each in zip(alike, run_ms, strict=True):
        for pool, jobs in placed.by_pool.items():
            if _again(rooms[pool]):
                here = start_ms - min(start_ms, rooms[pool].standing.coming_in_ms)
                total += start_ms * (jobs[READY] + jobs[RECALLED]) + here * jobs[COMING]
        if each is None:
            total -= start_ms * placed.group.count
        else:
            running = min(busy, placed.group.running)
            total += (start_ms - each) * running
            busy -= running
    return total


def _again(room: PoolRoom) -> bool:
    """Its workers take one job after another."""
    return room.standing.pool.runs_per_worker is None
