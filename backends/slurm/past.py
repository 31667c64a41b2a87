"""What the controller has forgotten: workers whose jobs left squeue, their tokens, and the folders of old submissions.

Slurm drops a job some minutes after its end (MinJobAge). What is no longer there is over, not pending; where there is
accounting, sacct still knows how it ended. Each such job is asked for once.
"""

from collections.abc import Callable, Sequence

from backends.slurm import queue
from backends.slurm.client import Client, Unanswered
from backends.slurm.folders import WorkDir
from backends.slurm.names import submission_of
from backends.slurm.queue import Job

SHOWN_MS = 600_000  # how long an end that sacct told of stays listed
NO_ACCOUNTING_MS = 600_000  # how long sacct is left alone after it failed
_AT_ONCE = 200  # jobs in one question

Ours = tuple[Job, str]  # a job and its submission


class Past:
    def __init__(self, client: Client, work_dir: WorkDir, now_ms: Callable[[], int]) -> None:
        self._client = client
        self._work_dir = work_dir
        self._now_ms = now_ms
        self._told: dict[str, tuple[int, Ours]] = {}  # by handle: from sacct, and when
        self._closed: set[str] = set()  # submissions that are over, looked after
        self._dropped: set[str] = set()  # handles whose token is gone
        self._ask_again_at = 0

    def add_forgotten(self, listed: Sequence[Ours], recorded: set[str]) -> list[Ours]:
        """Workers that a complete squeue no longer shows, as far as sacct tells how they ended."""
        self._drop_tokens(listed)
        there = {submission for _, submission in listed} & recorded
        live = {submission for job, submission in listed if not job.is_over}
        self._closed = (self._closed & recorded) - live
        gone = {}
        for name in recorded - there - self._closed:
            number = self._work_dir.folder(name).job()
            if number is not None:  # else it is not known whether it was submitted; perhaps it comes yet
                gone[number] = name
        self._ask(gone)
        for name in {*gone.values(), *(there - live)} - self._closed:
            self._work_dir.folder(name).drop_tokens()
            self._closed.add(name)
        shown_since = self._now_ms() - SHOWN_MS
        self._told = {handle: told for handle, told in self._told.items() if told[0] > shown_since}
        handles = {job.id for job, _ in listed}
        return [ours for handle, (_, ours) in self._told.items() if handle not in handles]

    def _drop_tokens(self, listed: Sequence[Ours]) -> None:
        over = {job.id: (job, submission) for job, submission in listed if job.is_over}
        for handle in over.keys() - self._dropped:
            job, submission = over[handle]
            self._work_dir.folder(submission).drop_token(job.index)
        self._dropped = set(over)

    def _ask(self, gone: dict[int, str]) -> None:
        now = self._now_ms()
        numbers = sorted(gone)
        if now < self._ask_again_at:
            return
        for start in range(0, len(numbers), _AT_ONCE):
            try:
                jobs = queue.parse_sacct(self._client.read(queue.sacct(numbers[start : start + _AT_ONCE])))
            except (Unanswered, queue.Garbage):
                self._ask_again_at = now + NO_ACCOUNTING_MS
                return
            for job in jobs:
                name = gone.get(job.number)
                if name is not None and submission_of(job.name) == name:  # numbers are used again some day
                    self._told[job.id] = (now, (job, name))

    def remove_old(self, keep_ms: int, keep: int) -> None:
        """Only folders of submissions that were seen to be over."""
        over = [self._work_dir.folder(name) for name in self._closed]
        self._work_dir.remove_old(over, (self._now_ms() - keep_ms) / 1000, keep)
