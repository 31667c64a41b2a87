"""Who goes first to a worker that holds something: never for ever, and never without a reason."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.files import PUBLIC, cache_scope, input_key
from worker_manager.hub.inventory import mark_of
from worker_manager.hub.preference import (
    MOST_PASSES,
    WINDOW,
    Patience,
    Share,
    Turn,
    Want,
    in_order,
    overtaken,
    share_of,
    wants_of,
)

D1, D2 = "a" * 64, "b" * 64


def turn(permille: int, priority: int = 0, passed: int = 0, job: int = 0) -> Turn:
    return Turn(job, priority, Share(permille, permille), passed)


# ---------------------------------------------------------------- what a job needs


def test_inputs_are_known_by_their_digest_and_scope() -> None:
    inputs = [
        {"to": "a", "source": "blob:" + D1, "size": 5},
        {"to": "b", "source": "https://a.example/x.tar", "sha256": D2, "unpack": True},
        {"to": "c", "source": "https://a.example/unknown"},
        {"to": "d", "source": "blob:" + D1, "size": 5},
    ]
    own = cache_scope("ann")
    assert wants_of(inputs, "ann") == (
        Want(mark_of(own, input_key(D1, False)), 5),
        Want(mark_of(PUBLIC, input_key(D2, True)), None),
    )


def test_the_share_is_in_bytes_and_what_nobody_knows_counts_like_the_rest() -> None:
    a, b = Want(1, 30), Want(2, 10)
    assert share_of((a, b), {}) == Share(0, 0)
    assert share_of((a, b), {1: 30}) == Share(750, 30)
    assert share_of((a, b), {1: 30, 2: 10}) == Share(1000, 40)
    assert share_of((a, Want(2, None)), {1: 30}) == Share(500, 30)
    assert share_of((a, b), {1: 0}).permille == 1, "an empty file is there, too"
    assert share_of((), {1: 1}) == Share(0, 0)


# ---------------------------------------------------------------- order

TURNS = st.lists(
    st.builds(turn, st.sampled_from([0, 250, 1000]), st.integers(0, 2), st.sampled_from([0, 1, MOST_PASSES])),
    max_size=WINDOW,
).map(lambda turns: sorted(turns, key=lambda each: -each.priority))


@given(TURNS)
def test_it_is_an_order_within_each_priority_that_keeps_equals_and_who_is_due(turns: list[Turn]) -> None:
    order = in_order(turns)
    assert sorted(order) == list(range(len(turns))), "each once"
    offered = [turns[index] for index in order]
    assert [each.priority for each in offered] == [each.priority for each in turns]
    for before, after in pairwise(order):
        first, second = turns[before], turns[after]
        if first.priority == second.priority:
            due = first.passed >= MOST_PASSES
            assert due or second.passed < MOST_PASSES
            if due == (second.passed >= MOST_PASSES) and (due or first.share == second.share):
                assert before < after
            if not due:
                assert first.share.permille >= second.share.permille


@given(st.lists(st.integers(0, 2), max_size=WINDOW))
def test_a_worker_that_holds_nothing_takes_the_queue_as_it_is(priorities: list[int]) -> None:
    turns = [turn(0, priority) for priority in sorted(priorities, reverse=True)]
    assert in_order(turns) == list(range(len(turns)))


def test_who_was_passed_over_is_who_stood_before_those_that_were_taken() -> None:
    turns = [turn(0), turn(500), turn(0), turn(1000), turn(0)]
    assert overtaken(turns, {1: 1, 3: 4}) == {2: 4, 0: 5}
    assert overtaken(turns, {0: 1}) == {}


# ---------------------------------------------------------------- nobody waits for ever

SHARES = st.lists(st.sampled_from([0, 0, 300, 1000]), min_size=1, max_size=400)


@given(SHARES, st.integers(1, 8), st.integers(0, 1000))
@settings(max_examples=150)
def test_no_job_is_overtaken_by_more_than_so_many_however_its_worker_s_cache_fits(
    shares: list[int], batch: int, held_by_later: int
) -> None:
    """A queue that never ends, in which everything that comes later fits the cache better."""
    patience = Patience()
    queue = list(enumerate(shares))
    given_out: list[int] = []
    coming = len(shares)
    while queue and queue[0][0] < len(shares):
        window = queue[:WINDOW]
        turns = [turn(share, 0, patience.of(job), job) for job, share in window]
        taken = dict.fromkeys(in_order(turns)[:batch], 1)
        passed = overtaken(turns, taken)
        patience.took([turns[index].job for index in taken])
        for index, by in passed.items():
            patience.passed(turns[index].job, by)
        given_out += [window[index][0] for index in taken]
        queue = [one for index, one in enumerate(queue) if index not in taken]
        for _ in taken:
            queue.append((coming, held_by_later))
            coming += 1
    for place, job in enumerate(given_out):
        if job < len(shares):
            later_but_earlier = sum(other > job for other in given_out[:place])
            assert later_but_earlier < MOST_PASSES + batch


def test_what_is_remembered_of_patience_stays_bounded() -> None:
    patience = Patience(at_most=2)
    for job in ("a", "b", "a", "c"):
        patience.passed(job, 3)
    assert [patience.of(job) for job in "abc"] == [6, 0, 3]
    patience.took(["a", "x"])
    assert patience.of("a") == 0
