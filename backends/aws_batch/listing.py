"""What Batch shows of a pool's jobs → Seen. Reads only.

Jobs are found by the beginning of their name, newest first, a hundred to a page, ended ones among them for a week. So
after two pages what is left is asked for by state, a thousand to a page: the cost grows with what lives, never with
what is over. The children of an array are in no such list: they are described by their ids, a hundred at a time.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.aws import Account
from backends.aws_batch.recipe import prefix, submission_in
from backends.aws_batch.states import ENDED, LIVE, kind_of, phase_of
from backends.base import Context, ListFailed, Listing, Seen, WorkerPhase, clipped

PAGES_BY_NAME = 2
DESCRIBED_AT_ONCE = 100  # the most that DescribeJobs takes
MOST_PAGES = 1000
LARGEST_ARRAY = 10_000  # that Batch makes


class Unreadable(Exception):
    """An answer that is none."""


class TooLate(Exception):
    """The deadline of the whole call has passed."""


@dataclass(frozen=True)
class Job:
    """A row of ListJobs, or an entry of DescribeJobs."""

    id: str
    name: str
    status: str
    size: int  # of an array; 0 for a plain job or a child
    reason: str
    created_at: int
    started_at: int | None
    stopped_at: int | None
    exit_code: int | None
    ending: bool


def job_in(row: Any) -> Job:
    """Raises Unreadable."""
    try:
        container = row.get("container") or {}
        words = (_text(row, "statusReason"), _text(container, "reason"), _last_reason(row))
        return Job(
            id=_text(row, "jobId", required=True),
            name=_text(row, "jobName", required=True),
            status=_text(row, "status"),
            size=_size(row),
            reason="; ".join(dict.fromkeys(word for word in words if word)),
            created_at=_number(row, "createdAt") or 0,
            started_at=_number(row, "startedAt") or None,
            stopped_at=_number(row, "stoppedAt") or None,
            exit_code=_number(container, "exitCode"),
            ending=bool(row.get("isTerminated") or row.get("isCancelled")),
        )
    except (AttributeError, KeyError, TypeError) as failed:
        raise Unreadable(f"a job that is none: {clipped(repr(row))[:200]}") from failed


def _size(row: Mapping[str, Any]) -> int:
    """A child's array is not its own."""
    size = 0 if ":" in row["jobId"] else _number(row.get("arrayProperties") or {}, "size") or 0
    if not 0 <= size <= LARGEST_ARRAY:
        raise TypeError(f"an array of {size}")
    return size


def _last_reason(row: Mapping[str, Any]) -> str:
    attempts = row.get("attempts") or [{}]
    return _text((attempts[-1] or {}).get("container") or {}, "reason")


def _text(row: Mapping[str, Any], name: str, required: bool = False) -> str:
    value = row[name] if required else row.get(name) or ""
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _number(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"{name} is no number")
    return value


def seen(job: Job, submission: str, index: int) -> Seen:
    phase = phase_of(job.status, job.ending)
    return Seen(
        submission=submission,
        index=index,
        handle=job.id,
        phase=phase,
        started_at=job.started_at if phase not in (WorkerPhase.PENDING, WorkerPhase.STARTING) else None,
        exit_code=job.exit_code if phase is WorkerPhase.ENDED else None,
        refusal=None if job.ending else kind_of(job.reason),
        detail=clipped(job.reason or ("" if phase is not WorkerPhase.UNKNOWN else f"state {job.status!r}")),
    )


