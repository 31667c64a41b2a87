from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from worker.protocol import Shape, fits
from worker_manager.hub.match import Limits, Serves
from worker_manager.hub.recall import NEVER, Spare, Standing, starts_in, to_recall

LIMITS = Limits()
ONE = Shape(cpus=1000)
QUICK = Standing(ONE, "ann", "default", 40_000)


def running(run_us: int | None, so_far_us: int) -> Standing:
    return replace(QUICK, run_us=run_us, running_us=so_far_us)


def spare(*cpus: int) -> Spare:
    return Spare((Shape(cpus=1000 * count), Serves()) for count in cpus)


def test_starts_follow_the_order_and_the_room() -> None:
    two = Shape(cpus=2000)
    jobs = [running(100_000, 30_000), QUICK, QUICK, QUICK]
    assert starts_in(two, jobs, LIMITS) == [0, 0, 40_000, 70_000]


def test_behind_a_job_whose_end_nobody_knows_no_start_is_known() -> None:
    assert starts_in(ONE, [running(None, 0), QUICK], LIMITS) == [0, NEVER]
    late = running(1000, 1000 + LIMITS.late_us + 1)
    assert starts_in(ONE, [late, QUICK], LIMITS) == [0, NEVER]
    assert starts_in(ONE, [running(1000, 50_000), QUICK], LIMITS) == [0, 0], "its report may be on the way"


def test_what_starts_soon_stays() -> None:
    assert to_recall(ONE, [running(40_000, 0), QUICK, QUICK], spare(4), LIMITS) == []


def test_who_works_and_who_waits_end_together() -> None:
    jobs = [running(40_000, 0)] + [QUICK] * 12
    assert to_recall(ONE, jobs, spare(1), LIMITS) == [8, 9, 10, 11, 12]


def test_what_is_on_its_way_back_has_its_room() -> None:
    there = spare(1)
    there.use(replace(QUICK, asked=True))
    assert to_recall(ONE, [running(None, 0), QUICK, QUICK], there, LIMITS) == []


def test_room_of_another_owner_or_size_is_none() -> None:
    stuck = [running(None, 0), QUICK]
    others = Spare([(ONE, Serves(owners=("bob",))), (Shape(cpus=500), Serves())])
    assert to_recall(ONE, stuck, others, LIMITS) == []
    assert to_recall(ONE, stuck, Spare([(ONE, Serves(owners=("ann",)))]), LIMITS) == [1]


standings = st.builds(
    Standing,
    asks=st.sampled_from([ONE, Shape(cpus=2000), Shape(cpus=1000, gpus=1)]),
    owner=st.sampled_from(["ann", "bob"]),
    queue=st.just("default"),
    run_us=st.none() | st.integers(500, 3_000_000),
    running_us=st.none() | st.integers(0, 3_000_000),
    asked=st.booleans(),
)
rooms = st.lists(
    st.tuples(
        st.builds(Shape, cpus=st.integers(1, 4).map(lambda n: n * 1000), gpus=st.integers(0, 1)),
        st.sampled_from([Serves(), Serves(owners=("ann",))]),
    ),
    max_size=4,
)


@given(st.lists(standings, max_size=12), rooms)
def test_only_what_waits_long_and_could_start_elsewhere_is_asked_back(
    jobs: list[Standing], free: list[tuple[Shape, Serves]]
) -> None:
    shape = Shape(cpus=4000, gpus=1)
    starts = starts_in(shape, jobs, LIMITS)
    chosen = to_recall(shape, jobs, Spare(free), LIMITS)
    assert chosen == sorted(set(chosen))
    for n in chosen:
        job, start = jobs[n], starts[n]
        assert job.running_us is None and not job.asked
        assert start is NEVER or start > LIMITS.soon_us
        assert any(serves.admits(job.owner, job.queue) and not fits(job.asks, has) for has, serves in free)


@given(st.lists(standings, max_size=12))
def test_starts_never_run_backwards(jobs: list[Standing]) -> None:
    known = [s for s, job in zip(starts_in(Shape(cpus=4000, gpus=1), jobs, LIMITS), jobs, strict=True) if s is not None]
    assert all(start >= 0 for start in known)
    assert known == sorted(known, key=lambda s: s > 0) or known
