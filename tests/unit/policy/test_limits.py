from typing import Any

import pytest

from tests.unit.policy.worlds import HOUR, MINUTE, NOW, SECOND, draining, failed, idle, launching, pool, ready, snapshot
from worker_manager.policy import limits
from worker_manager.policy.limits import backoff, bounds, breaker, cooldown, frozen, stabilise, step
from worker_manager.policy.limits.base import Held
from worker_manager.policy.model import Note, WorkerView
from worker_manager.policy.reasons import because
from worker_manager.policy.standing import Standing, standings


def stand(*workers: WorkerView, notes: tuple[Note, ...] = (), **settings: Any) -> Standing:
    return standings(snapshot(workers=list(workers), pools=[pool(**settings)], notes=notes))["p"]


def many(count: int) -> list[WorkerView]:
    return [ready(f"w{n}", used=1) for n in range(count)]


def said(held: Held | None) -> tuple[int, str] | None:
    return (held.count, held.reason.text) if held else None


# ------------------------------------------------ bounds


def test_the_maximum_counts_all_that_exist_or_may() -> None:
    standing = stand(*many(5), launching("x"), draining("y"), launching("z", state="unknown"), max_workers=10)
    assert bounds.maximum(standing, 2) is None
    assert said(bounds.maximum(standing, 3)) == (2, "max-workers: 10 of 10")


def test_a_full_pool_gets_nothing_and_one_over_its_maximum_too() -> None:
    assert said(bounds.maximum(stand(*many(8), max_workers=8), 1)) == (0, "max-workers: 8 of 8")
    assert said(bounds.maximum(stand(*many(9), max_workers=8), 1)) == (0, "max-workers: 9 of 8")


def test_the_minimum_raises_by_what_it_lacks() -> None:
    standing = stand(ready(), draining("x"), min_workers=3)
    assert standing.deficit == 2
    reason = bounds.raised_to_minimum(standing, 1)
    assert reason is not None
    assert reason.text == "min-workers: 1 of at least 3"
    assert bounds.raised_to_minimum(standing, 2) is None


def test_the_minimum_keeps_workers() -> None:
    standing = stand(idle("a"), idle("b"), idle("c"), min_workers=2)
    assert bounds.kept(standing, 1) is None
    assert said(bounds.kept(standing, 3)) == (1, "min-workers: 2 of at least 2, none goes")


# ------------------------------------------------ cooldown


def test_the_cooldown_after_a_launch() -> None:
    standing = stand(ready(), cooldown_up_ms=MINUTE, last_launch_at=NOW - 20 * SECOND)
    assert said(cooldown.up(standing, 5)) == (0, "cooldown: 40s left of 1m since the last launch")
    held = cooldown.up(standing, 5)
    assert held is not None
    assert held.until == NOW + 40 * SECOND


def test_the_cooldown_ends() -> None:
    assert cooldown.up(stand(ready(), cooldown_up_ms=MINUTE, last_launch_at=NOW - MINUTE), 5) is None
    assert cooldown.up(stand(ready(), cooldown_up_ms=MINUTE), 5) is None


def test_the_cooldown_is_bypassed_from_zero() -> None:
    assert cooldown.up(stand(cooldown_up_ms=MINUTE, last_launch_at=NOW - 1), 5) is None


def test_the_cooldown_is_bypassed_below_the_minimum_for_what_it_lacks() -> None:
    standing = stand(ready(), min_workers=3, cooldown_up_ms=MINUTE, last_launch_at=NOW - 1)
    held = cooldown.up(standing, 5)
    assert held is not None
    assert held.count == 2


def test_the_cooldown_after_a_worker_went() -> None:
    standing = stand(idle(), cooldown_down_ms=MINUTE, last_drain_at=NOW - 20 * SECOND)
    assert said(cooldown.down(standing, 1)) == (0, "cooldown: 40s left of 1m since the last worker went")
    assert cooldown.down(stand(idle(), cooldown_down_ms=MINUTE, last_drain_at=NOW - MINUTE), 1) is None


# ------------------------------------------------ step


def test_steps() -> None:
    assert said(step.up(stand(step_up=2), 5)) == (2, "step: at most 2 new workers at a time, 5 wanted")
    assert step.up(stand(step_up=5), 5) is None
    assert step.up(stand(), 5000) is None
    assert said(step.down(stand(step_down=1), 3)) == (1, "step: at most 1 worker goes at a time, 3 surplus")
    assert step.down(stand(), 5000) is None


# ------------------------------------------------ frozen, unreadable


def test_frozen_until() -> None:
    standing = stand(frozen_until=NOW + MINUTE, freeze_text="maintenance")
    held = frozen.frozen(standing, 3)
    assert held is not None
    assert (held.count, held.reason.text, held.until) == (0, "frozen for 1m: maintenance", NOW + MINUTE)
    assert frozen.frozen(stand(frozen_until=NOW), 3) is None


