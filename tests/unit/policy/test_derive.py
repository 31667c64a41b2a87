from dataclasses import replace

import pytest

from tests.unit.policy.worlds import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SHAPE,
    fact,
    group,
    intent,
    launched,
    listing,
    settings,
    undrained,
)
from worker.protocol import Shape, WorkerState
from worker_manager.policy.derive import PHASES, SOURCES, derive, state_of
from worker_manager.policy.facts import BacklogFact, Memory, PoolMemory, Sight, Sights
from worker_manager.policy.model import Snapshot, WorkerView
from worker_manager.policy.plan import plan

REQ, SUB, STA, REA, DRA, GON, UNK, LOS = (
    WorkerState.REQUESTED,
    WorkerState.SUBMITTED,
    WorkerState.STARTING,
    WorkerState.READY,
    WorkerState.DRAINING,
    WorkerState.GONE,
    WorkerState.UNKNOWN,
    WorkerState.LOST,
)
ASK = "as the create call said"
# Written out a second time, on purpose: the life-cycle is a promise, and a change of any cell is to be noticed.
EXPECTED = {
    #            pending starting running ending ended unknown absent vanished unreadable
    "unheard": (SUB, STA, STA, DRA, GON, UNK, ASK, GON, ASK),
    "foreign": (SUB, STA, REA, DRA, GON, UNK, ASK, GON, ASK),
    "ready": (REA, REA, REA, DRA, GON, REA, REA, REA, REA),
    "draining": (DRA, DRA, DRA, DRA, GON, DRA, DRA, DRA, DRA),
    "lost": (LOS, LOS, LOS, LOS, GON, LOS, LOS, GON, LOS),
    "gone": (DRA, DRA, DRA, DRA, GON, DRA, GON, GON, DRA),
}
CELLS = [
    (call, phase, source, expected)
    for source, row in EXPECTED.items()
    for phase, expected in zip(PHASES, row, strict=True)
    for call in ("requested", "submitted", "unknown")
]


@pytest.mark.parametrize(("call", "phase", "source", "expected"), CELLS)
def test_every_cell_of_the_life_cycle(call: str, phase: str, source: str, expected: str) -> None:
    as_called = {"requested": REQ, "submitted": SUB, "unknown": UNK}[call]
    assert state_of(call, phase, source) == (as_called if expected is ASK else expected)


def test_the_table_is_complete() -> None:
    assert set(EXPECTED) == set(SOURCES)


def derived(
    *intents: object, sights: Sights | None = None, facts: tuple[object, ...] = (), **backlog: object
) -> Snapshot:
    memory = Memory(intents=tuple(intents))  # type: ignore[arg-type]
    seen = {"p": sights if sights is not None else listing()}
    return derive(NOW, [settings()], memory, seen, BacklogFact(1, (), tuple(facts), **backlog))  # type: ignore[arg-type]


def only(snapshot: Snapshot) -> WorkerView:
    [worker] = snapshot.workers
    return worker


def test_an_intent_whose_create_was_ambiguous_counts() -> None:
    assert only(derived(intent(state="unknown"))).state == WorkerState.UNKNOWN
    assert only(derived(intent(state="requested"))).state == WorkerState.REQUESTED


def test_a_live_worker_counts_whatever_a_listing_says() -> None:
    worker = only(derived(intent(missed_listings=7, registered_at=NOW - HOUR), facts=(fact(),)))
    assert worker.state == WorkerState.READY


def test_one_missing_listing_does_not_make_a_worker_go() -> None:
    assert only(derived(intent(missed_listings=1))).state == WorkerState.SUBMITTED
    assert derived(intent(missed_listings=2)).workers == ()


def test_an_end_is_not_believed_while_the_source_heard_from_it_after_the_listing() -> None:
    ended = listing(("w", "ended"))
    assert derived(intent(), sights=ended, facts=(fact(seen_at=NOW - MINUTE),)).workers == ()
    assert only(derived(intent(), sights=ended, facts=(fact(seen_at=NOW),))).state == WorkerState.READY


