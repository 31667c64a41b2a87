"""Where jobs go, seen through the plan."""

import pytest

from tests.unit.policy.worlds import (
    ONE_CPU,
    SHAPE,
    GiB,
    draining,
    group,
    launched,
    launching,
    of_kind,
    pool,
    ready,
    snapshot,
    undrained,
)
from worker.protocol import Shape, WorkerState
from worker_manager.policy.model import Launch, Plan, Verdict
from worker_manager.policy.plan import plan


def rows(found: Plan, name: str = "p") -> list[tuple[str, int]]:
    return [(verdict.status, verdict.jobs) for verdict in found.verdicts if verdict.pool == name]


def never(found: Plan, name: str = "p") -> list[str]:
    return [verdict.reason.text for verdict in found.verdicts if verdict.pool == name and verdict.status == "never"]


def test_jobs_are_packed_by_shape() -> None:
    assert launched(plan(snapshot([group(count=10)]))) == 3, "four one-cpu jobs fit a worker"
    assert launched(plan(snapshot([group(count=3, asks=Shape(cpus=1000, memory=16 * GiB))]))) == 3


def test_free_room_comes_first() -> None:
    found = plan(snapshot([group(count=6)], [ready(used=2), ready("x")]))
    assert launched(found) == 0
    assert rows(found) == [("served", 6)]


def test_room_on_its_way_is_subtracted() -> None:
    found = plan(snapshot([group(count=10)], [launching(), launching("x", state="unknown")]))
    assert launched(found) == 1
    assert rows(found) == [("launching", 8), ("launching", 2)]


def test_a_worker_that_was_told_to_end_is_no_room() -> None:
    assert launched(plan(snapshot([group()], [launching(end_asked_at=1)]))) == 1


def test_different_groups_share_a_worker() -> None:
    groups = [group("a", 2), group("b", 1, Shape(cpus=2000, memory=8 * GiB))]
    assert launched(plan(snapshot(groups))) == 1


def test_covers_say_which_jobs_the_launch_is_for() -> None:
    [launch] = of_kind(plan(snapshot([group("a", 3), group("b", 4)], pools=[pool(max_batch=9)])), Launch)
    assert launch.count == 2
    assert dict(launch.covers) == {"a": 3, "b": 4}


def test_covers_are_cut_with_the_launch() -> None:
    found = plan(snapshot([group("a", 10)], pools=[pool(max_workers=2)]))
    assert [launch.covers for launch in of_kind(found, Launch)] == [(("a", 4),), (("a", 4),)]
    assert rows(found) == [("launching", 8), ("waiting", 2)]


def test_a_launch_is_cut_into_calls_that_the_backend_takes() -> None:
    found = plan(snapshot([group(count=20)], pools=[pool(max_batch=2)]))
    assert [launch.count for launch in of_kind(found, Launch)] == [2, 2, 1]


def test_higher_priority_is_covered_first() -> None:
    groups = [group("low", 4), group("high", 4, priority=5)]
    [launch] = of_kind(plan(snapshot(groups, pools=[pool(max_workers=1)])), Launch)
    assert dict(launch.covers) == {"high": 4}


def test_what_has_fewest_pools_to_go_to_is_placed_first() -> None:
    pools = [pool("any", max_workers=1), pool("big", Shape(cpus=8000, memory=64 * GiB), max_workers=1)]
    groups = [group("small", 4), group("huge", 1, Shape(cpus=6000, memory=GiB))]
    found = plan(snapshot(groups, pools=pools))
    assert (launched(found, "any"), launched(found, "big")) == (1, 1)


def test_gpus_are_kept_from_jobs_without() -> None:
    gpu = Shape(cpus=4000, memory=16 * GiB, gpus=2, gpu_type="h200")
    pools = [pool("a", gpu), pool("b")]
    assert launched(plan(snapshot([group()], pools=pools)), "b") == 1
    asks = Shape(cpus=1000, gpus=1)
    assert launched(plan(snapshot([group(asks=asks)], pools=pools)), "a") == 1
    both = [ready("a1", pool="a", shape=gpu), ready("b1", pool="b")]
    found = plan(snapshot([group(count=4)], both, pools))
    assert rows(found, "b") == [("served", 4)]


