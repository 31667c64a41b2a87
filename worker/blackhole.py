"""A worker on which whatever comes fails at once empties a queue faster than a hundred good ones work on it.

What is seen of jobs that fail cannot be told from a batch of broken ones, so only different jobs count (the tasks of an
array are one), in a row, and nobody is suspected who was not asked to look. What the worker itself could not start is
its own fault, whichever job it was: a few in a row are enough, for everyone.
"""

from typing import Any, Dict, Mapping, Optional

from worker.hooks.told import FAILED as HOOK_FAILED
from worker.protocol import Outcome

FAST_MS = 1000
WITHIN_MS = 60_000
OWN_FAULTS = 3
OWN_REASONS = ("start-failed", "disk-full", HOOK_FAILED)


class BlackHole:
    def __init__(self, jobs: int) -> None:
        """So many different jobs that fail fast are too many; 0: any number is fine."""
        self._jobs = jobs
        self._own_faults = 0  # in a row
        self._failed: Dict[str, int] = {}  # job → when, oldest first

    def saw(self, result: Mapping[str, Any], now: int) -> Optional[str]:
        """A sentence once it is too much."""
        if result.get("outcome") == Outcome.RETURNED and result.get("reason") in OWN_REASONS:
            self._own_faults += 1
            if self._own_faults >= OWN_FAULTS:
                return "%d jobs in a row could not be started here; the last: %s" % (
                    self._own_faults,
                    str(result.get("text") or "")[:200],
                )
        elif result.get("outcome") in (Outcome.SUCCEEDED, Outcome.FAILED):
            self._own_faults = 0
        return self._failing(result, now) if self._jobs else None

    def _failing(self, result: Mapping[str, Any], now: int) -> Optional[str]:
        if not _failed_at_once(result):
            if result.get("outcome") in (Outcome.SUCCEEDED, Outcome.FAILED):
                self._failed.clear()
            return None
        job = result["job"].partition("-")[0]
        self._failed.pop(job, None)
        self._failed[job] = now
        for old in [name for name, when in self._failed.items() if when < now - WITHIN_MS]:
            del self._failed[old]
        if len(self._failed) < self._jobs:
            return None
        took_s = (now - min(self._failed.values())) / 1000
        last = "%s %s" % (result.get("reason") or "exit code %s" % result.get("exit_code"), result.get("text") or "")
        text = "%d different jobs in a row failed within a second each, in %.1f s; the last: %s"
        return text % (len(self._failed), took_s, last.strip()[:200])


def _failed_at_once(result: Mapping[str, Any]) -> bool:
    """By itself, or because it could not even be started."""
    outcome, reason = result.get("outcome"), result.get("reason")
    mine = outcome == Outcome.FAILED or (outcome == Outcome.RETURNED and reason == "start-failed")
    return mine and (result.get("run_ms") or 0) < FAST_MS
