from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from worker.protocol import Shape, fits
from worker_manager.hub.groups import LEVELS, Kind, bound, floor, key_of, place, round_up, smoothed

amounts = st.integers(0, 2**50)
shapes = st.builds(
    Shape,
    cpus=amounts,
    memory=amounts,
    gpus=st.integers(0, 64),
    disk=amounts,
    walltime=st.none() | st.integers(1, 10**10),
    custom=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 9)).map(lambda d: tuple(sorted(d.items()))),
)
levels = st.integers(0, LEVELS - 1)


@given(amounts, levels)
def test_rounding_never_goes_down_and_is_stable(amount: int, level: int) -> None:
    rounded = round_up(amount, level)
    assert rounded >= amount
    assert round_up(rounded, level) == rounded


@given(st.integers(9, 2**50))
def test_the_finest_level_errs_by_an_eighth_at_most(amount: int) -> None:
    assert round_up(amount, 0) - amount <= amount / 8 + 1


@given(amounts, amounts, levels)
def test_rounding_keeps_the_order(a: int, b: int, level: int) -> None:
    assert round_up(min(a, b), level) <= round_up(max(a, b), level)


@given(st.lists(amounts, min_size=2, max_size=2), st.integers(0, LEVELS - 2))
def test_amounts_that_share_a_finer_class_share_every_coarser_one(two: list[int], level: int) -> None:
    a, b = two
    if round_up(a, level) == round_up(b, level):
        assert round_up(a, level + 1) == round_up(b, level + 1)


@given(shapes, shapes)
def test_bounds_hold_both(a: Shape, b: Shape) -> None:
    upper, lower = bound(a, b), floor(a, b)
    has = replace(upper, walltime=max(a.walltime or 0, b.walltime or 0))
    assert not fits(a, has)
    assert not fits(b, has)
    for name in ("cpus", "memory", "gpus", "disk"):
        assert getattr(lower, name) <= min(getattr(a, name), getattr(b, name))


def test_what_cannot_be_mixed_is_kept_apart_at_every_level() -> None:
    base = Kind("me", "default", 0, Shape())
    others = [
        replace(base, owner="you"),
        replace(base, queue="night"),
        replace(base, shape=Shape(tags=("a",))),
        replace(base, shape=Shape(gpus=1)),
        replace(base, shape=Shape(gpus=1, gpu_type="h200")),
        replace(base, shape=Shape(walltime=1000)),
        replace(base, shape=Shape(custom=(("licence", 1),))),
    ]
    for level in range(LEVELS):
        keys = {key_of(kind, level) for kind in [base, *others]}
        assert len(keys) == len(others) + 1


def test_keys_name_their_version_and_level() -> None:
    assert key_of(Kind("me", "q", 0, Shape()), 2).startswith("g1.2.")


def test_an_open_group_is_used_even_when_there_are_too_many() -> None:
    kind = Kind("me", "q", 0, Shape(memory=12345))
    assert place(kind, {key_of(kind, 0)}.__contains__, 100, 100) == key_of(kind, 0)


def test_the_fuller_the_coarser_and_at_last_refused() -> None:
    kind = Kind("me", "q", 0, Shape(memory=12345))
    found = [place(kind, lambda _: False, groups, 100) for groups in (0, 79, 80, 90, 95, 99, 100)]
    assert found == [key_of(kind, level) for level in (0, 0, 1, 2, 3, 3)] + [None]


def test_the_average_moves_toward_new_runs_and_keeps_unknown_apart_from_zero() -> None:
    assert smoothed(None, 0, 0) is None
    assert smoothed(None, 2, 10) == 5000
    assert smoothed(5000, 0, 0) == 5000
    moved = smoothed(1000, 1, 11)
    assert moved == 3000
    assert smoothed(1000, 1000, 1_000_000) > 990_000  # type: ignore[operator]