class Jobs:
    """The jobs of one pool in one queue."""

    def __init__(self, account: Account, context: Context, queue: str, keep_ended_ms: int) -> None:
        self._account = account
        self._context = context
        self._queue = queue
        self._keep_ms = keep_ended_ms
        self._over: dict[str, tuple[Seen, ...]] = {}  # arrays that have ended, by id: nothing about them changes

    def listing(self) -> Listing:
        """Raises ListFailed when not even the first page could be read."""
        deadline = time.monotonic() + self._context.call_timeout_s
        rows, complete = self._rows(deadline)
        found = {id: (job, own) for id, job in rows.items() if (own := self._submission(job)) and self._is_shown(job)}
        self._over = {id: over for id, over in self._over.items() if id in found}
        plain = tuple(seen(job, own, 0) for job, own in found.values() if not job.size)
        arrays = [(job, own) for job, own in found.values() if job.size]
        try:
            children = self._children(arrays, deadline)
        except self._account.errors_and(Unreadable, TooLate):
            return Listing(plain, complete=False)
        return Listing((*plain, *children), complete)

    def _submission(self, job: Job) -> str | None:
        return submission_in(job.name, self._context.manager, self._context.pool)

    def _is_shown(self, job: Job) -> bool:
        if job.status not in ENDED:
            return True
        return (job.stopped_at or job.created_at) > self._context.now_ms() - self._keep_ms

    # ------------------------------------------------ rows

    def _rows(self, deadline: float) -> tuple[dict[str, Job], bool]:
        """By id, and whether every page was read."""
        rows: dict[str, Job] = {}
        name = {"name": "JOB_NAME", "values": [prefix(self._context.manager, self._context.pool) + "*"]}
        try:
            more = self._read(rows, {"filters": [name]}, PAGES_BY_NAME, deadline)
            for status in LIVE if more else ():
                if self._read(rows, {"jobStatus": status}, MOST_PAGES, deadline):
                    return rows, False
        except self._account.errors_and(Unreadable, TooLate) as failed:
            if not rows:
                raise ListFailed(clipped(f"the jobs of {self._queue} cannot be read: {failed}")) from failed
            return rows, False
        return rows, True

    def _read(self, rows: dict[str, Job], which: Mapping[str, Any], most_pages: int, deadline: float) -> bool:
        """Whether there are more pages than that. A job that is met again is newer than before."""
        token: dict[str, str] = {}
        for _ in range(most_pages):
            _in_time(deadline)
            answer = self._account.reading("batch").list_jobs(jobQueue=self._queue, **which, **token)
            if not isinstance(answer.get("jobSummaryList"), list):
                raise Unreadable("the answer to ListJobs is no list")
            rows |= {job.id: job for job in map(job_in, answer["jobSummaryList"])}
            if not answer.get("nextToken"):
                return False
            token = {"nextToken": answer["nextToken"]}
        return True

    # ------------------------------------------------ children of arrays

    def _children(self, arrays: Sequence[tuple[Job, str]], deadline: float) -> list[Seen]:
        wanted = [
            f"{array.id}:{index}"
            for array, _ in arrays
            if array.status != "SUBMITTED" and array.id not in self._over
            for index in range(array.size)
        ]
        described: dict[str, Job] = {}
        for start in range(0, len(wanted), DESCRIBED_AT_ONCE):
            _in_time(deadline)
            answer = self._account.reading("batch").describe_jobs(jobs=wanted[start : start + DESCRIBED_AT_ONCE])
            if not isinstance(answer.get("jobs"), list):
                raise Unreadable("the answer to DescribeJobs is no list")
            described |= {job.id: job for job in map(job_in, answer["jobs"])}
        return [one for array, own in arrays for one in self._of_array(array, own, described)]

    def _of_array(self, array: Job, submission: str, described: Mapping[str, Job]) -> tuple[Seen, ...]:
        if array.id in self._over:
            return self._over[array.id]
        children = tuple(
            seen(described.get(id) or _unborn(array, id), submission, index)
            for index, id in enumerate(f"{array.id}:{number}" for number in range(array.size))
        )
        if array.status in ENDED and all(child.phase is WorkerPhase.ENDED for child in children):
            self._over[array.id] = children
        return children


def _unborn(array: Job, id: str) -> Job:
    """A child that Batch has not made yet, or shows no more, is as its array is; it is never absent."""
    return replace(array, id=id, size=0, started_at=None, exit_code=None)


def _in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TooLate("there was no time left for another page")
