"""Workers that their platform is about to end: drained in time, replaced at once, answered for as they stand."""

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
    fact,
    group,
    idle,
    intent,
    launched,
    launching,
    listing,
    of_kind,
    pool,
    ready,
    settings,
    snapshot,
    texts,
    undrained,
)
from worker.protocol import WorkerState
from worker_manager.policy.derive import derive
from worker_manager.policy.facts import BacklogFact, Memory
from worker_manager.policy.model import Drain, Plan, Warned, WorkerView
from worker_manager.policy.notices import GIVE_UP, HOLD, MARGIN_MS, RELEASE, WAIT, answer
from worker_manager.policy.plan import plan


def notice(in_ms: int | None = None, handle: str = "handle-w", id: str = "n1") -> Warned:
    return Warned(id, handle, "spot interruption", None if in_ms is None else NOW + in_ms)


def planned(*workers: WorkerView, jobs: int = 0, **more: Any) -> Plan:
    return plan(snapshot([group(count=jobs)] if jobs else [], list(workers), [pool(**more)]))


@pytest.mark.parametrize(
    ("left", "for_jobs"),
    [
        (2 * MINUTE, 2 * MINUTE - MARGIN_MS),
        (30 * SECOND, 20 * SECOND),
        (0, 0),
        (-MINUTE, -MINUTE),
        (None, HOUR),
        (48 * HOUR, HOUR),
    ],
)
def test_a_busy_worker_gets_the_time_that_there_is_less_a_margin(left: int | None, for_jobs: int) -> None:
    found = planned(ready(used=2, notice=notice(left)))
    [drain] = of_kind(found, Drain)
    assert drain.deadline == NOW + for_jobs
    assert not drain.only_if_idle
    assert drain.reason.code == "platform-notice"
    assert "spot interruption" in drain.reason.text
    assert texts(found)[-1] == "the platform is about to end 1 worker: spot interruption"


def test_what_holds_other_drains_back_does_not_hold_this_one() -> None:
    found = planned(
        *(ready(f"w{n}", notice=notice(MINUTE, f"handle-w{n}"), used=1) for n in range(3)),
        min_workers=3,
        cooldown_down_ms=HOUR,
        last_drain_at=NOW - SECOND,
        step_down=1,
        frozen_until=NOW + HOUR,
        freeze_text="maintenance",
    )
    assert drained(found) == ["w0", "w1", "w2"]
    assert "frozen" in codes(found)


def test_nor_does_a_backend_that_cannot_be_listed() -> None:
    assert drained(planned(ready(used=1, notice=notice(MINUTE)), readable=False, unreadable_text="no")) == ["w"]


def test_a_pool_that_is_no_longer_configured_heeds_them_too() -> None:
    busy = ready(used=1, notice=notice(2 * MINUTE))
    found = planned(busy, ready("other", used=1), configured=False)
    assert sorted(drained(found)) == ["other", "w"]
    deadlines = {drain.worker: drain.deadline for drain in of_kind(found, Drain)}
    assert deadlines["w"] == NOW + 90 * SECOND


def test_a_warned_worker_takes_no_jobs_and_is_replaced_in_the_same_plan() -> None:
    found = planned(ready(notice=notice(MINUTE)), jobs=1)
    assert (drained(found), launched(found)) == (["w"], 1)
    assert launched(planned(ready(), jobs=1)) == 0
    [line] = found.pools
    assert (line.ready, line.idle, line.draining, line.drain) == (1, 1, 0, 1)


def test_it_does_not_count_for_the_minimum_and_is_not_called_back() -> None:
    found = planned(ready(notice=notice(MINUTE)), draining("d", notice=notice(MINUTE, "handle-d")), min_workers=1)
    assert launched(found) == 1
    assert undrained(found) == []


def test_a_drain_is_not_repeated_and_only_ever_brought_forward() -> None:
    told = notice(10 * MINUTE)
    at = NOW + 10 * MINUTE - MARGIN_MS
    assert drained(planned(draining(code="platform-notice", drain_deadline=at, notice=told))) == []
    assert drained(planned(draining(code="operator", drain_deadline=NOW + MINUTE, notice=told))) == []
    [sooner] = of_kind(planned(draining(code="operator", drain_deadline=NOW + HOUR, notice=told)), Drain)
    assert sooner.deadline == at
    assert drained(planned(draining(code="operator", drain_deadline=None, notice=told))) == ["w"]
    waits = planned(draining(code="platform-notice", drain_deadline=NOW + MINUTE, notice=notice()))
    assert drained(waits) == [], "a platform that waits for an answer is no reason to begin anew"


def test_an_idle_worker_is_drained_once_not_twice() -> None:
    found = planned(idle(for_ms=HOUR, notice=notice(MINUTE)))
    assert drained(found) == ["w"]
    assert of_kind(found, Drain)[0].reason.code == "platform-notice"


def test_one_that_never_came_or_has_left_is_nobodys_to_drain() -> None:
    assert planned(launching(state=WorkerState.STARTING, notice=notice(MINUTE))).actions == ()
    gone = draining(code="", left=True, drain_deadline=NOW + HOUR, notice=notice(MINUTE))
    assert drained(planned(gone)) == []
    assert ended(planned(gone)) == []


def test_a_launch_on_its_way_to_its_end_is_no_room_to_come() -> None:
    doomed = launching(state=WorkerState.STARTING, notice=notice(MINUTE))
    assert launched(planned(doomed, jobs=1)) == 1
    assert launched(planned(launching(state=WorkerState.STARTING), jobs=1)) == 0


# ------------------------------------------------ whom a notice means


def test_a_notice_finds_its_worker_by_what_the_backend_calls_it() -> None:
    notices = {"p": (notice(HOUR, id="a"), notice(id="b"), notice(MINUTE, id="c"), notice(handle="", id="d"))}
    memory = Memory((intent("w"), intent("v")))
    backlog = BacklogFact(1, (), (fact("w"), fact("v")))
    seen = {"p": listing(("w", "running"), ("v", "running"))}
    [v, w] = derive(NOW, [settings()], memory, seen, backlog, notices).workers
    assert (v.id, v.notice) == ("v", None)
    assert w.notice is not None
    assert w.notice.id == "c", "the one that leaves it the least time"
    [_, unread] = derive(NOW, [settings()], memory, {}, backlog, notices).workers
    assert unread.notice is not None, "the ledger knows its handle"
    [_, other] = derive(NOW, [settings()], memory, seen, backlog, {"q": notices["p"]}).workers
    assert other.notice is None


# ------------------------------------------------ what the platform hears


@pytest.mark.parametrize(
    ("worker", "what"),
    [
        (ready(used=1), HOLD),
        (draining(used=1), HOLD),
        (draining(), HOLD),
        (draining(left=True), RELEASE),
        (ready(state=WorkerState.LOST), RELEASE),
        (ready(state=WorkerState.STUCK), RELEASE),
        (launching(state=WorkerState.STARTING), GIVE_UP),
        (launching(state=WorkerState.UNKNOWN), GIVE_UP),
        (launching(state=WorkerState.READY, registers=False), WAIT),
    ],
)
def test_a_platform_waits_as_long_as_its_worker_is_heard(worker: WorkerView, what: str) -> None:
    assert answer(notice(), worker, looked_for=True) == what


def test_a_notice_for_nobody_is_released_once_that_is_certain() -> None:
    assert answer(notice(handle=""), None, looked_for=False) == RELEASE
    assert answer(notice(), None, looked_for=False) == WAIT
    assert answer(notice(), None, looked_for=True) == RELEASE
