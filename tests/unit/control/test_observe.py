"""What cannot be read is said to be unread, and a call that hangs is not asked twice."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import ListFailed, Listing, RefusalKind, Seen, WorkerPhase
from tests.unit.control.world import CALL_MS, World
from worker_manager.clock import ManualClock
from worker_manager.control.lanes import InlineLane, ThreadLane
from worker_manager.control.observe import LONGEST_PAUSE_MS, Listings, look, sights_of
from worker_manager.control.pool import ManagedPool
from worker_manager.errors import SourceUnavailable
from worker_manager.sources.memory import MemorySource


class Scripted:
    """A backend whose listings are written in advance."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls = 0

    def list(self) -> Listing:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer()
            return Listing(())
        return answer  # type: ignore[return-value]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def template(tmp_path: Path) -> ManagedPool:
    return World(tmp_path).pool()


def with_backend(template: ManagedPool, backend: object) -> ManagedPool:
    return replace(template, backend=backend)  # type: ignore[arg-type]


ONE = Seen("m-1", 0, "h", WorkerPhase.RUNNING, 5, None, RefusalKind.QUOTA, "node 7")


def test_a_listing_is_translated(clock: ManualClock) -> None:
    sights = sights_of(Listing((ONE,), complete=False), at=9)
    (sight,) = sights.seen
    assert (sight.id, sight.phase, sight.handle, sight.started_at) == ("m-1-0", "running", "h", 5)
    assert (sight.refusal, sight.detail) == ("quota", "node 7")
    assert (sights.at, sights.complete, sights.failed) == (9, False, None)


@pytest.mark.parametrize(
    "answer",
    [
        ListFailed("the vendor says 503"),
        KeyError("Reservations"),
        None,
        Listing((replace(ONE, index=-1),)),
        Listing((replace(ONE, submission=""),)),
        Listing((replace(ONE, phase=None),)),  # type: ignore[arg-type]
        42,
    ],
)
def test_what_cannot_be_read_or_understood_is_unread_never_empty(
    template: ManagedPool, clock: ManualClock, answer: object
) -> None:
    pool, lane, listings = with_backend(template, Scripted(answer)), InlineLane(clock), Listings(clock)
    listings.refresh(pool, lane, has_workers=True)
    news = listings.harvest({"p": pool})
    assert news["p"].failed
    assert news["p"].seen == ()


def test_failures_are_asked_again_ever_more_slowly_and_success_resets(
    template: ManagedPool, clock: ManualClock
) -> None:
    backend = Scripted(ListFailed("x"))
    pool, lane, listings = with_backend(template, backend), InlineLane(clock), Listings(clock)

    def seconds_until_next_call() -> int:
        before, waited = backend.calls, 0
        while backend.calls == before:
            listings.refresh(pool, lane, has_workers=True)
            listings.harvest({"p": pool})
            clock.advance(100)
            waited += 100
        return waited

    seconds_until_next_call()
    pauses = [seconds_until_next_call() for _ in range(12)]
    assert pauses[3] > pauses[0]
    assert max(pauses) <= LONGEST_PAUSE_MS + 200
    assert len(set(pauses[-4:])) > 1, "the pauses are not spread"
    backend.answers = [Listing(())]
    seconds_until_next_call()
    assert seconds_until_next_call() <= 1_200


def test_a_pool_that_gets_workers_is_listed_sooner(template: ManagedPool, clock: ManualClock) -> None:
    backend = Scripted(Listing(()))
    pool = replace(with_backend(template, backend), list_ms=1_000, list_idle_ms=60_000)
    lane, listings = InlineLane(clock), Listings(clock)
    listings.refresh(pool, lane, has_workers=False)
    listings.harvest({"p": pool})
    clock.advance(2_000)
    listings.refresh(pool, lane, has_workers=False)
    assert backend.calls == 1
    listings.refresh(pool, lane, has_workers=True)
    clock.advance(1_000)
    listings.refresh(pool, lane, has_workers=True)
    assert backend.calls == 2


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_listing_that_hangs_is_unread_and_not_asked_again_until_it_returned(
    template: ManagedPool, clock: ManualClock, gate: threading.Event
) -> None:
    entered, returned = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        gate.wait(10)

    backend = Scripted(hang)
    pool = with_backend(template, backend)
    lane, listings = ThreadLane("p", clock, returned.set), Listings(clock)
    listings.refresh(pool, lane, has_workers=True)
    assert entered.wait(10)
    assert "p" not in listings.sights({"p": lane}), "within its time it is simply under way"
    clock.advance(CALL_MS + 1_000)
    failed = listings.sights({"p": lane})["p"].failed
    assert failed is not None
    assert "11 s" in failed
    for _ in range(5):
        listings.refresh(pool, lane, has_workers=True, now_please=True)
    assert backend.calls == 1
    gate.set()
    assert returned.wait(10)
    assert listings.harvest({"p": pool})["p"].failed is None
    assert listings.sights({"p": lane})["p"].failed is None
    lane.close()


def test_one_lane_that_hangs_holds_up_no_other(clock: ManualClock, gate: threading.Event) -> None:
    slow, quick = ThreadLane("slow", clock, lambda: None), ThreadLane("quick", clock, lambda: None)
    stuck = slow.start("x", lambda: gate.wait(10), 1)
    queued = slow.start("x", lambda: 1, 1)
    done = quick.start("y", lambda: 2, 1)
    assert done.wait(10)
    assert done.value() == 2
    assert not stuck.over
    assert not queued.over
    gate.set()
    assert queued.wait(10)
    slow.close()
    quick.close()


@pytest.mark.parametrize("error", [SourceUnavailable("the hub is away"), KeyError("groups"), OSError(5, "I/O")])
def test_a_source_that_cannot_be_read_is_unread_never_empty(clock: ManualClock, error: Exception) -> None:
    source = MemorySource(clock.now_ms)

    def fail(seen_version: int | None, wait_ms: int) -> None:
        raise error

    source.observe = fail  # type: ignore[method-assign,assignment]
    backlog = look(source).backlog
    assert backlog.failed
    assert backlog.registers
