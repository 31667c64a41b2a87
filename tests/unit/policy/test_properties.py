"""What holds for every snapshot, however strange."""

import random
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy.worlds import HOUR, MINUTE, NOW, GiB, codes, launched, of_kind
from worker.protocol import Shape, WorkerState
from worker_manager.policy.model import (
    Drain,
    End,
    Failure,
    History,
    JobGroup,
    Launch,
    Limits,
    PoolView,
    Snapshot,
    Undrain,
    WorkerView,
)
from worker_manager.policy.plan import plan

POOLS = ("p", "q")
usual = settings(max_examples=60, deadline=None)
instants = st.integers(NOW - 4 * HOUR, NOW)
maybe = st.none() | instants
shapes = st.builds(
    Shape,
    cpus=st.integers(0, 8).map(lambda n: n * 500),
    memory=st.integers(0, 8).map(lambda n: n * GiB),
    gpus=st.sampled_from((0, 0, 0, 1)),
    tags=st.sampled_from(((), (), ("x",))),
)
histories = st.builds(
    History,
    last_launch_at=maybe,
    last_drain_at=maybe,
    last_success_at=maybe,
    failures=st.lists(
        st.builds(Failure, at=instants, kind=st.sampled_from(("boot", "capacity", "throttled")), text=st.just("no")),
        max_size=12,
    ).map(lambda failures: tuple(sorted(failures, key=lambda failure: failure.at))),
    starts=st.sampled_from(((), (), (MINUTE,), (HOUR, 2 * HOUR))),
)
limits = st.builds(
    lambda low, more, up, down, step, idle, window: Limits(
        min_workers=low,
        max_workers=low + more,
        cooldown_up_ms=up,
        cooldown_down_ms=down,
        step_up=step,
        step_down=step,
        idle_ms=idle,
        stabilise_ms=window,
        max_age_ms=3 * HOUR,
    ),
    st.integers(0, 3),
    st.integers(0, 6),
    st.sampled_from((0, MINUTE)),
    st.sampled_from((0, MINUTE)),
    st.sampled_from((None, 1, 2)),
    st.sampled_from((0, MINUTE, HOUR)),
    st.sampled_from((0, MINUTE)),
)


def pools(name: str) -> st.SearchStrategy[PoolView]:
    return st.builds(
        PoolView,
        name=st.just(name),
        backend=st.just("memory"),
        shape=shapes,
        limits=limits,
        law=st.sampled_from(("pack", "pack", "step", "backlog", "idle")),
        owners=st.sampled_from(((), (), ("ann",))),
        max_batch=st.integers(1, 3),
        readable=st.sampled_from((True, True, True, False)),
        unreadable_text=st.just("no answer"),
        frozen_until=st.sampled_from((None, None, None, NOW + MINUTE)),
        history=histories,
        runs_per_worker=st.sampled_from((None, None, 2)),
    )


@st.composite
def workers(draw: st.DrawFn, number: int) -> WorkerView:
    shape = draw(shapes)
    state = draw(st.sampled_from([state for state in WorkerState.ALL if state != WorkerState.GONE]))
    registered = state in (WorkerState.READY, WorkerState.DRAINING, WorkerState.LOST)
    running = draw(st.integers(0, 2)) if registered else 0
    assigned = draw(st.integers(0, 1)) if registered else 0
    return WorkerView(
        id=f"w{number}",
        pool=draw(st.sampled_from(POOLS)),
        state=state,
        shape=shape,
        free=shape.less(Shape(cpus=500), running + assigned),
        requested_at=draw(instants),
        running=running,
        assigned=assigned,
        runs=draw(st.integers(0, 2)),
        submitted_at=draw(maybe),
        ready_at=draw(instants) if registered else None,
        seen_at=draw(instants) if registered else None,
        idle_since=draw(instants) if registered and not running + assigned else None,
        drain_deadline=draw(st.none() | st.integers(NOW - HOUR, NOW + HOUR)),
        drain_code=draw(st.sampled_from(("", "idle", "operator"))),
        end_asked_at=draw(st.sampled_from((None, None, NOW - HOUR))),
        listed=draw(st.sampled_from((True, False, None))),
        handle=draw(st.sampled_from((None, "h"))),
        known=draw(st.sampled_from((True, True, False))),
    )


