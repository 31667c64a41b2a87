"""A pause after failed launches, longer after each failed window, apart for each class of error.

Failures that come together are one window and lengthen the pause once. What the platform asks (retry after) is
honoured. Nothing is remembered for longer than three hours.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from worker_manager.policy.awaited import SENTENCE_TOLD, shortened
from worker_manager.policy.limits.base import Held
from worker_manager.policy.model import Failure
from worker_manager.policy.reasons import because
from worker_manager.policy.standing import Standing

FORGOTTEN_AFTER_MS = 3 * 3_600_000
# What the first pause is divided by. A boot that failed may be one bad machine, and a throttled call only came too
# early: both may be tried again soon.
SOONER: Mapping[str, int] = MappingProxyType({"boot": 10, "throttled": 10})
# It will never work like this until a person changes something: the longest pause at once.
LONGEST_AT_ONCE = ("config",)


def backoff(standing: Standing, _count: int) -> Held | None:
    """None at all until the longest pause of any class of error is over."""
    limits = standing.pool.limits
    held = []
    for kind, failures in by_kind(standing).items():
        first = limits.backoff_cap_ms if kind in LONGEST_AT_ONCE else limits.backoff_ms // SOONER.get(kind, 1)
        until = paused_until(failures, first, limits.backoff_cap_ms)
        asked = max((f.at + f.retry_after_ms for f in failures if f.retry_after_ms is not None), default=0)
        if max(until, asked) <= standing.now:
            continue
        left = max(until, asked) - standing.now
        why = (
            because("throttled", left_ms=left)
            if asked > until
            else because("backoff", failures=len(failures), kind=kind, left_ms=left, text=_last_words(failures))
        )
        held.append(Held(0, why, max(until, asked)))
    return max(held, key=lambda one: one.until or 0, default=None)


def _last_words(failures: Sequence[Failure]) -> str:
    return shortened(failures[-1].text, SENTENCE_TOLD) or "it did not say why"


def by_kind(standing: Standing) -> dict[str, list[Failure]]:
    """The failures that still count, oldest first. A worker that registered forgives the boots before it, and a launch
    that was accepted the refusals."""
    history = standing.pool.history
    accepted_at = max((worker.submitted_at or 0 for worker in standing.workers), default=0)
    kinds: dict[str, list[Failure]] = {}
    for failure in sorted(history.failures, key=lambda failure: (failure.at, failure.kind)):
        forgiven_at = history.last_success_at or 0 if failure.kind == "boot" else accepted_at - 1
        if failure.at > max(forgiven_at, standing.now - FORGOTTEN_AFTER_MS):
            kinds.setdefault(failure.kind, []).append(failure)
    return dict(sorted(kinds.items()))


def paused_until(failures: Iterable[Failure], first_ms: int, cap_ms: int) -> int:
    """The end of the last window: each failure after the end of one opens the next, twice as long."""
    until, pause = 0, first_ms
    for failure in failures:
        if failure.at >= until:
            until = failure.at + min(cap_ms, pause)
            pause = min(cap_ms, pause * 2)
    return until