def test_unreadable() -> None:
    standing = stand(readable=False, unreadable_text="no answer")
    held = frozen.unreadable(standing, 3)
    assert said(held) == (0, "the backend cannot be read, so nothing is decided: no answer")
    assert frozen.unreadable(stand(), 3) is None


# ------------------------------------------------ backoff


def left(standing: Standing) -> int | None:
    held = backoff.backoff(standing, 1)
    return None if held is None or held.until is None else held.until - NOW


def test_the_first_failure_holds_launches_back() -> None:
    standing = stand(failures=(failed(MINUTE),), backoff_ms=5 * MINUTE)
    why = "backoff after 1 failed launch (capacity): 4m left; last: no machine of this kind"
    assert said(backoff.backoff(standing, 3)) == (0, why)
    assert left(stand(failures=(failed(5 * MINUTE),), backoff_ms=5 * MINUTE)) is None


def test_failures_that_come_together_do_not_compound() -> None:
    burst = tuple(failed(MINUTE + n) for n in range(20))
    assert left(stand(failures=burst, backoff_ms=5 * MINUTE)) == 4 * MINUTE - 19


def test_each_failed_window_doubles_up_to_the_cap() -> None:
    def after(*ago: int) -> int | None:
        return left(stand(failures=tuple(failed(a * MINUTE) for a in ago), backoff_ms=5 * MINUTE))

    assert after(6, 0) == 10 * MINUTE
    assert after(17, 11, 0) == 20 * MINUTE
    assert after(38, 32, 21, 0) == 30 * MINUTE
    assert after(70, 64, 53, 32, 0) == 30 * MINUTE


def test_failures_are_forgotten_after_three_hours() -> None:
    old = [failed(3 * HOUR + n * MINUTE) for n in range(30, -1, -10)]
    assert left(stand(failures=(*old, failed(0)), backoff_ms=5 * MINUTE)) == 5 * MINUTE


def test_classes_of_error_are_apart() -> None:
    both = (failed(6 * MINUTE, "capacity"), failed(MINUTE, "quota"))
    assert left(stand(failures=both, backoff_ms=5 * MINUTE)) == 4 * MINUTE


def test_the_longest_pause_counts() -> None:
    both = (failed(MINUTE, "quota"), failed(0, "throttled"))
    assert left(stand(failures=both, backoff_ms=5 * MINUTE)) == 4 * MINUTE


def test_what_only_a_person_can_mend_waits_for_the_cap_and_what_may_pass_for_less() -> None:
    assert left(stand(failures=(failed(0, "config"),))) == 30 * MINUTE
    assert left(stand(failures=(failed(0, "throttled"),))) == 30 * SECOND
    assert left(stand(failures=(failed(0, "boot"),))) == 30 * SECOND
    assert left(stand(failures=(failed(0, "auth"),))) == 5 * MINUTE


def test_what_the_backend_asks_is_honoured() -> None:
    standing = stand(failures=(failed(0, "throttled", retry_after_ms=2 * MINUTE),))
    assert said(backoff.backoff(standing, 1)) == (0, "the backend asked to wait: 2m left")


def test_a_worker_that_registered_forgives_boots_but_no_refusal() -> None:
    assert left(stand(failures=(failed(10, "boot"),), last_success_at=NOW - 5)) is None
    assert left(stand(failures=(failed(10, "boot"),), last_success_at=NOW - 15)) is not None
    assert left(stand(failures=(failed(10, "quota"),), last_success_at=NOW - 5)) is not None


def test_a_launch_that_was_accepted_later_forgives_refusals() -> None:
    refused = (failed(10, "capacity"),)
    assert left(stand(launching(submitted_at=NOW - 5), failures=refused)) is None
    assert left(stand(launching(submitted_at=NOW - 10), failures=refused)) is not None, "of the same burst"


# ------------------------------------------------ breaker


def boots(count: int, last_ago: int = 0) -> tuple[Any, ...]:
    return tuple(failed(last_ago + n, "boot") for n in range(count))


def test_the_breaker_opens_after_ten_failed_starts_in_a_row() -> None:
    assert breaker.breaker(stand(failures=boots(9)), 5) is None
    held = breaker.breaker(stand(failures=boots(10)), 5)
    assert held is not None
    assert held.count == 0
    assert held.until == NOW + 5 * MINUTE
    assert held.reason.text.startswith("breaker open after 10 failed starts (boot): next probe in 5m; last: ")


def test_other_failures_do_not_open_it() -> None:
    assert breaker.breaker(stand(failures=tuple(failed(n, "quota") for n in range(50))), 5) is None


