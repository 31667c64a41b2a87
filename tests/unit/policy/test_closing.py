from dataclasses import replace

from tests.unit.policy.worlds import HOUR, MINUTE, NOW, SECOND, fact, intent, listing, settings
from worker_manager.policy.closing import Closing, closings, failure_of, note_listing
from worker_manager.policy.facts import BacklogFact, IntentFact, Memory, Sight, Sights, WorkerFact
from worker_manager.policy.model import End
from worker_manager.policy.reasons import because


def closed(
    one: IntentFact, sights: Sights | None = None, *facts: WorkerFact, failed: str | None = None, **pool: object
) -> list[Closing]:
    seen = {"p": sights if sights is not None else listing()}
    return list(closings(NOW, [settings(**pool)], Memory((one,)), seen, BacklogFact(1, (), facts, failed=failed)))


def hows(found: list[Closing]) -> list[str]:
    return [closing.how for closing in found]


def test_nothing_is_closed_after_one_missing_listing() -> None:
    assert closed(intent(missed_listings=1)) == []
    assert hows(closed(intent(missed_listings=2))) == ["vanished"]


def test_a_worker_that_ended_is_closed_at_once() -> None:
    [closing] = closed(intent(), listing(("w", "ended")))
    assert (closing.how, closing.bury, closing.dead) == ("never-started", True, False)
    [closing] = closed(intent(registered_at=NOW - HOUR), listing(("w", "ended")))
    assert (closing.how, closing.bury, closing.dead) == ("ended", False, True)


def test_a_closing_has_a_reason_of_its_own_and_keeps_the_platform_s_words() -> None:
    [closing] = closed(intent(), Sights(NOW, (Sight("w", "ended", "h", detail="exit status 3"),)))
    assert closing.reason.code == "never-started"
    assert closing.text == "the backend says that it ended before it registered: exit status 3"
    [closing] = closed(intent(missed_listings=2))
    assert (closing.reason.code, closing.text) == ("vanished", "the backend does not list it any more")


def test_an_end_before_registration_counts_against_the_pool() -> None:
    [closing] = closed(intent(), Sights(NOW, (Sight("w", "ended", "h", refusal="quota", detail="spot pool empty"),)))
    assert closing.failure is not None
    assert closing.failure.kind == "quota"
    assert "spot pool empty" in closing.failure.text
    [closing] = closed(intent(), listing(("w", "ended")))
    assert closing.failure is not None
    assert closing.failure.kind == "boot"


def test_an_end_that_was_asked_for_or_comes_after_registration_is_no_failure() -> None:
    assert closed(intent(end_asked_at=NOW - MINUTE), listing(("w", "ended")))[0].failure is None
    assert closed(intent(registered_at=NOW - HOUR), listing(("w", "ended")))[0].failure is None


def test_the_jobs_of_a_confirmed_dead_worker_go_back_at_once() -> None:
    alive = intent(registered_at=NOW - HOUR)
    [closing] = closed(alive, listing(("w", "ended")), fact())
    assert (closing.dead, closing.bury) == (True, False)
    [closing] = closed(alive, listing(("w", "ended")), fact(), confirms_end=False)
    assert not closing.dead


def test_a_worker_that_the_source_hears_from_is_never_closed_by_absence() -> None:
    for state in ("ready", "draining"):
        assert closed(intent(missed_listings=9), listing(), fact(state=state)) == []


def test_a_lost_worker_that_vanished_is_dead() -> None:
    [closing] = closed(intent(missed_listings=2, registered_at=NOW - HOUR), listing(), fact(state="lost"))
    assert (closing.how, closing.dead) == ("vanished", True)


def test_a_worker_that_left_is_closed_when_the_backend_does_not_list_it() -> None:
    left = intent(registered_at=NOW - HOUR)
    assert hows(closed(left, listing(), fact(state="gone"))) == ["left"]
    assert closed(left, listing(("w", "running")), fact(state="gone")) == []
    assert closed(left, Sights(NOW - 2 * HOUR), fact(state="gone")) == [], "the listing is older than the worker"


def test_nothing_is_buried_before_the_deadline_and_the_lag_are_over() -> None:
    young = intent(state="unknown", call_deadline=NOW - SECOND, missed_listings=2)
    assert closed(young, list_lag_ms=SECOND) == []
    assert hows(closed(young, list_lag_ms=SECOND - 1)) == ["never-came"]


def test_an_ambiguous_create_that_was_seen_is_one_that_vanished() -> None:
    assert hows(closed(intent(state="unknown", seen_listed_at=NOW - MINUTE, missed_listings=2))) == ["vanished"]


def test_nothing_is_closed_while_source_or_backend_cannot_be_read() -> None:
    over = intent(missed_listings=5)
    assert closed(over, failed="no answer") == []
    assert closed(over, Sights(NOW, failed="no answer")) == []
    assert closed(replace(over, pool="removed")) == []


def test_absence_is_counted_only_on_complete_listings_past_the_lag() -> None:
    one = intent(submitted_at=NOW - MINUTE)
    missed = note_listing(one, listing(), list_lag_ms=0)
    assert missed.missed_listings == 1
    assert note_listing(one, listing(), list_lag_ms=MINUTE).missed_listings == 0
    assert note_listing(one, listing(complete=False), list_lag_ms=0).missed_listings == 0
    assert note_listing(one, Sights(NOW, failed="no answer"), list_lag_ms=0).missed_listings == 0
    again = note_listing(missed, listing(("w", "running")), list_lag_ms=0)
    assert (again.missed_listings, again.seen_listed_at) == (0, NOW - SECOND)


def test_absence_of_an_ambiguous_create_is_counted_from_its_deadline_on() -> None:
    one = intent(state="unknown", call_deadline=NOW)
    assert note_listing(one, Sights(NOW), list_lag_ms=0).missed_listings == 0
    assert note_listing(one, Sights(NOW + 1), list_lag_ms=0).missed_listings == 1


def test_ends_that_say_something_about_the_pool() -> None:
    why = because("never-registered", waited_ms=HOUR, limit_ms=MINUTE)
    failure = failure_of(NOW, End("p", "w", why))
    assert failure is not None
    assert (failure.kind, failure.at) == ("boot", NOW)
    assert failure_of(NOW, End("p", "w", because("orphaned"))) is None


def test_of_a_pool_whose_backend_is_not_known_any_more_nothing_is_said_that_nobody_saw() -> None:
    forgotten = {"confirms_end": False, "configured": False}
    for one, facts in (
        (intent(missed_listings=2), ()),
        (intent(missed_listings=2, registered_at=NOW - HOUR), (fact(state="lost"),)),
        (intent(registered_at=NOW - HOUR), (fact(state="gone"),)),
    ):
        pool = replace(settings(**forgotten), backend="")
        [closing] = closings(NOW, [pool], Memory((one,)), {"p": listing()}, BacklogFact(1, (), facts))
        assert (closing.how, closing.dead, closing.failure) == ("forsaken", False, None)
        assert closing.bury is (one.registered_at is None)