def test_the_pool_of_the_asked_tag_is_taken() -> None:
    pools = [pool("a", Shape(cpus=4000, tags=("fast", "ssd"))), pool("b", Shape(cpus=4000, tags=("fast",)))]
    asks = Shape(cpus=1000, tags=("fast",))
    assert launched(plan(snapshot([group(asks=asks)], pools=pools)), "b") == 1


def test_the_pool_that_is_used_best_is_taken() -> None:
    pools = [pool("a", Shape(cpus=64000, memory=256 * GiB)), pool("b", Shape(cpus=2000, memory=2 * GiB))]
    assert launched(plan(snapshot([group(count=2)], pools=pools)), "b") == 1


def test_a_pool_that_may_not_launch_leaves_the_jobs_to_another() -> None:
    pools = [pool("a", max_workers=1), pool("b")]
    found = plan(snapshot([group(count=12)], pools=pools))
    assert (launched(found, "a"), launched(found, "b")) == (1, 2)


def test_exactly_the_pace_is_no_reason_to_go_elsewhere() -> None:
    pools = [pool("a", step_up=1), pool("b")]
    found = plan(snapshot([group(count=12)], pools=pools))
    assert (launched(found, "a"), launched(found, "b")) == (1, 0)


def test_a_job_that_fits_nowhere_launches_nothing_and_says_every_reason() -> None:
    asks = Shape(cpus=9000, memory=96 * GiB)
    found = plan(snapshot([group(asks=asks)], pools=[pool(shape=Shape(cpus=4000, memory=64 * GiB))]))
    assert launched(found) == 0
    assert never(found) == ["cpus: job asks 9, worker has 4", "memory: job asks 96 GiB, worker has 64 GiB"]


def test_every_kind_of_misfit_has_its_sentence() -> None:
    has = Shape(cpus=4000, memory=GiB, gpus=1, gpu_type="a100", walltime=3_600_000, tags=("x",))
    asks = Shape(
        cpus=1000,
        gpus=2,
        gpu_type="h200",
        disk=GiB,
        walltime=7_200_000,
        tags=("y",),
        custom=(("licence", 1),),
    )
    found = plan(snapshot([group(asks=asks)], pools=[pool(shape=has)]))
    assert never(found) == [
        "gpus: job asks 2, worker has 1",
        "disk: job asks 1 GiB, worker has 0 B",
        "gpu type: job asks h200, worker has a100",
        "walltime: job asks 2h, worker has 1h",
        "licence: job asks 1, worker has 0",
        "tags: job asks y, worker has x",
    ]


def test_owners_and_queues_are_honoured_on_every_kind_of_room() -> None:
    pools = [pool(owners=("ann",), queues=("q1",))]
    workers = [ready(), launching("x", WorkerState.STARTING), draining("y")]
    found = plan(snapshot([group(owner="bob", queue="q2")], workers, pools))
    assert found.actions == ()
    assert never(found) == [
        "owner: the pool serves ann, the job is bob's",
        "queue: the pool serves q1, the job is in q2",
    ]
    assert rows(plan(snapshot([group(owner="ann", queue="q1")], workers, pools))) == [("served", 1)]


def test_an_exclusive_pool_takes_only_what_asks_for_its_tag() -> None:
    exclusive = pool(shape=Shape(cpus=4000, memory=GiB, tags=("gold",), exclusive=True))
    assert launched(plan(snapshot([group()], pools=[exclusive]))) == 0
    assert launched(plan(snapshot([group(asks=Shape(cpus=1000, tags=("gold",)))], pools=[exclusive]))) == 1


def test_custom_resources_are_used_up() -> None:
    shape = Shape(cpus=64000, custom=(("licence", 2),))
    asks = Shape(cpus=1000, custom=(("licence", 1),))
    assert launched(plan(snapshot([group(count=5, asks=asks)], pools=[pool(shape=shape)]))) == 3


def test_disk_and_gpus_are_used_up() -> None:
    shape = Shape(cpus=64000, gpus=4, disk=100)
    assert launched(plan(snapshot([group(count=9, asks=Shape(cpus=1000, gpus=2))], pools=[pool(shape=shape)]))) == 5
    assert launched(plan(snapshot([group(count=9, asks=Shape(cpus=1000, disk=40))], pools=[pool(shape=shape)]))) == 5


