"""Nothing is launched for jobs that are done before a new worker would be ready."""

from typing import Any

import pytest

from tests.unit.policy.worlds import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    GiB,
    codes,
    draining,
    group,
    launched,
    launching,
    pool,
    ready,
    snapshot,
    texts,
)
from worker.protocol import Shape
from worker_manager.policy.model import JobGroup, PoolView
from worker_manager.policy.plan import plan
from worker_manager.policy.standing import standings


def quick(key: str = "g", count: int = 1, run_ms: int | None = SECOND, **more: Any) -> JobGroup:
    return group(key, count, run_ms=run_ms, **{"oldest": NOW, **more})


def slow(**more: Any) -> PoolView:
    """Workers start within a minute here."""
    return pool(**{"starts": (MINUTE,), **more})


def test_short_jobs_that_the_workers_have_done_by_then_need_no_new_one() -> None:
    found = plan(snapshot([quick(count=4 * 60)], [ready()], [slow()]))
    assert launched(found) == 0
    assert texts(found) == ["236 jobs will be done before a new worker would be ready, which takes 1m here"]
    assert [(v.status, v.jobs, v.reason.code) for v in found.verdicts] == [
        ("served", 4, "room-now"),
        ("served", 236, "soon-done"),
    ]
    assert found.pools[0].wanted == 1


def test_for_those_beyond_workers_are_launched() -> None:
    found = plan(snapshot([quick(count=4 * 60 + 1)], [ready()], [slow()]))
    assert launched(found) == 1
    assert texts(found) == ["1 job waits: 1 more worker of this shape would hold them"]
    assert ("launching", 1) in [(v.status, v.jobs) for v in found.verdicts]


@pytest.mark.parametrize(
    ("jobs", "settings"),
    [
        (quick(count=60, run_ms=None), {}),  # nobody has measured them
        (quick(count=60), {"starts": ()}),  # nor a start
        (quick(count=60, run_ms=MINUTE), {}),  # none is done by then
        (quick(count=60, oldest=NOW - MINUTE), {}),  # it has waited for that long: the estimate was wrong
        (quick(count=60), {"runs_per_worker": 1}),  # workers that take one job only
    ],
)
def test_as_many_as_ever_where_nothing_can_be_expected(jobs: JobGroup, settings: dict[str, Any]) -> None:
    workers = [ready(used=1) if "runs_per_worker" not in settings else ready()]
    free = plan(
        snapshot([group(count=60)], workers, [pool(max_workers=100, runs_per_worker=settings.get("runs_per_worker"))])
    )
    found = plan(snapshot([jobs], workers, [slow(max_workers=100, **settings)]))
    assert launched(found) == launched(free) > 0


def test_slots_that_are_busy_with_such_jobs_count_as_well() -> None:
    full = ready(used=4)
    assert launched(plan(snapshot([quick(count=4 * 59, running=4)], [full], [slow()]))) == 0
    assert launched(plan(snapshot([quick(count=4 * 59 + 1, running=4)], [full], [slow()]))) == 1
    assert launched(plan(snapshot([quick(count=1, running=0)], [full], [slow()]))) == 1, "they are busy with others"
    going = draining(running=4, code="operator", idle_since=None)
    assert launched(plan(snapshot([quick(count=1, running=4)], [going], [slow()]))) == 1, "it takes none any more"


def test_jobs_that_wait_on_a_worker_already_come_first() -> None:
    worker = ready(used=4, assigned=100)
    groups = [quick("a", count=100, running=4), quick("b", count=4 * 59 - 100)]
    assert launched(plan(snapshot(groups, [worker], [slow()]))) == 0
    groups = [quick("a", count=100, running=4), quick("b", count=4 * 59 - 99)]
    assert launched(plan(snapshot(groups, [worker], [slow()]))) == 1


def test_workers_on_their_way_count_from_when_they_usually_come() -> None:
    def at(age: int, count: int) -> int:
        return launched(plan(snapshot([quick(count=count)], [launching(requested_at=NOW - age)], [slow()])))

    assert (at(0, 4), at(0, 5)) == (0, 1), "it comes when a new one would come"
    assert (at(30 * SECOND, 4 * 30), at(30 * SECOND, 4 * 30 + 1)) == (0, 1)
    assert (at(HOUR, 4 * 60), at(HOUR, 4 * 60 + 1)) == (0, 1), "overdue: it may come at any time"


def test_groups_that_ask_alike_share_the_slots() -> None:
    groups = [quick(f"g{n}", count=20, owner=f"user{n}", priority=n % 3) for n in range(12)]
    assert launched(plan(snapshot(groups, [ready()], [slow()]))) == 0
    assert launched(plan(snapshot([*groups, quick("one-more")], [ready()], [slow()]))) == 1


def test_a_job_that_asks_for_more_does_not_hope_for_smaller_slots() -> None:
    busy = ready(used=3)
    large = quick("large", asks=Shape(cpus=4000, memory=GiB))
    assert launched(plan(snapshot([quick(count=9, running=0), large], [busy], [slow()]))) == 1


def test_slots_of_a_pool_that_does_not_serve_the_owner_are_no_hope() -> None:
    pools = [slow(name="p", owners=("ann",)), slow(name="q", owners=("bob",))]
    groups = [quick("a", owner="ann"), quick("b", owner="bob")]
    assert launched(plan(snapshot(groups, [ready()], pools)), "q") == 1


def test_a_pool_whose_workers_start_sooner_launches_where_a_slower_one_would_not() -> None:
    pools = [slow(name="p"), slow(name="q", starts=(10 * SECOND,), shape=Shape(cpus=4000, memory=8 * GiB))]
    found = plan(snapshot([quick(count=100)], [ready()], pools))
    assert launched(found, "q") > 0
    assert launched(plan(snapshot([quick(count=100)], [ready()], pools[:1]))) == 0


def test_a_wish_that_no_limit_lets_through_is_no_larger_for_it() -> None:
    found = plan(snapshot([quick(count=100)], [ready()], [slow(max_workers=1)]))
    assert (found.pools[0].wanted, codes(found)) == (1, ["soon-done"])


def test_the_start_of_a_pool_is_the_median_of_the_last_ones() -> None:
    def start(*starts: int) -> int | None:
        return standings(snapshot(pools=[pool(starts=starts)]))["p"].start_ms

    assert start() is None
    assert start(5) == 5
    assert start(1, 9000, 3) == 3


def test_step_waits_too() -> None:
    found = plan(snapshot([quick(count=100)], [ready()], [slow(law="step")]))
    assert (launched(found), codes(found)) == (0, ["soon-done"])


def test_jobs_of_no_time_at_all_are_no_division_by_zero() -> None:
    assert launched(plan(snapshot([quick(count=4 * MINUTE, run_ms=0)], [ready()], [slow()]))) == 0
    assert launched(plan(snapshot([quick(count=4 * MINUTE + 1, run_ms=0)], [ready()], [slow()]))) == 1


def test_a_long_job_is_taken_to_hold_its_slot_whoever_sits_there_now() -> None:
    groups = [quick("a", count=180), quick("b", run_ms=HOUR)]
    assert launched(plan(snapshot(groups, [ready()], [slow()]))) == 1, "for the long one"
    groups = [quick("a", count=181), quick("b", run_ms=HOUR)]
    assert [dict(a.covers) for a in plan(snapshot(groups, [ready()], [slow()])).actions] == [{"a": 1, "b": 1}]
