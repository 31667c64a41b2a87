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
    Waiting,
    in_order,
    look,
    passed_by,
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
    assert take(room(), [Waiting(ONE)] * 3, LIMITS)[0] == [0, 1]


def test_prefetch_is_half_a_second_for_each_slot() -> None:
    full = room(free=Shape(cpus=0, memory=8 * GIB))
    assert prefetchable(full, Waiting(ONE, 100_000), LIMITS, 1000) == 10
    assert prefetchable(full, Waiting(ONE, 600_000_000), LIMITS, 1000) == 0
    assert prefetchable(full, Waiting(ONE, None), LIMITS, 1000) == 0
    assert prefetchable(full, Waiting(ONE, 1), LIMITS, 1000) == 256


def test_what_waits_already_counts_against_it() -> None:
    full = room(free=Shape(cpus=0, memory=8 * GIB), unstarted=4, unstarted_us=400_000)
    assert prefetchable(full, Waiting(ONE, 100_000), LIMITS, 1000) == 6


def test_slots_that_do_not_fall_free_soon_are_no_turns() -> None:
    """One of two slots is held by a job that takes long: half as much may wait, and with both held nothing."""
    held = room(free=Shape(cpus=0, memory=8 * GIB), turns=Shape(cpus=1000, memory=8 * GIB))
    assert prefetchable(held, Waiting(ONE, 100_000), LIMITS, 1000) == 5
    assert prefetchable(replace(held, turns=Shape(cpus=0)), Waiting(ONE, 1), LIMITS, 1000) == 0


def test_nothing_waits_behind_a_job_that_nobody_measured() -> None:
    """It stands at the head of the queue: it gets the room, and what comes after it stays where others can take it."""
    jobs = [Waiting(ONE, None), *[Waiting(ONE, 1000)] * 20]
    taken, after = take(room(1), jobs, LIMITS)
    assert (taken, after.closed) == ([0], True)


def test_prefetch_overtakes_nobody() -> None:
    """The job that must wait for room comes first, so the quick ones behind it may not keep it from getting any."""
    full = room(1, free=Shape(cpus=0, memory=8 * GIB))
    taken, after = take(full, [Waiting(ONE, None), Waiting(ONE, 1000)], LIMITS)
    assert (taken, after.closed) == ([], True)
    passed = passed_by(full, group(priority=5, waiting=1), 0)
    assert look(passed, group(run_us=1000), LIMITS) is None
    too_big = passed_by(full, group(Shape(cpus=64_000), waiting=1), 0)
    assert look(too_big, group(run_us=1000), LIMITS) is not None, "it can never run here"


def test_of_an_unknown_group_one_job_more_is_looked_at() -> None:
    assert look(room(), group(), LIMITS) == Look(1, 3)
    assert look(room(), group(), NO_PREFETCH) == Look(1, 2)
    assert look(room(), group(run_us=600_000), LIMITS) == Look(1, 2), "known to take long: none"


def test_those_that_prefetch_together_share() -> None:
    quick = group(waiting=100, run_us=1000)
    assert look(room(), quick, replace(LIMITS, share=4)) == Look(1, 2 + 25)
    assert look(room(), quick, LIMITS) == Look(1, 100)


def test_another_owner_or_queue_is_not_served() -> None:
    mine = room(serves=Serves(owners=("me",), queues=("q",)))
    assert look(mine, group(owner="you", queue="q"), LIMITS) is None
    assert look(mine, group(owner="me", queue="other"), LIMITS) is None
    assert look(mine, group(owner="me", queue="q"), LIMITS) is not None


def test_a_worker_near_its_last_run_takes_no_more_than_it_may() -> None:
    assert look(room(8, left=3), group(run_us=1), LIMITS) == Look(1, 3)
    taken, after = take(room(8, left=3), [Waiting(ONE, 1)] * 8, LIMITS)
    assert (len(taken), after.left) == (3, 0)


def test_a_mixed_group_is_looked_through_when_only_its_smaller_jobs_fit() -> None:
    big, small = Shape(cpus=64_000), Shape(cpus=1000)
    mixed = group(big, 500, floor=small)
    assert look(room(), mixed, LIMITS) == Look(1, LIMITS.look_through)
    jobs = [Waiting(shape) for shape in (big, small, big, small, small)]
    taken, after = take(room(), jobs, NO_PREFETCH)
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


guesses = st.none() | st.integers(1, 2_000_000)


@given(haves, st.lists(shapes, min_size=1, max_size=12))
def test_without_prefetch_nothing_is_ever_overcommitted(has: Shape, asked: list[Shape]) -> None:
    taken, after = take(Room(has, has), [Waiting(shape, 1000) for shape in asked], NO_PREFETCH)
    assert taken == sorted(set(taken))
    free = has
    for index in taken:
        assert not fits(asked[index], free)
        free = free.less(asked[index])
    assert after.free == free


@given(haves, shapes, st.lists(guesses, min_size=1, max_size=300))
def test_prefetched_work_keeps_its_bounds(has: Shape, asks: Shape, guessed: list[int | None]) -> None:
    jobs = [Waiting(asks, run_us) for run_us in guessed]
    taken, after = take(Room(has, has), jobs, LIMITS)
    inside, _ = take(Room(has, has), jobs, NO_PREFETCH)
    assert taken[: len(inside)] == inside
    extra = [guessed[index] for index in taken[len(inside) :]]
    if fits(asks, has):
        assert not extra
    else:
        assert taken == list(range(len(taken))), "nobody is overtaken"
    assert None not in extra
    quick = sum(1 for index in inside if (guessed[index] or LIMITS.prefetch_us + 1) <= LIMITS.prefetch_us)
    assert sum(run_us or 0 for run_us in extra) <= LIMITS.prefetch_us * quick
    assert not extra or after.unstarted <= LIMITS.prefetch_jobs


@given(haves, shapes, st.integers(1, 400), st.none() | st.integers(1, 600_000))
def test_a_look_is_never_wider_than_it_must_be(has: Shape, asks: Shape, waiting: int, run_us: int | None) -> None:
    """Of a uniform group all that is looked at is taken, and no more would be; but for one when nothing is known."""
    candidate = Candidate(1, asks, asks, waiting, 0, 0, run_us=run_us)
    most, _ = take(Room(has, has), [Waiting(asks, run_us)] * min(waiting, LIMITS.batch_jobs), LIMITS)
    wanted = look(Room(has, has), candidate, LIMITS)
    looked = 0 if wanted is None else wanted.jobs
    assert len(most) <= looked <= len(most) + (run_us is None)