def test_runs_per_worker_are_capacity() -> None:
    once = pool(runs_per_worker=1)
    assert launched(plan(snapshot([group(count=4)], pools=[once]))) == 4
    used_up = ready(runs=1, running=0)
    assert launched(plan(snapshot([group()], [used_up], [once]))) == 1
    two = pool(runs_per_worker=6)
    assert launched(plan(snapshot([group(count=4)], [ready(runs=2, used=1)], [two]))) == 1, "it takes three more"


def test_idle_drains_are_undone_before_anything_is_launched() -> None:
    found = plan(snapshot([group(count=4)], [draining("a"), draining("b")]))
    assert launched(found) == 0
    assert undrained(found) == ["a"]


@pytest.mark.parametrize("code", ["operator", "too-old", "drifted", "idle-exit", "Idle", ""])
def test_only_a_drain_for_idleness_is_undone(code: str) -> None:
    found = plan(snapshot([group()], [draining("a", code=code)]))
    assert (launched(found), undrained(found)) == (1, [])


def test_jobs_that_workers_hold_unstarted_need_no_other_room() -> None:
    full = ready(used=3, assigned=1, free=SHAPE.less(ONE_CPU, 4))
    assert launched(plan(snapshot([group(count=1)], [full]))) == 0
    assert launched(plan(snapshot([group(count=2)], [full]))) == 1


def test_unstarted_jobs_are_not_taken_for_jobs_that_the_worker_cannot_run() -> None:
    full = ready(used=3, assigned=1, free=SHAPE.less(ONE_CPU, 4))
    large = group(asks=Shape(cpus=9000))
    found = plan(snapshot([large], [full]))
    assert never(found) == ["cpus: job asks 9, worker has 4"]


def test_what_is_left_when_the_large_worker_is_full_can_never_run() -> None:
    large = ready(shape=Shape(cpus=9000, memory=GiB))
    found = plan(snapshot([group(count=3, asks=Shape(cpus=9000))], [large]))
    assert rows(found) == [("served", 1), ("never", 2)]


def test_a_worker_may_have_more_than_its_pool_promises() -> None:
    large = ready(shape=Shape(cpus=16000, memory=64 * GiB))
    assert rows(plan(snapshot([group(asks=Shape(cpus=9000))], [large]))) == [("served", 1)]


def test_a_worker_that_has_less_than_promised_teaches_the_pool() -> None:
    """A job that fits the promise but not the worker must not make one worker after another."""
    less = Shape(cpus=4000, memory=15 * GiB)
    asks = Shape(cpus=1000, memory=16 * GiB)
    first = plan(snapshot([group(asks=asks)], [ready(shape=less)]))
    assert launched(first) == 0
    assert never(first) == ["memory: job asks 16 GiB, worker has 15 GiB"]
    again = plan(snapshot([group(asks=asks)], notes=first.notes))
    assert launched(again) == 0, "it is remembered when the worker is gone"
    other = plan(snapshot([group(asks=asks)], pools=[pool(config="newer")], notes=first.notes))
    assert launched(other) == 1, "and forgotten with the configuration"


def test_a_group_that_another_pool_has_says_where() -> None:
    found = plan(snapshot([group()], pools=[pool("a"), pool("b")]))
    assert [(v.pool, v.status, v.reason.text) for v in found.verdicts] == [
        ("a", "launching", "1 worker is launched for 1 of them"),
        ("b", "elsewhere", "it fits here, but pool a has it"),
    ]


def test_there_is_a_verdict_for_every_pair() -> None:
    pools = [pool("a", max_workers=0), pool("b", Shape(cpus=500)), pool("c", max_workers=1)]
    groups = [group(f"g{n}", 3 * n + 1, Shape(cpus=1000 * n)) for n in range(6)]
    found = plan(snapshot(groups, pools=pools))
    pairs = {(verdict.group, verdict.pool) for verdict in found.verdicts}
    assert pairs == {(g.key, p.name) for g in groups for p in pools}
    assert all(isinstance(verdict, Verdict) and verdict.reason.text for verdict in found.verdicts)


def test_of_equal_idle_workers_the_longest_idle_stay_free() -> None:
    workers = [ready("old", idle_since=1), ready("new", idle_since=2)]
    found = plan(snapshot([group()], workers, [pool(idle_ms=0, stabilise_ms=0)]))
    assert [action.worker for action in found.actions] == ["old"]  # type: ignore[union-attr]
