from typing import Any

import pytest

from tests.unit.policy.worlds import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    codes,
    drained,
    draining,
    ended,
    group,
    idle,
    launching,
    of_kind,
    pool,
    ready,
    snapshot,
    texts,
    undrained,
)
from worker.protocol import WorkerState
from worker_manager.policy.model import Drain, End, Note, Plan, WorkerView
from worker_manager.policy.plan import plan


def planned(*workers: WorkerView, jobs: int = 0, notes: tuple[Note, ...] = (), **settings: Any) -> Plan:
    groups = [group(count=jobs)] if jobs else []
    return plan(snapshot(groups, list(workers), [pool(**settings)], notes))


def why(found: Plan) -> list[str]:
    return [action.reason.text for action in found.actions]


# ------------------------------------------------ idle


def test_an_idle_worker_that_nobody_wants_is_drained() -> None:
    found = planned(idle(for_ms=11 * MINUTE))
    [drain] = of_kind(found, Drain)
    assert drain.only_if_idle
    assert drain.deadline == NOW + HOUR
    assert why(found) == ["idle for 11m (limit 10m) and not wanted: 0 wanted, 1 here"]


def test_not_before_its_idle_limit_and_the_loop_may_sleep_until_then() -> None:
    found = planned(idle(for_ms=4 * MINUTE))
    assert found.actions == ()
    assert found.next_due == NOW + 6 * MINUTE


def test_a_busy_worker_never_goes() -> None:
    busy = [
        ready("running", used=1, idle_since=NOW - HOUR),
        ready("assigned", assigned=1, idle_since=NOW - HOUR),
        draining("overdue", running=1, idle_since=None),
        ready("told", used=1, end_asked_at=NOW - HOUR),
        ready("orphan", used=1, known=False),
        ready("drifted", used=1, config="old"),
    ]
    assert planned(*busy, max_age_ms=1, retire_drifted=True, config="new", drain_timeout_ms=1).actions == ()


def test_the_one_that_is_idle_for_the_longest_time_goes_first() -> None:
    workers = [idle("a", 20 * MINUTE), idle("b", 40 * MINUTE), idle("c", 30 * MINUTE)]
    assert drained(planned(*workers, min_workers=1)) == ["b", "c"]
    assert drained(planned(*workers, step_down=1)) == ["b"]


def test_a_worker_that_jobs_are_placed_on_stays() -> None:
    workers = [idle("a", 20 * MINUTE), idle("b", 40 * MINUTE)]
    assert drained(planned(*workers, jobs=4)) == ["b"]
    assert drained(planned(*workers, jobs=5)) == []


def test_the_minimum_stays() -> None:
    found = planned(idle("a"), idle("b"), min_workers=2)
    assert found.actions == ()
    assert drained(planned(idle("a"), idle("b"), draining("c"), min_workers=2)) == [], "a draining one does not count"


def test_one_that_was_wanted_a_moment_ago_stays() -> None:
    note = Note("p", "limit:stabilise", 1, {"peaks": [[NOW - MINUTE, 2]]})
    found = planned(idle("a"), idle("b"), idle("c"), notes=(note,))
    assert len(drained(found)) == 1
    assert "2 were wanted within the last 5m: none goes yet" in texts(found)
    assert found.next_due == NOW + 4 * MINUTE


def test_after_one_went_the_others_wait_for_the_cooldown() -> None:
    found = planned(idle("a"), cooldown_down_ms=MINUTE, last_drain_at=NOW - SECOND)
    assert found.actions == ()
    assert codes(found) == ["no-backlog", "cooldown-down"]
    assert found.next_due == NOW + 59 * SECOND


def test_what_is_still_queued_at_the_backend_is_cancelled_first() -> None:
    queued = [launching("q1", requested_at=NOW - 2 * MINUTE), launching("q2")]
    found = planned(*queued, idle("a"), min_workers=1)
    assert [action.worker for action in found.actions] == ["q2", "q1"]  # type: ignore[union-attr]
    assert all(isinstance(action, End) for action in found.actions)
    assert why(found)[0] == "still waits for a machine and is not wanted any more"


