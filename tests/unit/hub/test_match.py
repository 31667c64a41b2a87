from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from worker.protocol import Shape, fits
from worker_manager.hub.match import (
    Candidate,
    Limits,
    Look,
    Room,
    Serves,
    in_order,
    look,
    prefetchable,
    tag_sets,
    take,
)

GIB = 2**30
LIMITS = Limits()
NO_PREFETCH = replace(LIMITS, prefetch_jobs=0)
ONE = Shape(cpus=1000)


def room(cpus: int = 2, **changed: object) -> Room:
    shape = Shape(cpus=cpus * 1000, memory=8 * GIB)
    return replace(Room(shape, shape), **changed)  # type: ignore[arg-type]


def group(asks: Shape = ONE, waiting: int = 100, **changed: object) -> Candidate:
    base = Candidate(1, asks, asks, waiting, 0, 0)
    return replace(base, **changed)  # type: ignore[arg-type]


def test_free_room_is_filled_and_no_more_while_the_run_time_is_unknown() -> None:
    assert look(room(), group(), LIMITS) == Look(1, 2)


def test_prefetch_is_half_a_second_for_each_slot() -> None:
    full = room(free=Shape(cpus=0, memory=8 * GIB))
    assert prefetchable(full, group(run_us=100_000), LIMITS, 1000) == 10
    assert prefetchable(full, group(run_us=600_000_000), LIMITS, 1000) == 0
    assert prefetchable(full, group(run_us=None), LIMITS, 1000) == 0
    assert prefetchable(full, group(run_us=1), LIMITS, 1000) == 256


def test_what_waits_already_counts_against_it() -> None:
    full = room(free=Shape(cpus=0, memory=8 * GIB), unstarted=4, unstarted_us=400_000)
    assert prefetchable(full, group(run_us=100_000), LIMITS, 1000) == 6


def test_another_owner_or_queue_is_not_served() -> None:
    mine = room(serves=Serves(owners=("me",), queues=("q",)))
    assert look(mine, group(owner="you", queue="q"), LIMITS) is None
    assert look(mine, group(owner="me", queue="other"), LIMITS) is None
    assert look(mine, group(owner="me", queue="q"), LIMITS) is not None


def test_a_worker_near_its_last_run_takes_no_more_than_it_may() -> None:
    assert look(room(8, left=3), group(run_us=1), LIMITS) == Look(1, 3)
    taken, after = take(room(8, left=3), group(run_us=1), [ONE] * 8, LIMITS)
    assert (len(taken), after.left) == (3, 0)


def test_a_mixed_group_is_looked_through_when_only_its_smaller_jobs_fit() -> None:
    big, small = Shape(cpus=64_000), Shape(cpus=1000)
    mixed = group(big, 500, floor=small)
    assert look(room(), mixed, LIMITS) == Look(1, LIMITS.look_through)
    taken, after = take(room(), mixed, [big, small, big, small, small], NO_PREFETCH)
    assert taken == [1, 3]
    assert after.free.cpus == 0


def test_priority_first_then_age() -> None:
    first = group(priority=5, oldest=90)
    second = replace(group(oldest=10), group=2)
    third = replace(group(oldest=20), group=3)
    assert [c.group for c in in_order([third, second, first])] == [1, 2, 3]


def test_tag_sets_name_exactly_what_may_be_asked() -> None:
    assert tag_sets((), False) == ((),)
    assert tag_sets((), True) == ()
    assert tag_sets(("b", "a"), False) == ((), ("a",), ("b",), ("a", "b"))
    assert tag_sets(("a", "b"), True) == (("a",), ("b",), ("a", "b"))
    assert tag_sets(tuple("abcdefg"), False) is None


few = st.integers(0, 4)
shapes = st.builds(
    Shape,
    cpus=few.map(lambda n: n * 500),
    memory=few.map(lambda n: n * GIB),
    gpus=st.integers(0, 2),
    tags=st.sampled_from([(), ("a",), ("b",)]),
)
haves = st.builds(
    Shape,
    cpus=few.map(lambda n: n * 1000),
    memory=few.map(lambda n: n * 2 * GIB),
    gpus=st.integers(0, 4),
    tags=st.sampled_from([(), ("a",), ("a", "b")]),
    exclusive=st.booleans(),
)


@given(haves, st.lists(shapes, min_size=1, max_size=12))
def test_without_prefetch_nothing_is_ever_overcommitted(has: Shape, asked: list[Shape]) -> None:
    candidate = Candidate(1, asked[0], asked[0], len(asked), 0, 0, run_us=1000)
    taken, after = take(Room(has, has), candidate, asked, NO_PREFETCH)
    assert taken == sorted(set(taken))
    free = has
    for index in taken:
        assert not fits(asked[index], free)
        free = free.less(asked[index])
    assert after.free == free


@given(haves, shapes, st.integers(1, 400), st.none() | st.integers(1, 2_000_000))
def test_prefetched_work_keeps_its_bounds(has: Shape, asks: Shape, waiting: int, run_us: int | None) -> None:
    candidate = Candidate(1, asks, asks, waiting, 0, 0, run_us=run_us)
    taken, after = take(Room(has, has), candidate, [asks] * waiting, LIMITS)
    inside, _ = take(Room(has, has), candidate, [asks] * waiting, NO_PREFETCH)
    extra = len(taken) - len(inside)
    if run_us is None or fits(asks, has):
        assert extra == 0
    elif extra:
        assert after.unstarted <= LIMITS.prefetch_jobs
        assert extra * run_us <= LIMITS.prefetch_us * max(1, len(inside))


@given(haves, shapes, st.integers(1, 400))
def test_what_is_looked_at_is_what_is_taken_from_a_uniform_group(has: Shape, asks: Shape, waiting: int) -> None:
    candidate = Candidate(1, asks, asks, waiting, 0, 0, run_us=3000)
    wanted = look(Room(has, has), candidate, LIMITS)
    if wanted is None:
        assert fits(asks, has)
    else:
        taken, _ = take(Room(has, has), candidate, [asks] * wanted.jobs, LIMITS)
        assert len(taken) == wanted.jobs
