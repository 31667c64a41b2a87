"""What becomes of the hub's assignments: taken, or ended before they started; and giving back what was taken."""

from typing import Any, List, Mapping, Optional, Sequence, Set

from worker import answers
from worker.held import Held
from worker.orders import Key
from worker.outbox import Outbox
from worker.protocol import Assignment, Outcome, Result


class Intake:
    def __init__(self, held: Held, outbox: Outbox) -> None:
        self._held = held
        self._outbox = outbox

    def take(
        self,
        assignments: Sequence[Assignment],
        cancelled: Set[Key],
        room: Optional[int],
        refusal: str,
        now: int,
        left_ms: Optional[int] = None,
    ) -> List[Assignment]:
        """Those that are to start: new ones, without a mistake, not cancelled in the same breath, and no more than
        there is `room` for (None: any number). The others end here; those beyond the room are given back for the reason
        `refusal`, and those whose time limit is longer than what is left."""
        fresh = [each for each in assignments if not self._held.knows(key_of(each))]
        fresh = [each for each in fresh if not self._ends_unstarted(each, cancelled, now)]
        if left_ms is not None:
            fresh = [each for each in fresh if not self._is_too_long(each, left_ms, now)]
        taken = fresh[:room]
        for each in fresh[len(taken) :]:
            self._end_unstarted(each, Outcome.RETURNED, refusal, "the worker takes no more jobs", now)
        self._held.take(map(key_of, taken))
        return taken

    def _ends_unstarted(self, each: Assignment, cancelled: Set[Key], now: int) -> bool:
        mistake = answers.mistake_in(each)
        if mistake:
            self._end_unstarted(each, Outcome.FAILED, "bad-assignment", mistake, now)
        elif key_of(each) in cancelled:
            self._end_unstarted(each, Outcome.CANCELLED, "cancelled", "it was cancelled before it started", now)
        else:
            return False
        return True

    def _is_too_long(self, each: Assignment, left_ms: int, now: int) -> bool:
        limit = each.get("time_limit_ms")
        if limit is None or limit <= left_ms:
            return False
        self._end_unstarted(each, Outcome.RETURNED, "walltime", "the worker does not live that long any more", now)
        return True

    def _end_unstarted(self, each: Assignment, outcome: str, reason: str, text: str, now: int) -> None:
        self._end(key_of(each), outcome, reason, text, now)
        self._outbox.tell()

    def give_back(self, keys: Set[Key], reason: str, text: str, now: int) -> None:
        """The keeper will say nothing more of these."""
        for key in sorted(keys):
            self._end(key, Outcome.RETURNED, reason, text, now)

    def _end(self, key: Key, outcome: str, reason: str, text: str, now: int) -> None:
        result: Result = {"job": key[0], "epoch": key[1], "outcome": outcome, "reason": reason, "text": text}
        self._held.end(key)
        self._outbox.result(result, now)


def key_of(each: Mapping[str, Any]) -> Key:
    return each["job"], each["epoch"]
