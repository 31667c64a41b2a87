from typing import Any

import pytest

from tests.unit.policy.worlds import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    codes,
    draining,
    failed,
    group,
    idle,
    later,
    launched,
    launching,
    of_kind,
    pool,
    ready,
    snapshot,
    texts,
    undrained,
)
from worker.protocol import Shape, WorkerState
from worker_manager.policy.model import Launch, Note
from worker_manager.policy.plan import plan


def test_the_three_counts() -> None:
    workers = [
        ready("a", used=1),
        idle("b", 0),
        draining("c", running=1, idle_since=None),
        launching("d", WorkerState.REQUESTED, listed=None),
        launching("e", WorkerState.STARTING),
        launching("f", WorkerState.UNKNOWN, listed=False),
    ]
    [line] = plan(snapshot([group(count=12)], workers, [pool(min_workers=2, max_workers=9)])).pools
    assert (line.requested, line.observed) == (2, 4)
    assert (line.ready, line.idle, line.draining) == (2, 1, 1)
    assert (line.min_workers, line.max_workers) == (2, 9)
    assert line.wanted == 4, "the busy one, the idle one and two on their way hold them"


def test_a_held_back_launch_says_what_held_it_with_numbers() -> None:
    found = plan(snapshot([group(count=50)], [ready(f"w{n}", used=4) for n in range(8)], [pool(max_workers=8)]))
    assert launched(found) == 0
    assert texts(found) == [
        "50 jobs wait: 13 more workers of this shape would hold them",
        "max-workers: 8 of 8",
    ]
    assert [(v.status, v.jobs, v.reason.text) for v in found.verdicts] == [("waiting", 50, "max-workers: 8 of 8")]


def test_a_launch_that_limits_lowered_carries_them() -> None:
    found = plan(snapshot([group(count=50)], [], [pool(max_workers=8, step_up=5, max_batch=3)]))
    launches = of_kind(found, Launch)
    assert [launch.count for launch in launches] == [3, 2]
    for launch in launches:
        assert (launch.reason.code, launch.wanted) == ("backlog", 13)
        assert [limit.text for limit in launch.limited] == [
            "max-workers: 8 of 8",
            "step: at most 5 new workers at a time, 8 wanted",
        ]
    [free] = of_kind(plan(snapshot([group(count=5)])), Launch)[:1]
    assert (free.wanted, free.limited) == (2, ())


def test_the_minimum_is_launched_without_a_backlog() -> None:
    found = plan(snapshot(pools=[pool(min_workers=3)]))
    assert launched(found) == 3
    [launch, *_] = of_kind(found, Launch)
    assert launch.reason.text == "min-workers: 0 of at least 3"
    assert launch.covers == ()


def test_the_minimum_takes_back_idle_drains_first() -> None:
    found = plan(snapshot(workers=[draining("a"), draining("b")], pools=[pool(min_workers=1)]))
    assert (launched(found), undrained(found)) == (0, ["a"])
    found = plan(snapshot(workers=[draining("a")], pools=[pool(min_workers=3)]))
    assert (launched(found), undrained(found)) == (2, ["a"])


def test_the_minimum_does_not_pass_the_breaker_nor_the_maximum() -> None:
    boots = tuple(failed(n, "boot") for n in range(10))
    assert launched(plan(snapshot(pools=[pool(min_workers=3, failures=boots)]))) == 0
    full = [draining(f"w{n}", code="operator") for n in range(3)]
    assert launched(plan(snapshot(workers=full, pools=[pool(min_workers=3, max_workers=3)]))) == 0


def test_an_unreadable_backlog_decides_nothing_and_forgets_nothing() -> None:
    note = Note("p", "limit:stabilise", 1, {"peaks": [[NOW, 4]]})
    workers = [idle("a"), launching("b", WorkerState.STARTING, started_at=NOW - HOUR), ready("c", end_asked_at=1)]
    found = plan(
        snapshot(
            workers=workers,
            pools=[pool(min_workers=5)],
            notes=(note,),
            backlog_readable=False,
            backlog_text="connection refused",
        )
    )
    assert found.actions == ()
    assert found.notes == (note,)
    assert texts(found) == ["the backlog cannot be read, so nothing is decided: connection refused"]


def test_an_unreadable_backend_decides_nothing_about_itself_and_the_others_go_on() -> None:
    pools = [pool("a", readable=False, unreadable_text="no answer"), pool("b")]
    found = plan(snapshot([group(count=2)], [draining("x", pool="a")], pools))
    assert (launched(found, "a"), launched(found, "b")) == (0, 1)
    assert undrained(found) == []
    told = {line.pool: [reason.code for reason in line.reasons] for line in found.pools}
    assert told["a"][-1] == "backend-unreadable"  # though nothing was to be launched there
    assert "backend-unreadable" not in told["b"]