def test_a_listing_older_than_the_worker_says_nothing_of_it() -> None:
    young = intent(submitted_at=NOW - SECOND // 2)
    worker = only(derived(young))
    assert worker.listed is None
    assert only(derived(intent())).listed is False
    assert only(derived(intent(), sights=listing(("w", "running")))).listed is True


def test_a_listing_with_a_page_missing_says_nothing_of_those_it_lacks() -> None:
    assert only(derived(intent(), sights=listing(complete=False))).listed is None


def test_an_unreadable_backend_keeps_all_workers_and_closes_the_pool() -> None:
    snapshot = derived(intent(), sights=Sights(NOW, failed="no answer"))
    assert [worker.state for worker in snapshot.workers] == [WorkerState.SUBMITTED]
    assert not snapshot.pools[0].readable
    assert snapshot.pools[0].unreadable_text == "no answer"


def test_a_pool_that_was_never_listed_is_unreadable() -> None:
    snapshot = derive(NOW, [settings()], Memory(), {}, BacklogFact())
    assert not snapshot.pools[0].readable


def test_a_silent_source_turns_no_worker_into_one_that_never_registered() -> None:
    snapshot = derived(intent(registered_at=NOW - HOUR), sights=listing(("w", "running")), failed="connection refused")
    assert only(snapshot).state == WorkerState.READY
    assert not snapshot.backlog_readable
    assert snapshot.backlog_text == "connection refused"


def test_one_that_registered_and_is_forgotten_by_the_source_has_left() -> None:
    worker = only(derived(intent(registered_at=NOW - HOUR), sights=listing(("w", "running"))))
    assert worker.state == WorkerState.DRAINING
    assert worker.drain_deadline is not None


def test_a_worker_that_said_goodbye_is_not_called_back_while_its_machine_still_goes() -> None:
    left = derived(
        intent(registered_at=NOW - HOUR),
        sights=listing(("w", "running")),
        facts=(fact(state="gone", drain_code="idle", drain_deadline=NOW),),
    )
    assert only(left).state == WorkerState.DRAINING
    found = plan(replace(left, groups=(group(),)))
    assert (launched(found), undrained(found)) == (1, [])


def test_a_worker_that_nobody_asked_for_appears_so_that_it_can_be_ended() -> None:
    worker = only(derived(sights=listing(("x", "running"))))
    assert (worker.id, worker.known, worker.state) == ("x", False, WorkerState.STARTING)


def test_an_ended_worker_that_nobody_asked_for_does_not_appear() -> None:
    assert derived(sights=listing(("x", "ended"))).workers == ()


def test_a_worker_started_by_hand_is_capacity() -> None:
    worker = only(derived(facts=(fact("by-hand"),)))
    assert (worker.state, worker.known, worker.listed) == (WorkerState.READY, False, False)


def test_a_worker_that_said_goodbye_and_nobody_else_knows_is_no_worker() -> None:
    assert derived(facts=(fact("x", "gone"),), sights=Sights(NOW, failed="down")).workers == ()


def test_told_to_end_and_still_there_is_stuck_unless_it_works() -> None:
    told = intent(end_asked_at=NOW - HOUR)
    seen = listing(("w", "running"))
    assert only(derived(told, sights=seen)).state == WorkerState.STUCK
    assert only(derived(told, sights=seen, facts=(fact("w", "draining", running=1),))).state == WorkerState.DRAINING


def test_where_workers_do_not_register_a_running_one_has_no_known_room() -> None:
    worker = only(derived(intent(), sights=listing(("w", "running")), registers=False))
    assert (worker.state, worker.free, worker.idle_since) == (WorkerState.READY, Shape(cpus=0), None)


def test_what_the_worker_says_it_has_comes_before_the_promise() -> None:
    smaller = Shape(cpus=2000)
    worker = only(derived(intent(), facts=(fact(shape=smaller, free=smaller),)))
    assert worker.shape == smaller
    assert only(derived(intent())).shape == SHAPE


def test_a_freeze_that_is_over_is_gone() -> None:
    def frozen(until: int) -> int | None:
        memory = Memory(pools={"p": PoolMemory(frozen_until=until, freeze_text="maintenance")})
        return derive(NOW, [settings()], memory, {"p": listing()}, BacklogFact()).pools[0].frozen_until

    assert frozen(NOW) is None
    assert frozen(NOW + 1) == NOW + 1


def test_workers_of_pools_that_are_not_configured_are_left_alone() -> None:
    assert derived(intent(pool="removed")).workers == ()


def test_the_platforms_words_and_start_come_along() -> None:
    seen = Sights(NOW, (Sight("w", "running", "h", started_at=NOW - 5, detail="node7"),))
    worker = only(derived(intent(), sights=seen))
    assert (worker.started_at, worker.detail, worker.handle) == (NOW - 5, "node7", "h")


def test_the_order_of_what_was_observed_does_not_matter() -> None:
    groups = tuple(group(f"g{n}") for n in range(5))
    intents = tuple(intent(f"w{n}") for n in range(5))
    pools = [settings("q"), settings("p")]

    def world(step: int) -> Snapshot:
        seen = listing(*[(f"w{n}", "running") for n in range(5)][::step])
        return derive(
            NOW, pools[::step], Memory(intents[::step]), {"p": seen, "q": listing()}, BacklogFact(1, groups[::step])
        )

    assert world(1) == world(-1)
