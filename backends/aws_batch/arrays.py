"""The children of arrays. They are in no list of a queue: they are described by their ids, a hundred at a time.

A description carries the whole script and the variables of every child, so nothing is described that cannot have
changed: a job only ever moves forward, so as long as an array counts as many children in every state as were seen
there, each of them is still where it was.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from backends.aws import Account
from backends.aws_batch.jobs import Job, Unreadable, job_in, seen
from backends.aws_batch.states import ENDED
from backends.base import Seen, WorkerPhase

DESCRIBED_AT_ONCE = 100  # the most that DescribeJobs takes
KEPT_S = 60.0  # reasons change without a change of state


class TooLate(Exception):
    """The deadline of the whole call has passed."""


@dataclass(frozen=True)
class _Known:
    children: tuple[Seen, ...]
    counts: Mapping[str, int]
    at: float

    def holds_for(self, array: Job) -> bool:
        if array.status in ENDED:
            return all(child.phase is WorkerPhase.ENDED for child in self.children)
        return self.counts == array.counts and time.monotonic() - self.at < KEPT_S


class Arrays:
    """Remembers what was described, for as long as the array is listed."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._known: dict[str, _Known] = {}

    def children(self, arrays: Sequence[tuple[Job, str]], deadline: float) -> list[Seen]:
        """Of arrays and the submissions they are, every one of them. Raises TooLate, Unreadable and the account's
        errors."""
        listed = {array.id for array, _ in arrays}
        self._known = {id: known for id, known in self._known.items() if id in listed}
        wanted = [f"{array.id}:{index}" for array, _ in arrays if self._must_ask(array) for index in range(array.size)]
        described: dict[str, Job] = {}
        for start in range(0, len(wanted), DESCRIBED_AT_ONCE):
            in_time(deadline)
            answer = self._account.reading("batch").describe_jobs(jobs=wanted[start : start + DESCRIBED_AT_ONCE])
            if not isinstance(answer.get("jobs"), list):
                raise Unreadable("the answer to DescribeJobs is no list")
            described |= {job.id: job for job in map(job_in, answer["jobs"])}
        return [one for array, submission in arrays for one in self._of(array, submission, described)]

    def touched(self, handle: str) -> None:
        """Something was asked of this job, which no count of states shows."""
        self._known.pop(handle.partition(":")[0], None)

    def _must_ask(self, array: Job) -> bool:
        """An array that was just submitted has no children yet."""
        known = self._known.get(array.id)
        return array.status != "SUBMITTED" and not (known and known.holds_for(array))

    def _of(self, array: Job, submission: str, described: Mapping[str, Job]) -> tuple[Seen, ...]:
        if not self._must_ask(array) and array.id in self._known:
            return self._known[array.id].children
        jobs = [described.get(f"{array.id}:{index}") or _unborn(array, index) for index in range(array.size)]
        children = tuple(seen(job, submission, index) for index, job in enumerate(jobs))
        if all(job.id in described for job in jobs):
            self._known[array.id] = _Known(children, Counter(job.status for job in jobs), time.monotonic())
        return children


def _unborn(array: Job, index: int) -> Job:
    """A child that Batch has not made yet, or shows no more, is as its array is; it is never absent."""
    return replace(array, id=f"{array.id}:{index}", size=0, started_at=None, exit_code=None)


def in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TooLate("there was no time left for another page")