def test_what_starts_or_may_exist_is_not_cancelled() -> None:
    states = (WorkerState.REQUESTED, WorkerState.UNKNOWN, WorkerState.STARTING)
    assert planned(*[launching(state, state) for state in states]).actions == ()


def test_a_worker_started_by_hand_goes_when_it_wants_to() -> None:
    assert planned(idle("w", known=False, listed=None)).actions == ()
    assert drained(planned(idle("w", known=False, listed=True))) == ["w"]


def test_workers_of_a_source_without_cordons_are_not_drained() -> None:
    assert planned(idle(registers=False)).actions == ()


def test_a_law_that_keeps_idle_workers_keeps_them() -> None:
    workers = [idle("a", 20 * MINUTE), idle("b", 40 * MINUTE), idle("c", 30 * MINUTE)]
    assert drained(planned(*workers, law="idle", law_options={"idle-workers": 2})) == ["b"]


# ------------------------------------------------ outlived


def test_an_idle_worker_of_an_older_configuration_goes() -> None:
    found = planned(ready(config="old"), config="new", retire_drifted=True)
    assert why(found) == ["launched with an older configuration"]
    assert planned(ready(config="old"), config="new").actions == ()
    assert planned(ready(config=""), config="new", retire_drifted=True).actions == ()


def test_an_idle_worker_that_is_too_old_goes_even_if_the_minimum_wants_another() -> None:
    found = planned(ready(), max_age_ms=HOUR, min_workers=1)
    assert why(found) == ["older than 1h"]
    later = planned(ready(), max_age_ms=2 * HOUR)
    assert later.actions == ()
    assert later.next_due is not None
    assert later.next_due <= NOW + HOUR


def test_an_old_worker_that_jobs_are_placed_on_stays() -> None:
    assert planned(ready(), jobs=1, max_age_ms=HOUR).actions == ()


# ------------------------------------------------ broken

BROKEN = [
    pytest.param(
        launching(state=WorkerState.STARTING, started_at=NOW - 20 * MINUTE),
        "runs for 20m and never registered (limit 15m)",
        id="never-registered",
    ),
    pytest.param(
        launching(state=WorkerState.UNKNOWN, listed=True, submitted_at=NOW - 20 * MINUTE),
        "runs for 20m and never registered (limit 15m)",
        id="listed in a state that nobody knows",
    ),
    pytest.param(
        launching(submitted_at=NOW - 3 * HOUR),
        "waits for a machine for 3h (limit 2h)",
        id="queued-too-long",
    ),
    pytest.param(
        launching(submitted_at=NOW - 3 * HOUR, detail="PENDING: Resources"),
        "waits for a machine for 3h (limit 2h): PENDING: Resources",
        id="queued-too-long, and the platform said why",
    ),
    pytest.param(
        ready(state=WorkerState.LOST, seen_at=NOW - 6 * MINUTE),
        "no sign of life for 6m (limit 5m)",
        id="lost",
    ),
    pytest.param(
        launching(state=WorkerState.STARTING, known=False),
        "listed by the backend, unknown to the ledger",
        id="orphaned",
    ),
    pytest.param(
        ready(state=WorkerState.DRAINING, drain_deadline=NOW - 1),
        "drains for longer than 1h",
        id="drain-overdue",
    ),
]


@pytest.mark.parametrize(("worker", "text"), BROKEN)
def test_what_is_broken_is_ended_whatever_is_wanted(worker: WorkerView, text: str) -> None:
    found = planned(worker, jobs=1, min_workers=1, queue_timeout_ms=2 * HOUR)
    [end] = of_kind(found, End)
    assert (end.worker, end.force, end.reason.text) == (worker.id, False, text)


def test_what_does_not_end_is_forced_and_forced_again() -> None:
    told = ready(state=WorkerState.STUCK, end_asked_at=NOW - MINUTE)
    [end] = of_kind(planned(told), End)
    assert (end.force, end.reason.text) == (True, "was asked to end 1m ago (grace 1m)")
    forced = ready(state=WorkerState.STUCK, end_asked_at=NOW - HOUR, force_asked_at=NOW - SECOND)
    assert planned(forced).actions == ()
    assert planned(forced).next_due == NOW + 59 * SECOND
    assert ended(planned(ready(end_asked_at=NOW - HOUR, force_asked_at=NOW - MINUTE))) == ["w"]


