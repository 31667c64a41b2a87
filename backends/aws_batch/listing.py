"""What Batch shows of a pool's jobs → a Listing. Reads only.

Jobs are found by the beginning of their name, newest first, a hundred to a page, ended ones among them for a week. So
after two pages what is left is asked for by state, a thousand to a page: the cost grows with what lives, never with
what is over.
"""

import time
from collections.abc import Mapping
from typing import Any

from backends.aws import Account, error_code
from backends.aws_batch.arrays import Arrays, TooLate, in_time
from backends.aws_batch.jobs import Job, Unreadable, job_in, seen
from backends.aws_batch.queues import Queues
from backends.aws_batch.recipe import prefix, submission_in
from backends.aws_batch.states import ENDED, LIVE
from backends.base import Context, ListFailed, Listing, WorkerPhase, clipped

PAGES_BY_NAME = 2
MOST_PAGES = 1000
SETTLED_MS = 180_000  # later, nothing that was launched before the queue was changed appears any more


class QueueGone(ListFailed):
    """There is no such queue."""


class Jobs:
    """The jobs of one pool in one queue."""

    def __init__(self, account: Account, context: Context, queue: str, keep_ended_ms: int) -> None:
        self._account = account
        self._context = context
        self._queue = queue
        self._keep_ms = keep_ended_ms
        self._arrays = Arrays(account)

    def listing(self) -> Listing:
        """Raises ListFailed when not even the first page could be read."""
        deadline = time.monotonic() + self._context.call_timeout_s
        rows, complete = self._rows(deadline)
        found = {id: (job, own) for id, job in rows.items() if (own := self._submission(job)) and self._is_shown(job)}
        plain = tuple(seen(job, own, 0) for job, own in found.values() if not job.size)
        arrays = [(job, own) for job, own in found.values() if job.size]
        try:
            children = self._arrays.children(arrays, deadline)
        except self._account.errors_and(Unreadable, TooLate):
            return Listing(plain, complete=False)
        return Listing((*plain, *children), complete)

    def touched(self, handle: str) -> None:
        self._arrays.touched(handle)

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
                gone = error_code(failed) == "ClientException" and "exist" in str(failed)
                text = clipped(f"the jobs of {self._queue} cannot be read: {failed}")
                raise (QueueGone if gone else ListFailed)(text) from failed
            return rows, False
        return rows, True

    def _read(self, rows: dict[str, Job], which: Mapping[str, Any], most_pages: int, deadline: float) -> bool:
        """Whether there are more pages than that. A job that is met again is newer than before."""
        token: dict[str, str] = {}
        for _ in range(most_pages):
            in_time(deadline)
            answer = self._account.reading("batch").list_jobs(jobQueue=self._queue, **which, **token)
            if not isinstance(answer.get("jobSummaryList"), list):
                raise Unreadable("the answer to ListJobs is no list")
            rows |= {job.id: job for job in map(job_in, answer["jobSummaryList"])}
            if not answer.get("nextToken"):
                return False
            token = {"nextToken": answer["nextToken"]}
        return True


class AllJobs:
    """The jobs of one pool, in its queue and in those that it had before."""

    def __init__(self, account: Account, context: Context, queues: Queues, keep_ended_ms: int) -> None:
        self._queues = queues
        self._now_ms = context.now_ms
        self._begun = context.now_ms()
        self._in = {name: Jobs(account, context, name, keep_ended_ms) for name in (queues.current, *queues.former)}

    def listing(self) -> Listing:
        """Raises ListFailed when the pool's own queue cannot be read."""
        whole = self._in[self._queues.current].listing()
        for name in self._queues.former:
            whole = _joined(whole, self._former(name))
        return whole

    def touched(self, handle: str) -> None:
        """Something was asked of this job."""
        for jobs in self._in.values():
            jobs.touched(handle)

    def _former(self, name: str) -> Listing:
        try:
            listing = self._in[name].listing()
        except QueueGone:
            listing = Listing(())
        except ListFailed:
            return Listing((), complete=False)
        settled = self._now_ms() - self._begun > SETTLED_MS
        if settled and listing.complete and all(one.phase is WorkerPhase.ENDED for one in listing.seen):
            self._queues.forget(name)
        return listing


def _joined(one: Listing, other: Listing) -> Listing:
    return Listing((*one.seen, *other.seen), one.complete and other.complete)
