"""What the controller has forgotten: workers whose jobs left squeue, their tokens, and the folders of old submissions.

Slurm drops a job some minutes after its end (MinJobAge). What is no longer there is over, not pending; where there is
accounting, sacct still knows how it ended. Each such job is asked for once.
"""

from collections.abc import Callable, Mapping, Sequence

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
        self._closed: frozenset[str] = frozenset()  # submissions that are over, looked after
        self._numberless: frozenset[str] = frozenset()  # submissions that may come yet: nobody answered
        self._numbers: dict[str, int] = {}  # submission → job, as on record
        self._dropped: set[str] = set()  # handles whose token is gone
        self._ask_again_at = 0

    def recorded(self) -> Mapping[str, int | None]:
        """Submissions of the work dir and their jobs, None where sbatch gave no answer. To be read before squeue is
        asked: what is on record then and not in the answer is really gone."""
        names = self._work_dir.submissions()
        self._numbers = {name: number for name, number in self._numbers.items() if name in names}
        for name in names - self._numbers.keys():
            number = self._work_dir.folder(name).job()
            if number is not None:
                self._numbers[name] = number
        return {name: self._numbers.get(name) for name in names}

    def add_forgotten(self, listed: Sequence[Ours], recorded: Mapping[str, int | None]) -> list[Ours]:
        """Workers that a complete squeue no longer shows, as far as sacct tells how they ended."""
        self._drop_tokens(listed)
        self._note_numbers(listed, recorded)
        there = {submission for _, submission in listed} & recorded.keys()
        live = {submission for job, submission in listed if not job.is_over}
        closed = (self._closed & recorded.keys()) - live
        missing = recorded.keys() - there - closed
        gone = {number: name for name in missing if (number := recorded[name]) is not None}
        self._numberless = frozenset(missing - set(gone.values()))
        self._ask(gone)
        for name in {*gone.values(), *(there - live)} - closed:
            self._work_dir.folder(name).drop_tokens()
        self._closed = closed | set(gone.values()) | (there - live)
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

    def _note_numbers(self, listed: Sequence[Ours], recorded: Mapping[str, int | None]) -> None:
        """Of those whose sbatch gave no answer: now it is known which job they are."""
        for job, name in listed:
            if name in recorded and name not in self._numbers:
                self._numbers[name] = job.number
                self._work_dir.folder(name).note_job(job.number)

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
        """Folders of submissions that were seen to be over; and of those that never came, when that is long ago."""
        before_s = (self._now_ms() - keep_ms) / 1000
        never_came = [name for name in self._numberless if self._work_dir.folder(name).changed < before_s]
        self._work_dir.remove_old(map(self._work_dir.folder, (*self._closed, *never_came)), before_s, keep)