def test_every_timeout_wakes_the_loop_when_it_is_due() -> None:
    def due(worker: WorkerView, **settings: Any) -> int | None:
        found = planned(worker, jobs=1, **settings)
        assert of_kind(found, End) == []
        return found.next_due

    assert due(launching(state=WorkerState.STARTING, started_at=NOW - MINUTE)) == NOW + 14 * MINUTE
    assert due(launching(), queue_timeout_ms=HOUR) == NOW + 59 * MINUTE
    assert due(ready(state=WorkerState.LOST, seen_at=NOW - MINUTE)) == NOW + 4 * MINUTE
    assert due(draining(code="operator")) == NOW + HOUR
    assert due(ready(end_asked_at=NOW)) == NOW + MINUTE


def test_waiting_for_a_machine_is_not_booting() -> None:
    assert planned(launching(submitted_at=NOW - 9 * HOUR), jobs=1).actions == ()
    long_queued = launching(state=WorkerState.STARTING, submitted_at=NOW - 9 * HOUR, started_at=NOW - MINUTE)
    assert planned(long_queued, jobs=1).actions == ()


def test_an_orphan_that_registered_is_a_worker_like_any_other() -> None:
    assert ended(planned(ready(known=False))) == []
    assert ended(planned(launching(known=False, state=WorkerState.STARTING, listed=True))) == ["w"]


def test_what_has_no_handle_cannot_be_ended_yet() -> None:
    assert planned(launching(state=WorkerState.STARTING, started_at=NOW - HOUR, handle=None)).actions == ()


def test_workers_that_do_not_register_are_not_late() -> None:
    late = launching(state=WorkerState.STARTING, started_at=NOW - HOUR, registers=False)
    assert planned(late).actions == ()


@pytest.mark.parametrize("closed", [{"readable": False}, {"frozen_until": NOW + 1}])
def test_nothing_goes_from_a_pool_of_which_nothing_is_decided(closed: dict[str, Any]) -> None:
    workers = [idle(), launching("x", WorkerState.STARTING, started_at=NOW - HOUR), ready("y", end_asked_at=1)]
    assert planned(*workers, **closed).actions == ()


def test_an_overdue_drain_is_ended_and_not_called_back_as_well() -> None:
    found = planned(draining(drain_deadline=NOW), jobs=1)
    assert ended(found) == ["w"]
    assert undrained(found) == []


# ------------------------------------------------ a pool that is no longer configured


def test_a_pool_that_is_no_longer_configured_is_wound_up() -> None:
    old = pool("old", configured=False, min_workers=2)
    workers = [
        ready("busy", used=2, pool="old"),
        ready("idle", pool="old"),
        ready("stranger", pool="old", known=False, listed=False),
        draining("goes", pool="old", code="operator"),
        launching("queued", pool="old"),
        launching("starts", WorkerState.STARTING, pool="old"),
        launching("asked", WorkerState.REQUESTED, pool="old", listed=None, handle=None),
    ]
    found = plan(snapshot([group(count=3)], workers, [old, pool("new")]))
    assert {(type(a).__name__, getattr(a, "worker", a.pool)) for a in found.actions} == {
        ("Drain", "busy"),
        ("Drain", "idle"),
        ("End", "queued"),
        ("Launch", "new"),
    }
    assert {action.reason.code for action in found.actions} == {"unconfigured", "backlog"}
    assert not any(action.only_if_idle for action in of_kind(found, Drain)), "they finish what they have"
    line = next(line for line in found.pools if line.pool == "old")
    assert (line.wanted, line.ready, line.draining, line.requested) == (0, 3, 1, 1)
    assert {verdict.pool for verdict in found.verdicts} == {"new"}, "no job is told to hope for it"


def test_nothing_is_decided_about_one_that_cannot_be_read() -> None:
    old = pool(configured=False, readable=False, unreadable_text="no answer")
    found = plan(snapshot(workers=[ready()], pools=[old]))
    assert found.actions == ()
    assert codes(found) == ["unconfigured", "backend-unreadable"]
