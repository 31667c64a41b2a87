"""Workers as jobs of a Slurm cluster: one sbatch for up to a thousand of them, one squeue for all.

Nothing runs between the calls, and nothing but Slurm itself is trusted to know what exists: a worker is found by its
job's name and comment. Slurm has no idempotent submission, so an sbatch whose answer was lost is Unknown, and the
listing shows whether it did its work.
"""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from backends import tools
from backends.base import (
    Accepted,
    Capabilities,
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    ListFailed,
    Listing,
    RefusalKind,
    Refused,
    Submission,
    Unknown,
    clipped,
)
from backends.slurm import doctor, queue, recipe, states
from backends.slurm.client import Client, Unanswered
from backends.slurm.folders import SubmissionFolder, WorkDir
from backends.slurm.names import Owner
from backends.slurm.past import Past
from backends.slurm.queue import Job
from backends.slurm.settings import OPTIONS as OPTIONS
from backends.slurm.settings import SlurmSettings, settings_from

CAPABILITIES = Capabilities(
    max_batch=recipe.MAX_BATCH,
    list_lag_s=5.0,  # an sbatch that was given up may still be waiting at the controller
    secrets="file",
    elsewhere=True,
)

_OUT_OF_SOMETHING = {errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
_GONE = ("Invalid job id specified", "already completing or completed")


class SlurmBackend:
    def __init__(self, settings: SlurmSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._owner = Owner(context.manager, context.pool)
        self._client = Client(context.call_timeout_s, settings.inherited)
        self._work_dir = WorkDir(settings.work_dir, context.manager, context.pool)
        self._past = Past(self._client, self._work_dir, context.now_ms)
        self._jobs: dict[str, tuple[Job, str]] = {}  # as last listed: handle → (job, submission)

    # ------------------------------------------------ launch

    def launch(self, submission: Submission) -> LaunchOutcome:
        if problem := recipe.problem(submission):
            return Refused(RefusalKind.CONFIG, problem)
        folder = self._work_dir.folder(submission.id)
        script = recipe.script_text(submission, self._settings, folder)
        try:
            folder.prepare(script, submission.join_tokens, submission.count)
        except FileExistsError:
            return Unknown(f"{submission.id} was submitted before: {folder.path} is there")
        except OSError as failed:
            folder.remove()
            return _refused(failed)
        outcome = self._submit(submission, folder)
        if isinstance(outcome, Refused):
            folder.remove()
        self._past.remove_old(self._settings.keep_ended_ms, self._settings.keep_ended_count)
        return outcome

    def _submit(self, submission: Submission, folder: SubmissionFolder) -> LaunchOutcome:
        try:
            ran = self._client.run(recipe.argv(submission, self._settings, folder))
        except tools.NotInstalled as missing:
            return Refused(RefusalKind.CONFIG, str(missing))
        except (tools.TookTooLong, tools.TooMuch) as failed:
            return Unknown(str(failed))
        except OSError as failed:  # it could not even be started
            return _refused(failed)
        if ran.status != 0:
            kind = states.refusal_of_sbatch(ran.status, ran.err)
            text = clipped(ran.words)
            return Unknown(text) if kind is None else Refused(kind, text)
        number = ran.out.strip().partition(";")[0]  # with several clusters: 12;name
        if not (number.isascii() and number.isdecimal()):
            return Unknown(clipped(f"sbatch did not say which job it made: {ran.out} {ran.err}"))
        folder.note_job(int(number))
        if submission.count == 1:
            return Accepted({0: number})
        return Accepted({index: f"{number}_{index}" for index in range(submission.count)})

    # ------------------------------------------------ list

    def list(self) -> Listing:
        try:
            recorded = self._past.recorded()
            jobs = queue.parse_squeue(self._client.read(queue.squeue(os.getuid())))
        except (Unanswered, queue.Garbage, OSError) as failed:
            raise ListFailed(clipped(str(failed))) from failed
        ours = [(job, name) for job in jobs if (name := queue.submission_if_ours(job, self._owner, recorded))]
        ours += self._past.add_forgotten(ours, recorded)
        self._jobs = {job.id: (job, name) for job, name in ours}
        return Listing(tuple(queue.seen(job, name) for job, name in ours))

    # ------------------------------------------------ terminate

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        """Only what is listed as ours is touched: a number alone could be anybody's job.

        A signal of its own, which leaves the worker all the time it needs, is only for one that certainly runs: Slurm
        calls a job running before its script is, and loses a signal that comes too early, or to a job that is stopped.
        All others are cancelled: TERM, and a KILL some seconds later (Slurm's KillWait)."""
        if handle not in self._jobs:
            try:
                self.list()
            except ListFailed as failed:
                return Unknown(str(failed))
        job, submission = self._jobs.get(handle, (None, ""))
        if job is None or job.is_over:
            return Accepted()
        folder = self._work_dir.folder(submission)
        if force or job.state != "RUNNING" or not folder.has_spoken(job.index):
            return self._cancel(handle)
        if folder.asked(job.index):  # a second TERM would mean: drop everything now
            return Accepted()
        outcome = self._cancel("--batch", "--signal=TERM", handle)
        if isinstance(outcome, Accepted):
            folder.note_asked(job.index)
        return outcome

    def _cancel(self, *words: str) -> EndOutcome:
        try:
            ran = self._client.run(["scancel", *words])
        except tools.NotInstalled as missing:
            return Refused(RefusalKind.CONFIG, str(missing))
        except (tools.TookTooLong, tools.TooMuch, OSError) as failed:
            return Unknown(str(failed))
        if ran.status == 0 or any(text in ran.err for text in _GONE):
            return Accepted()
        if "Access/permission denied" in ran.err:
            return Refused(RefusalKind.AUTH, clipped(ran.words))
        return Unknown(clipped(ran.words))

    # ------------------------------------------------ for people

    def logs(self, handle: str, max_bytes: int) -> str:
        """From the work dir, so the controller need not answer."""
        job, submission = self._jobs.get(handle, (None, ""))
        if job is not None:
            return self._work_dir.folder(submission).tail(job.index, max_bytes)
        number, _, index = handle.partition("_")
        with suppress(OSError, ValueError):
            for name in self._work_dir.submissions():
                folder = self._work_dir.folder(name)
                if str(folder.job()) == number:
                    return folder.tail(int(index or 0), max_bytes)
        return ""

    def check(self) -> tuple[Finding, ...]:
        return tuple(doctor.findings(self._client, self._settings, self._work_dir, self._context))

    def render(self, submission: Submission) -> str:
        return recipe.rendered(submission, self._settings, self._work_dir.folder(submission.id))


def _refused(failed: OSError) -> Refused:
    kind = RefusalKind.CAPACITY if failed.errno in _OUT_OF_SOMETHING else RefusalKind.CONFIG
    return Refused(kind, clipped(str(failed)))


def create(options: Mapping[str, Any], context: Context) -> SlurmBackend:
    return SlurmBackend(settings_from(options, context.shape), context)