groups = st.lists(
    st.builds(
        JobGroup,
        key=st.just(""),
        asks=shapes,
        count=st.integers(0, 40),
        oldest=instants | st.just(NOW),
        owner=st.sampled_from(("ann", "bob")),
        priority=st.integers(0, 2),
        run_ms=st.sampled_from((None, None, 0, 1, 5_000, MINUTE, HOUR)),
        running=st.integers(0, 3),
    ),
    max_size=6,
).map(lambda rows: [replace(row, key=f"g{n}") for n, row in enumerate(rows)])


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    size = draw(st.integers(0, 8))
    return Snapshot(
        now=NOW,
        groups=tuple(draw(groups)),
        workers=tuple(draw(workers(number)) for number in range(size)),
        pools=tuple(draw(pools(name)) for name in POOLS),
    )


def shuffled(view: Snapshot, seed: int) -> Snapshot:
    dice = random.Random(seed)  # noqa: S311

    def mixed(some: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(dice.sample(some, len(some)))

    return replace(view, groups=mixed(view.groups), workers=mixed(view.workers), pools=mixed(view.pools))


@usual
@given(worlds(), st.integers(0, 99))
def test_the_same_snapshot_in_any_order_gives_the_same_plan(view: Snapshot, seed: int) -> None:
    assert plan(view) == plan(view) == plan(shuffled(view, seed))


@usual
@given(worlds())
def test_never_above_the_maximum_nor_the_step(view: Snapshot) -> None:
    found = plan(view)
    for pool in view.pools:
        have = sum(1 for worker in view.workers if worker.pool == pool.name)
        more = launched(found, pool.name)
        assert more == 0 or have + more <= pool.limits.max_workers
        assert pool.limits.step_up is None or more <= pool.limits.step_up
        assert all(launch.count <= pool.max_batch for launch in of_kind(found, Launch) if launch.pool == pool.name)


@usual
@given(worlds())
def test_no_busy_worker_goes_and_none_twice(view: Snapshot) -> None:
    found = plan(view)
    by_id = {worker.id: worker for worker in view.workers}
    for action in found.actions:
        if isinstance(action, Drain | End):
            worker = by_id[action.worker]
            assert not worker.busy or worker.state == WorkerState.LOST
        if isinstance(action, Drain):
            assert by_id[action.worker].state == WorkerState.READY
            assert action.only_if_idle
        if isinstance(action, End):
            assert by_id[action.worker].handle is not None
    named = Counter(action.worker for action in found.actions if not isinstance(action, Launch))
    assert all(times == 1 for times in named.values())


@usual
@given(worlds())
def test_the_minimum_is_never_broken_by_idle_drains(view: Snapshot) -> None:
    found = plan(view)
    for pool in view.pools:
        live = {
            worker.id
            for worker in view.workers
            if worker.pool == pool.name
            and worker.end_asked_at is None
            and worker.state
            in (WorkerState.READY, "requested", WorkerState.SUBMITTED, WorkerState.STARTING, WorkerState.UNKNOWN)
        }
        unneeded = [
            action
            for action in found.actions
            if isinstance(action, Drain | End)
            and action.pool == pool.name
            and action.reason.code in ("idle", "surplus-queued")
        ]
        assert not unneeded or len(live) - len(unneeded) >= pool.limits.min_workers


@usual
@given(worlds())
def test_nothing_is_decided_about_what_is_frozen_or_unreadable(view: Snapshot) -> None:
    closed = {pool.name for pool in view.pools if not pool.readable or pool.frozen_until}
    assert not [action for action in plan(view).actions if action.pool in closed]
    blind = plan(replace(view, backlog_readable=False, backlog_text="no answer"))
    assert blind.actions == ()


@usual
@given(worlds())
def test_every_action_and_every_held_back_launch_has_a_reason_with_its_numbers(view: Snapshot) -> None:
    found = plan(view)
    assert all(action.reason.text for action in found.actions)
    for line in found.pools:
        assert line.reasons
        assert all(reason.text and "{" not in reason.text for reason in line.reasons)
    waiting = Counter[str]()
    for verdict in found.verdicts:
        if verdict.status == "waiting":
            assert verdict.reason.code in codes(found, verdict.pool)
            waiting[verdict.group] = verdict.jobs
    for group in view.groups:
        rows = [verdict for verdict in found.verdicts if verdict.group == group.key]
        placed = sum(verdict.jobs for verdict in rows if verdict.status in ("served", "launching"))
        nowhere = {verdict.jobs for verdict in rows if verdict.status == "never"} if not waiting[group.key] else set()
        assert placed + waiting[group.key] == group.count or nowhere == {group.count - placed}


@usual
@given(worlds())
def test_what_is_due_lies_ahead(view: Snapshot) -> None:
    due = plan(view).next_due
    assert due is None or due > view.now


@usual
@given(worlds())
def test_undrained_workers_drained_for_idleness_only(view: Snapshot) -> None:
    by_id = {worker.id: worker for worker in view.workers}
    for action in of_kind(plan(view), Undrain):
        assert by_id[action.worker].drain_code == "idle"
        assert by_id[action.worker].state == WorkerState.DRAINING


@usual
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.integers(1, 40),
    shapes.filter(lambda asks: asks.cpus > 0),
    st.integers(0, 6),
    st.lists(st.sampled_from((None, 1, 700, 9_000, 50_000, HOUR)), min_size=5, max_size=5),
    st.sampled_from(((), (10_000,), (MINUTE,))),
)
def test_more_jobs_never_want_fewer_workers(
    counts: list[int], more: int, asks: Shape, have: int, run_ms: list[int | None], starts: tuple[int, ...]
) -> None:
    """For jobs that ask alike. With mixed ones the packing may luckily need one less."""
    shape = Shape(cpus=4000, memory=8 * GiB, gpus=1, tags=("x",))
    pool = PoolView("p", "memory", shape, Limits(max_workers=10**6), history=History(starts=starts))
    there = tuple(
        WorkerView(f"w{n}", "p", WorkerState.READY, pool.shape, pool.shape, NOW, ready_at=NOW) for n in range(have)
    )

    def wanted(extra: int) -> int:
        rows = [JobGroup(f"g{n}", asks, count, NOW, run_ms=run_ms[n]) for n, count in enumerate(counts)]
        rows[0] = replace(rows[0], count=rows[0].count + extra)
        return plan(Snapshot(NOW, tuple(rows), there, (pool,))).pools[0].wanted

    assert wanted(more) >= wanted(0)


@usual
@given(worlds())
def test_a_limit_never_raises_and_without_limits_no_fewer_are_launched(view: Snapshot) -> None:
    """Only pools that may take any number are compared: a closed door sends jobs elsewhere."""
    one = replace(view, pools=view.pools[:1], workers=tuple(w for w in view.workers if w.pool == "p"))
    pool = one.pools[0]
    free = Limits(max_workers=10**6, min_workers=pool.limits.min_workers)
    open_pool = replace(pool, limits=free, history=History(), readable=True, frozen_until=None)
    assert launched(plan(one)) <= launched(plan(replace(one, pools=(open_pool,)))) + _recalled(one, open_pool)


def _recalled(view: Snapshot, pool: PoolView) -> int:
    """A closed pool launches instead of taking back idle drains, never more than those."""
    return len(of_kind(plan(replace(view, pools=(pool,))), Undrain))