def test_half_open_lets_one_probe_through_at_a_time() -> None:
    over = boots(10, last_ago=5 * MINUTE)
    assert said(breaker.breaker(stand(failures=over), 5)) == (1, "breaker half open: one worker as a probe")
    assert said(breaker.breaker(stand(launching(), failures=over), 5)) == (
        0,
        "breaker half open: one worker as a probe",
    )


def test_a_probe_that_fails_opens_it_for_longer() -> None:
    held = breaker.breaker(stand(failures=boots(11)), 1)
    assert held is not None
    assert held.until == NOW + 10 * MINUTE
    held = breaker.breaker(stand(failures=boots(30)), 1)
    assert held is not None
    assert held.until == NOW + 30 * MINUTE


def test_a_worker_that_registered_closes_it() -> None:
    assert breaker.breaker(stand(failures=boots(10, last_ago=MINUTE), last_success_at=NOW), 5) is None


def test_the_row_of_failed_starts_outlasts_what_is_kept_of_failures() -> None:
    note = breaker.remembered(stand(failures=boots(12, last_ago=HOUR)))
    assert note is not None
    one_more = stand(failures=boots(1), notes=(note,))
    assert breaker.failed_starts(one_more).failures == 13
    assert breaker.failed_starts(stand(failures=boots(12, last_ago=HOUR), notes=(note,))).failures == 12
    assert breaker.failed_starts(stand(notes=(note,), last_success_at=NOW)).failures == 0
    assert breaker.remembered(stand(failures=boots(9))) is None


def test_the_row_is_forgotten_after_three_hours_without_a_failure() -> None:
    old = Note("p", breaker.OWNER, 1, {"failures": 12, "last_at": NOW - 3 * HOUR, "text": "x"})
    assert breaker.breaker(stand(notes=(old,)), 5) is None


# ------------------------------------------------ stabilise


def remembered(*targets: tuple[int, int]) -> Note:
    """The note after targets (so long ago, so many wanted)."""
    note: Note | None = None
    for ago, wanted in targets:
        then = snapshot(pools=[pool(stabilise_ms=5 * MINUTE)], notes=(note,) if note else ())
        standing = standings(then)["p"]
        note = stabilise.remembered(Standing(NOW - ago, standing.pool, (), standing.notes), wanted)
    assert note is not None
    return note


def test_the_largest_target_of_the_window_counts() -> None:
    note = remembered((6 * MINUTE, 9), (4 * MINUTE, 3), (3 * MINUTE, 4), (2 * MINUTE, 2), (MINUTE, 1))
    standing = stand(*[idle(f"w{n}") for n in range(6)], notes=(note,), stabilise_ms=5 * MINUTE)
    held = stabilise.stabilise(standing, 5)
    assert held is not None
    assert said(held) == (2, "4 were wanted within the last 5m: none goes yet")
    assert held.until == NOW + 2 * MINUTE
    assert stabilise.stabilise(standing, 2) is None


def test_the_note_keeps_only_peaks_that_may_still_count() -> None:
    note = remembered(*[(n * SECOND, n % 7) for n in range(200, 0, -1)])
    assert len(note.value["peaks"]) <= 7


def test_without_a_window_nothing_is_remembered() -> None:
    standing = stand(idle(), stabilise_ms=0)
    assert stabilise.remembered(standing, 1) is None
    assert stabilise.stabilise(standing, 1) is None


def test_the_window_is_no_longer_than_the_idle_limit() -> None:
    assert stabilise.window_ms(stand(stabilise_ms=5 * MINUTE, idle_ms=SECOND)) == SECOND


def test_a_note_of_another_version_is_not_read() -> None:
    note = Note("p", stabilise.OWNER, 99, {"strange": True})
    assert stabilise.stabilise(stand(idle(), notes=(note,)), 1) is None


# ------------------------------------------------ together


def test_every_limit_that_lowers_a_count_says_so_in_order() -> None:
    standing = stand(*many(5), max_workers=9, step_up=2, cooldown_up_ms=MINUTE, last_launch_at=NOW)
    limited = limits.apply(limits.UP, standing, 10)
    assert limited.count == 0
    assert [reason.code for reason in limited.reasons] == ["max-workers", "cooldown-up"]


@pytest.mark.parametrize("raising", [11, 1000])
def test_a_limit_never_raises(raising: int) -> None:
    def wrong(_standing: Standing, _count: int) -> Held:
        return Held(raising, limits.bounds.because("no-backlog"))

    assert limits.apply((wrong,), stand(), 10).count == 10


def test_a_sentence_counts_in_words_that_fit() -> None:
    assert because("backlog", jobs=1, workers=1).text.startswith("1 job waits: 1 more worker of")
    assert because("backlog", jobs=3, workers=2).text.startswith("3 jobs wait: 2 more workers of")