def test_jobs_that_only_an_unreadable_pool_could_serve_say_so() -> None:
    found = plan(snapshot([group()], pools=[pool(readable=False, unreadable_text="no answer")]))
    assert found.actions == ()
    assert [v.reason.text for v in found.verdicts] == ["the backend cannot be read, so nothing is decided: no answer"]


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ({"cooldown_up_ms": MINUTE, "last_launch_at": NOW - SECOND}, 59 * SECOND),
        ({"failures": (failed(MINUTE),), "backoff_ms": 5 * MINUTE}, 4 * MINUTE),
        ({"failures": tuple(failed(n, "boot") for n in range(10)), "backoff_ms": 5 * MINUTE}, 5 * MINUTE),
        ({"frozen_until": NOW + HOUR, "freeze_text": "x"}, HOUR),
    ],
)
def test_the_loop_sleeps_until_time_alone_changes_something(settings: dict[str, Any], due: int) -> None:
    view = snapshot([group(count=9)], [ready(used=4)], [pool(**settings)])
    found = plan(view)
    assert launched(found) == 0
    assert found.next_due == NOW + due
    assert launched(plan(later(view, due - 1))) == 0
    assert launched(plan(later(view, due))) > 0


def test_a_freeze_stands_in_the_pool_s_line_and_its_end_wakes_the_loop() -> None:
    view = snapshot(workers=[idle("a")], pools=[pool(frozen_until=NOW + HOUR, freeze_text="repairs", idle_ms=SECOND)])
    found = plan(view)
    assert [(line.frozen_until, line.freeze_text) for line in found.pools] == [(NOW + HOUR, "repairs")]
    assert (found.actions, found.next_due) == ((), NOW + HOUR)
    over = plan(later(view, HOUR))
    assert [(line.frozen_until, line.freeze_text) for line in over.pools] == [(None, "")]


def test_without_anything_to_wait_for_only_an_event_wakes_it() -> None:
    assert plan(snapshot()).next_due is None


def test_step_launches_one_at_a_time() -> None:
    view = snapshot([group(count=9)], pools=[pool(law="step")])
    assert launched(plan(view)) == 1
    assert codes(plan(view)) == ["step-one"]
    assert launched(plan(snapshot([group(count=9)], [launching()], [pool(law="step")]))) == 1


def test_backlog_launches_whatever_fits() -> None:
    by_number = pool(law="backlog", law_options={"target-jobs": 2})
    assert launched(plan(snapshot([group(count=9)], pools=[by_number]))) == 5


def test_worker_that_goes_is_no_reason_to_launch_at_once() -> None:
    """What a plan does must not be undone by the next: no flapping."""
    first = plan(snapshot(workers=[idle("a"), idle("b")], pools=[pool(min_workers=1)]))
    assert len(first.actions) == 1
    after = snapshot(workers=[idle("a"), draining("b")], pools=[pool(min_workers=1)], notes=first.notes)
    assert plan(after).actions == ()


# ------------------------------------------------ verdicts


def told(*workers: Any, jobs: int = 1, **settings: Any) -> list[tuple[str, str]]:
    found = plan(snapshot([group(count=jobs)], list(workers), [pool(**settings)]))
    return [(verdict.status, verdict.reason.text) for verdict in found.verdicts]


def test_never_when_every_pool_says_never() -> None:
    pools = [pool("a", Shape(cpus=500)), pool("b", owners=("ann",))]
    found = plan(snapshot([group(owner="bob")], pools=pools))
    assert [(verdict.pool, verdict.status, verdict.reason.text) for verdict in found.verdicts] == [
        ("a", "never", "cpus: job asks 1, worker has 0.5"),
        ("a", "never", "memory: job asks 1 GiB, worker has 0 B"),
        ("b", "never", "owner: the pool serves ann, the job is bob's"),
    ]


def test_a_verdict_says_how_a_group_stands() -> None:
    assert told(ready()) == [("served", "1 has room on workers that run")]
    assert told(launching()) == [("launching", "1 has room on 1 worker that is on its way")]
    assert told(max_workers=0) == [("waiting", "max-workers: 0 of 0")]
    assert told() == [("launching", "1 worker is launched for 1 of them")]


def test_jobs_of_one_group_may_fare_differently() -> None:
    assert told(ready(), jobs=9, max_workers=1) == [
        ("served", "4 have room on workers that run"),
        ("waiting", "max-workers: 1 of 1"),
    ]
