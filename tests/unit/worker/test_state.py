"""The agent's decisions, event by event, on a clock that stands in a variable."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.happened import Ended, GpusLeft, Hooked, Progressed, Started
from worker.orders import Cancel, EndAll, Exit, Extend, HandBackBy, LookAtGpus, Order, Recall, Say, Start
from worker.outbox import Outbox
from worker.spool import Spool
from worker.state import State
from worker.terms import FAREWELL_MS, LAST_MARGIN_MS, LAST_STRETCH_MS, SETTLE_MS, SHAPE_MS, Terms, early

LEASE = 60_000


def a_state(**terms: Any) -> State:
    outbox = Outbox(session=7, heartbeat_ms=15_000, spool=Spool("/nowhere"), now=0)
    return State({"session": 7, "lease_ms": LEASE}, Terms(**terms), outbox, 0, 0)


def job(name: str, epoch: int = 1) -> dict[str, Any]:
    return {"job": name, "epoch": epoch, "command": ["true"]}


def assigned(state: State, *names: str, now: int = 1, seq: int = 1, **more: Any) -> list[Order]:
    return state.polled({"seq": seq, "assign": [job(name) for name in names], **more}, now, now)


def started(name: str, epoch: int = 1) -> Started:
    return Started(name, epoch, 1000)


def ended(name: str, epoch: int = 1, outcome: str = "succeeded") -> Ended:
    return Ended({"job": name, "epoch": epoch, "outcome": outcome})


def only(kind: type, orders: list[Order]) -> Any:
    found = [order for order in orders if isinstance(order, kind)]
    assert len(found) == 1, orders
    return found[0]


def none_of(kind: type, orders: list[Order]) -> bool:
    return not any(isinstance(order, kind) for order in orders)


def exchange(state: State, now: int, **answer: Any) -> list[Order]:
    """The next report, delivered and acknowledged."""
    report = state.report(now)
    return state.reported({"ack": report["seq"], **answer}, now, now)


# ---------------------------------------------------------------- assignments


def test_an_assignment_is_started_and_acknowledged_by_the_next_poll() -> None:
    state = a_state()
    orders = assigned(state, "j1", "j2")
    assert [each["job"] for each in only(Start, orders).assignments] == ["j1", "j2"]
    assert state.poll() == {"session": 7, "ack": 1}


@pytest.mark.parametrize("moment", ["queued", "running", "over"])
def test_a_repeated_assignment_never_starts_twice(moment: str) -> None:
    state = a_state()
    assigned(state, "j1")
    if moment != "queued":
        state.happened([started("j1")], 2)
    if moment == "over":
        state.happened([ended("j1")], 3)
    assert none_of(Start, assigned(state, "j1", now=4, seq=1)), "the same message again"
    assert none_of(Start, assigned(state, "j1", now=5, seq=2)), "in a newer message"


def test_a_new_epoch_of_a_job_starts() -> None:
    state = a_state()
    assigned(state, "j1")
    state.happened([started("j1"), ended("j1")], 2)
    orders = state.polled({"seq": 2, "assign": [job("j1", 2)]}, 3, 3)
    assert only(Start, orders).assignments[0]["epoch"] == 2


def test_a_job_that_is_cancelled_with_its_assignment_never_starts() -> None:
    state = a_state()
    orders = assigned(state, "j1", "j2", cancel=[{"job": "j1", "epoch": 1, "reason": "by ann"}])
    assert [each["job"] for each in only(Start, orders).assignments] == ["j2"]
    (result,) = state.report(2)["results"]
    assert (result["job"], result["outcome"]) == ("j1", "cancelled")


def test_a_cancel_and_a_recall_reach_the_keeper_only_where_they_concern_it() -> None:
    state = a_state()
    assigned(state, "j1", "j2")
    state.happened([started("j1")], 2)
    told = {"cancel": [{"job": "j1", "epoch": 1}], "recall": [{"job": "j1", "epoch": 1}, {"job": "j2", "epoch": 1}]}
    orders = state.polled({"seq": 2, **told}, 3, 3)
    assert only(Cancel, orders)[:2] == ("j1", 1)
    assert only(Recall, orders).attempts == [("j2", 1)], "what runs is not recalled"


def test_attempts_that_are_no_longer_ours_are_killed_at_once() -> None:
    state = a_state()
    assigned(state, "j1")
    state.happened([started("j1")], 2)
    cancel = only(Cancel, exchange(state, 3, stale=[["j1", 1]]))
    assert (cancel.job, cancel.grace_ms) == ("j1", 0)


# ---------------------------------------------------------------- lease


def test_any_answer_renews_the_lease_from_when_it_was_asked() -> None:
    state = a_state()
    extend = only(Extend, state.polled({"seq": 0, "lease_ms": 10_000}, 2_000, 5_000))
    assert extend == Extend(10_000, 2_000)
    assert state.lease.ends == 12_000
    state.polled({"seq": 0}, 1_000, 6_000)
    assert state.lease.ends == 12_000, "an older request that is answered later takes nothing away"


def test_it_fences_before_the_lease_ends_and_only_once() -> None:
    state = a_state()
    assigned(state, "j1")
    fence = state.lease.fence_at
    assert fence < state.lease.ends
    assert none_of(EndAll, state.tick(fence - 1))
    assert only(EndAll, state.tick(fence)).grace_ms == 0
    assert none_of(EndAll, state.tick(fence + 1))
    assert state.wake_at(fence + 1) > fence + 1


def test_a_fenced_worker_works_again_when_the_same_session_answers() -> None:
    state = a_state()
    assigned(state, "j1")
    state.tick(LEASE)
    assert state.fenced
    state.happened([ended("j1", outcome="returned")], LEASE + 10)
    exchange(state, LEASE + 1000)
    assert not state.fenced
    assert only(Start, assigned(state, "j2", now=LEASE + 1001, seq=2))


def test_without_jobs_the_keeper_outlives_a_silence_but_a_job_gets_the_true_lease() -> None:
    state = a_state()
    assert only(Extend, state.tick(LEASE // 2)) == Extend(LEASE, LEASE // 2)
    assert none_of(Extend, state.tick(LEASE // 2 + 1))
    late = state.polled({"seq": 1, "assign": [job("j1")]}, 5, LEASE // 2 + 2)
    extends = [order for order in late if isinstance(order, Extend)]
    assert extends[-1] == Extend(LEASE, 5)
    assert late.index(extends[-1]) < late.index(only(Start, late))


@pytest.mark.parametrize(
    ("terms", "after"),
    [
        ({}, 3_600_000),
        ({"idle_exit_ms": 5_000}, 5_000 + LEASE),
        ({"dead_man_ms": 70_000}, 70_000),
        ({"dead_man_ms": 7_000}, LEASE),
    ],
)
def test_the_dead_mans_switch_ends_only_a_worker_without_jobs(terms: dict[str, Any], after: int) -> None:
    idle = a_state(**terms)
    assert none_of(Exit, idle.tick(after - 1))
    assert only(Exit, idle.tick(after)).reason == "hub-unreachable"
    busy = a_state(**terms)
    assigned(busy, "j1", now=0)
    assert none_of(Exit, busy.tick(after + 1))


# ---------------------------------------------------------------- drain


def test_a_drain_by_the_hub_finishes_what_runs_gives_back_the_rest_and_leaves() -> None:
    state = a_state()
    assigned(state, "j1", "j2")
    state.happened([started("j1")], 2)
    orders = state.polled({"seq": 2, "drain": {"reason": "idle", "deadline_ms": None}}, 3, 3)
    assert only(Recall, orders).attempts == [("j2", 1)]
    state.happened([ended("j2", outcome="returned")], 4)
    assert not state.leaving
    state.happened([ended("j1")], 5)
    report = state.report(6)
    assert (report["leaving"], len(report["results"])) == ("idle", 2)
    assert only(Exit, state.reported({"ack": report["seq"]}, 6, 7)) == Exit(0, "idle")


def test_the_hub_may_take_its_drain_back_but_not_ours() -> None:
    state = a_state()
    assigned(state, "j1")
    state.polled({"seq": 2, "drain": {"reason": "operator"}}, 2, 2)
    state.polled({"seq": 3, "drain": None}, 3, 3)
    assert state.drain is None
    assert not state.report(3)["draining"], "the hub may take back only what is not the worker's own"
    state.reported({"ack": 1}, 3, 3)
    state.signalled(4)
    state.polled({"seq": 4, "drain": None}, 5, 5)
    assert state.drain is not None
    assert state.report(6)["draining"]


def test_a_drains_deadline_counts_by_the_hubs_clock_and_ends_what_still_runs() -> None:
    state = a_state()
    assigned(state, "j1")
    state.happened([started("j1")], 2)
    drain = {"reason": "spot", "deadline_ms": 1_000_005_000}
    state.polled({"seq": 2, "drain": drain, "now_ms": 1_000_000_000}, 100, 100)
    assert state.wake_at(100) == 5_100
    assert none_of(EndAll, state.tick(5_099))
    assert only(EndAll, state.tick(5_100)).reason == "drained"


def test_the_first_signal_drains_the_second_stops_the_third_exits() -> None:
    state = a_state()
    assigned(state, "j1", "j2")
    state.happened([started("j1")], 2)
    first = state.signalled(3)
    assert only(Recall, first).attempts == [("j2", 1)]
    assert none_of(EndAll, first)
    assert state.signalled(4) == [], "the same one, passed on by a parent"
    assert only(EndAll, state.signalled(1003)).grace_ms == 0
    assert only(Exit, state.signalled(2003)).code == 1


def test_with_pass_down_the_first_signal_ends_the_jobs_with_grace_the_second_at_once() -> None:
    state = a_state(pass_down=True)
    assigned(state, "j1")
    assert only(EndAll, state.signalled(2)).grace_ms > 0
    assert only(EndAll, state.signalled(1002)).grace_ms == 0


def test_what_comes_after_our_own_drain_is_given_back_at_once() -> None:
    state = a_state()
    state.signalled(1)
    orders = assigned(state, "j1", now=2)
    assert none_of(Start, orders)
    (result,) = state.report(3)["results"]
    assert (result["job"], result["outcome"], result["reason"]) == ("j1", "returned", "signal")


def test_our_own_drain_leaves_only_after_the_hub_knew_of_it_for_a_while() -> None:
    state = a_state()
    state.signalled(10)
    assert state.report_at() == 0, "the hub is told at once"
    exchange(state, 20)
    assert not state.leaving
    assert state.wake_at(21) == 20 + SETTLE_MS
    state.tick(20 + SETTLE_MS)
    assert state.leaving == "signal"


def test_stop_hands_everything_back_and_does_not_wait_for_ever() -> None:
    state = a_state()
    assigned(state, "j1")
    assert only(EndAll, state.polled({"seq": 2, "stop": True}, 5, 5)).grace_ms == 0
    assert none_of(Exit, state.tick(5 + FAREWELL_MS - 1))
    assert only(Exit, state.tick(5 + FAREWELL_MS)).code == 1


# ---------------------------------------------------------------- leaving by itself


def test_a_launched_worker_never_leaves_for_idleness_without_the_hub() -> None:
    state = a_state(idle_exit_ms=1_000)
    state.polled({"seq": 0}, 1_999, 1_999)
    state.tick(2_000)
    assert state.drain is None


def test_one_started_by_hand_asks_when_it_was_idle_and_stays_when_it_was_not() -> None:
    state = a_state(idle_exit_ms=1_000, asks_to_leave=True)
    assigned(state, "j1", now=500)
    state.tick(1_500)
    assert state.drain is None
    state.happened([started("j1"), ended("j1")], 2_000)
    state.tick(2_999)
    assert state.drain is None
    state.tick(3_000)
    assert state.drain is not None
    assert state.drain.reason == "idle"


def test_after_its_number_of_runs_it_takes_no_more_and_leaves() -> None:
    state = a_state(max_runs=2)
    orders = assigned(state, "j1", "j2", "j3")
    assert len(only(Start, orders).assignments) == 2
    state.happened([started("j1"), ended("j1")], 2)
    assert state.drain is None
    state.happened([started("j2"), ended("j2")], 3)
    assert state.drain is not None
    report = state.report(4)
    assert {each["job"]: each["outcome"] for each in report["results"]}["j3"] == "returned"
    assert report["draining"]


def test_before_its_walltime_ends_it_takes_no_more_and_then_gives_back_what_runs() -> None:
    state = a_state(ends_at=3_000_000)
    assigned(state, "j1", now=2_930_000)
    state.happened([started("j1")], 2_930_001)
    assert state.wake_at(2_930_002) == 3_000_000 - LAST_STRETCH_MS
    state.tick(3_000_000 - LAST_STRETCH_MS)
    assert state.drain is not None
    assert state.drain.reason == "walltime"
    assert only(EndAll, state.tick(3_000_000 - LAST_MARGIN_MS)).reason == "drained"


@pytest.mark.parametrize("by_hub", [True, False])
def test_a_worker_that_drains_already_gives_back_what_runs_before_its_walltime_ends(by_hub: bool) -> None:
    state = a_state(ends_at=3_000_000)
    assigned(state, "j1", now=2_000_000)
    state.happened([started("j1")], 2_000_001)
    if by_hub:
        state.polled({"seq": 2, "drain": {"reason": "idle"}}, 2_000_002, 2_000_002)
    else:
        state.signalled(2_000_002)
    assert state.drain is not None
    state.reported({"ack": 1}, 2_960_000, 2_960_000)  # the lease holds
    assert state.wake_at(2_960_000) == 3_000_000 - LAST_MARGIN_MS
    assert not [order for order in state.tick(3_000_000 - LAST_MARGIN_MS - 1) if isinstance(order, EndAll)]
    assert only(EndAll, state.tick(3_000_000 - LAST_MARGIN_MS)).reason == "drained"


def test_a_notice_brings_the_end_nearer_and_never_puts_it_off() -> None:
    state = a_state(notice_ms=90_000)
    assert only(Say, state.noticed(100_000)) == Say("notice", {"ends_in_ms": 90_000})
    state.noticed(120_000)
    assert state.terms.ends_at == 190_000
    assert state.wake_at(120_000) == 190_000 - LAST_STRETCH_MS
    state.tick(190_000 - LAST_STRETCH_MS)
    assert state.drain is not None
    assert state.drain.reason == "walltime"


def test_a_warning_ends_it_in_time_and_says_why() -> None:
    state = a_state()
    assigned(state, "j1", "j2")
    state.happened([started("j1")], 2)
    orders = state.warned("spot-interruption", "EC2 says so", 120_000, 1000)
    assert only(Recall, orders).attempts == [("j2", 1)]
    assert none_of(EndAll, orders), "what runs has its time"
    report = state.report(1001)
    assert (report["draining"], report["why"]) == (True, {"code": "spot-interruption", "text": "EC2 says so"})
    state.reported({"ack": 1}, 50_000, 50_000)
    ended_all = only(EndAll, state.tick(121_000 - LAST_MARGIN_MS))
    assert (ended_all.reason, ended_all.text) == ("spot-interruption", "EC2 says so")


def test_a_warning_outlives_a_drain_of_the_hub_and_one_without_an_end_ends_nothing() -> None:
    state = a_state()
    assigned(state, "j1", drain={"reason": "idle"})
    orders = state.warned("rebalance", "a risk", None, 1000)
    assert only(Say, orders).facts["ends_in_ms"] is None
    state.polled({"seq": 2, "drain": None}, 2000, 2000)
    assert state.drain is not None
    assert state.drain.reason == "rebalance"
    assert state.terms.ends_at is None
    state.warned("spot-interruption", "now", 120_000, 3000)
    assert state.drain.reason == "spot-interruption"
    assert state.terms.ends_at == 123_000


def test_jobs_that_save_are_told_of_the_end_as_soon_as_it_is_known() -> None:
    state = a_state(ends_at=3_000_000)
    assert only(HandBackBy, state.tick(1)).when == 3_000_000 - LAST_MARGIN_MS
    assert none_of(HandBackBy, state.tick(2)), "once"
    assigned(state, "j1")
    drained = state.polled({"seq": 2, "drain": {"reason": "idle", "deadline_ms": 600_000}, "now_ms": 0}, 10, 10)
    assert only(HandBackBy, drained)[:2] == (600_010, "idle")
    back = state.polled({"seq": 3, "drain": None}, 20, 20)
    assert only(HandBackBy, back).when == 3_000_000 - LAST_MARGIN_MS


def test_without_an_end_they_are_told_of_none_and_of_one_that_is_taken_back() -> None:
    state = a_state()
    assert none_of(HandBackBy, state.tick(1))
    assigned(state, "j1")
    state.polled({"seq": 2, "drain": {"reason": "x", "deadline_ms": 600_000}, "now_ms": 0}, 10, 10)
    assert only(HandBackBy, state.polled({"seq": 3, "drain": None}, 20, 20)).when is None


def test_what_cannot_end_in_the_time_left_is_given_back_and_the_rest_taken() -> None:
    """The hub allows for the age of a worker, so only one whose end has come nearer sees such a job."""
    state = a_state(notice_ms=600_000)
    state.noticed(1000)
    long, short = {**job("j1"), "time_limit_ms": 3_600_000}, {**job("j2"), "time_limit_ms": 300_000}
    orders = state.polled({"seq": 1, "assign": [long, short, job("j3")]}, 2000, 2000)
    assert [each["job"] for each in only(Start, orders).assignments] == ["j2", "j3"]
    report = state.report(2001)
    assert report["shape"]["walltime"] == 601_000 - 2001, "it hears at once how much is left"
    assert [(each["job"], each["outcome"], each["reason"]) for each in report["results"]] == [
        ("j1", "returned", "walltime")
    ]


def test_workers_that_began_together_retire_one_after_the_other() -> None:
    hour = 3_600_000
    spread = [early(f"main-0mwoz-{n}", hour) for n in range(40)]
    assert spread == [early(f"main-0mwoz-{n}", hour) for n in range(40)], "the same each time"
    assert max(spread) <= 300_000
    assert len({ms // 30_000 for ms in spread}) >= 8, "over ten parts of five minutes"
    assert early("w", 60_000) <= 6_000
    state = a_state(ends_at=hour, early_ms=200_000)
    assert state.wake_at(1) <= hour - LAST_STRETCH_MS - 200_000
    state.tick(hour - LAST_STRETCH_MS - 200_001)
    assert state.drain is None
    state.tick(hour - LAST_STRETCH_MS - 200_000)
    assert state.drain is not None


def test_the_hub_hears_how_much_walltime_is_left() -> None:
    state = a_state(ends_at=3_000_000)
    assert "shape" not in state.report(100)
    state.reported({"ack": 1}, 100, 100)
    assert state.report(SHAPE_MS)["shape"]["walltime"] == 3_000_000 - SHAPE_MS


# ---------------------------------------------------------------- refusals and accidents


def test_a_session_that_is_over_ends_everything() -> None:
    state = a_state()
    assigned(state, "j1")
    orders = state.hub_refused(409, "session-superseded", "there is a newer one")
    assert only(EndAll, orders).grace_ms == 0
    assert only(Exit, orders) == Exit(3, "session-superseded")


def test_a_farewell_whose_reply_was_lost_was_heard() -> None:
    state = a_state()
    state.polled({"seq": 1, "drain": {"reason": "idle"}}, 1, 1)
    assert state.report(2)["leaving"] == "idle"
    assert only(Exit, state.hub_refused(410, "worker-gone", "it left")).code == 0


def test_when_the_keeper_dies_every_job_is_given_back_and_the_worker_leaves() -> None:
    state = a_state()
    assigned(state, "j1", "j2")
    state.happened([started("j1")], 2)
    assert only(Say, [o for o in state.keeper_died("ended by SIGKILL", 3) if o[0] == "keeper-died"])
    report = state.report(4)
    assert {(r["job"], r["outcome"]) for r in report["results"]} == {("j1", "returned"), ("j2", "returned")}
    assert report["leaving"] == "keeper-died"
    assert only(Exit, state.reported({"ack": 1}, 5, 5)).code == 1


def test_after_an_error_of_our_own_nothing_is_held_that_the_keeper_does_not_know() -> None:
    state = a_state()
    assigned(state, "j1", "j2")
    orders = state.reconcile({("j2", 1), ("j3", 1)}, 2)
    assert only(Cancel, orders)[:2] == ("j3", 1)
    assert [r["job"] for r in state.report(3)["results"]] == ["j1"]
    assert state.held.queued == {("j2", 1)}


# ---------------------------------------------------------------- any order of events


class World:
    """A keeper that starts and ends jobs as told, and a hub that loses replies. Time only grows."""

    def __init__(self) -> None:
        self.state = a_state(max_runs=12)
        self.now = 0
        self.seq = 0
        self.unacked: list[dict[str, Any]] = []
        self.alive: dict[tuple[str, int], str] = {}
        self.starts: list[tuple[str, int]] = []
        self.results: list[tuple[str, int]] = []
        self.given: set[tuple[str, int]] = set()
        self.report: Any = None
        self.exit: Exit | None = None

    def do(self, orders: list[Order]) -> None:
        for order in orders:
            if isinstance(order, Start):
                for each in order.assignments:
                    self.alive[each["job"], each["epoch"]] = "queued"
                    self.starts.append((each["job"], each["epoch"]))
            elif isinstance(order, Recall):
                self.end([key for key in order.attempts if self.alive.get(key) == "queued"], "returned")
            elif isinstance(order, EndAll):
                self.end(list(self.alive), "returned")
            elif isinstance(order, Exit):
                self.exit = order

    def end(self, keys: list[tuple[str, int]], outcome: str) -> None:
        events = [ended(*key, outcome) for key in keys]
        for key in keys:
            del self.alive[key]
        if events:
            self.do(self.state.happened(events, self.now))

    def step(self, what: str, number: int) -> None:
        self.now += number
        if what == "assign":
            self.seq += 1
            key = (f"j{self.seq}", 1)
            self.given.add(key)
            self.unacked.append({"seq": self.seq, "assign": [job(*key)]})
        elif what == "poll":
            ack = self.state.poll()["ack"]
            self.unacked = [message for message in self.unacked if message["seq"] > ack]
            assign = [each for message in self.unacked for each in message["assign"]]
            self.do(self.state.polled({"seq": self.seq, "assign": assign}, self.now, self.now))
        elif what == "start" and self.alive:
            key = sorted(self.alive)[number % len(self.alive)]
            if self.alive[key] == "queued":
                self.alive[key] = "running"
                self.do(self.state.happened([started(*key)], self.now))
        elif what == "end" and self.alive:
            self.end([sorted(self.alive)[number % len(self.alive)]], "succeeded")
        elif what == "report":
            if self.state.outbox.under_way is None:
                self.report = self.state.report(self.now)
                self.results += [(r["job"], r["epoch"]) for r in self.report.get("results", ())]
            if number % 3:  # else its reply is lost, and it is sent again
                self.do(self.state.reported({"ack": self.report["seq"]}, self.now, self.now))
        elif what == "silence":
            self.now += 20_000
            self.do(self.state.tick(self.now))
        elif what == "signal" and number % 7 == 0:
            self.do(self.state.signalled(self.now))


STEPS = st.tuples(
    st.sampled_from(["assign", "poll", "start", "end", "report", "silence", "signal"]), st.integers(0, 400)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_nothing_starts_twice_and_every_job_taken_has_exactly_one_result(steps: list[tuple[str, int]]) -> None:
    world = World()
    for what, number in steps:
        world.step(what, number)
        if world.exit is not None:
            break
        if world.alive:
            assert world.now < world.state.lease.ends or world.state.fenced, "no job outlives the lease"
    assert len(world.starts) == len(set(world.starts))
    if world.exit is None:
        world.end(list(world.alive), "succeeded")
        for _ in range(4):
            world.step("report", 1)
    assert len(world.results) == len(set(world.results))
    assert set(world.results) <= world.given
    if world.exit is None:
        assert set(world.starts) <= set(world.results)


# ---------------------------------------------------------------- progress, hooks, GPUs


def test_progress_of_what_is_held_is_told_and_of_nothing_else() -> None:
    state = a_state()
    assigned(state, "j1", "j2")
    state.progressed("j1", 1, "staging", 10, 100, "")
    state.happened([started("j2"), Progressed("j2", 1, 3, None, "files"), Progressed("j9", 1, 1, 2, "")], 5)
    assert state.report(10)["progress"] == [["j1", 1, "staging", 10, 100, ""], ["j2", 1, "running", 3, None, "files"]]


def test_what_has_ended_shows_no_progress() -> None:
    state = a_state()
    assigned(state, "j1")
    state.happened([started("j1"), Progressed("j1", 1, 3, 4, ""), ended("j1")], 5)
    assert "progress" not in state.report(10)


def test_progress_alone_makes_a_report_but_not_more_than_one_a_second() -> None:
    state = a_state()
    assigned(state, "j1")
    state.happened([started("j1")], 5)
    exchange(state, 100)
    state.happened([Progressed("j1", 1, 3, 4, "")], 200)
    assert state.report_at() <= 200
    exchange(state, 200)
    state.happened([Progressed("j1", 1, 4, 4, "")], 300)
    assert state.report_at() == 1200


def test_hooks_that_fail_are_said_and_three_in_a_row_drain_the_worker() -> None:
    state = a_state()
    said = only(Say, state.happened([Hooked("j1", 1, "before-job", "ended with exit status 3", 20, "oh")], 5))
    assert (said.event, said.facts["hook"], said.facts["text"]) == (
        "hook-failed",
        "before-job",
        "ended with exit status 3",
    )
    said = only(Say, state.happened([Hooked("j1", 1, "after-job", "", 20, "hello")], 5))
    assert (said.event, said.facts["output"], "text" in said.facts) == ("hook", "hello", False)
    for name in ("j1", "j2", "j3"):
        assert state.drain is None
        result = {
            "job": name,
            "epoch": 1,
            "outcome": "returned",
            "reason": "hook-failed",
            "text": "the hook before it …",
        }
        state.happened([Ended(result)], 10)
    assert state.drain is not None and state.drain.reason == "black-hole"


def test_gpus_that_a_job_has_left_are_looked_at() -> None:
    assert only(LookAtGpus, a_state().happened([GpusLeft(["GPU-1"])], 5)).gpus == ["GPU-1"]
