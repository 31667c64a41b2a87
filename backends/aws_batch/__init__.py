"""Workers as jobs of AWS Batch: a job to a worker, or an array of jobs to many.

A job definition is registered once for every distinct content and is found by its name ever after; a launch is one
SubmitJob. Batch knows no idempotent submit, so one attempt is made, and a job whose answer was lost is found by its
name, which is made of manager, pool and submission.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from backends.aws import Account, error_code, refused_or_unknown
from backends.aws_batch import check, logs, recipe
from backends.aws_batch.listing import AllJobs
from backends.aws_batch.queues import Queues
from backends.aws_batch.settings import OPTIONS, Settings, settings
from backends.aws_batch.states import ENDED, kind_of
from backends.aws_batch.waiting import Waiting
from backends.base import (
    Accepted,
    Capabilities,
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    Listing,
    RefusalKind,
    Refused,
    Submission,
    Unknown,
)

__all__ = ["CAPABILITIES", "OPTIONS", "AwsBatchBackend", "create"]

CAPABILITIES = Capabilities(
    max_batch=recipe.MAX_BATCH,
    list_lag_s=60.0,
    graceful_end=True,  # SIGTERM, and SIGKILL 30 s later
    secrets="environment",
    elsewhere=True,
)

_HANDLE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?P<child>:[0-9]{1,4})?")
_NO_SUCH_JOB = re.compile(r"not found|not exist|n't exist|not find|no such", re.IGNORECASE)


class AwsBatchBackend:
    def __init__(self, options: Mapping[str, Any], context: Context) -> None:
        self._settings: Settings = settings(options)
        self._context = context
        # Looking the definition up and submitting are two calls of one launch, and share its time.
        self._account = Account(options, context.call_timeout_s / 2)
        queues = Queues(context.state_dir, self._settings.queue)
        self._jobs = AllJobs(self._account, context, queues, self._settings.keep_ended_ms)
        self._waiting = Waiting(self._account, self._settings.queue, context.now_ms)
        self._definitions: dict[str, str] = {}  # name → name:revision, registered for certain

    # ------------------------------------------------ launch

    def launch(self, submission: Submission) -> LaunchOutcome:
        if problem := recipe.problem(submission, self._settings):
            return Refused(RefusalKind.CONFIG, problem)
        begun = time.monotonic()
        outcome = self._definition(submission)
        if isinstance(outcome, Refused):
            return outcome
        if time.monotonic() - begun > self._context.call_timeout_s / 2:
            return Refused(RefusalKind.THROTTLED, "the job definition took so long that there was no time for the job")
        return _without(submission.join_tokens, self._submit(submission, outcome))

    def _definition(self, submission: Submission) -> str | Refused:
        """`name:revision`, so that what another manager registers under that name in the meantime has no say. Nothing
        was launched when it cannot be had, whatever became of the registration: a second one does no harm."""
        request = recipe.definition(submission, self._settings)
        name = request["jobDefinitionName"]
        if name not in self._definitions:
            try:
                self._definitions[name] = self._registered(request) or self._register(request)
            except self._account.errors as failed:
                said = self._translated(failed)
                kind = said.kind if isinstance(said, Refused) else RefusalKind.THROTTLED
                return Refused(kind, f"the job definition {name}: {said.text}"[:2000], _retry_after(said))
            except (KeyError, TypeError, IndexError) as failed:
                return Refused(RefusalKind.THROTTLED, f"the answer about the job definition makes no sense: {failed!r}")
        return self._definitions[name]

    def _registered(self, request: Mapping[str, Any]) -> str | None:
        """The newest of that name which runs the same: a name alone is no proof of its content."""
        name = request["jobDefinitionName"]
        answer = self._account.reading("batch").describe_job_definitions(jobDefinitionName=name, status="ACTIVE")
        revisions = [
            found["revision"]
            for found in answer["jobDefinitions"]
            if found["jobDefinitionName"] == name and recipe.runs_the_same(found, request)
        ]
        return f"{name}:{max(revisions)}" if revisions else None

    def _register(self, request: Mapping[str, Any]) -> str:
        answer = self._account.once("batch").register_job_definition(**request)
        return f"{answer['jobDefinitionName']}:{answer['revision']}"

    def _submit(self, submission: Submission, definition: str) -> LaunchOutcome:
        try:
            answer = self._account.once("batch").submit_job(**recipe.job(submission, self._settings, definition))
        except self._account.errors as failed:
            said = self._translated(failed)
            if isinstance(said, Refused) and said.kind is RefusalKind.CONFIG:
                self._definitions.clear()  # perhaps somebody deregistered it: the next launch looks again
            return said
        job = answer.get("jobId")
        if not isinstance(job, str) or not _HANDLE.fullmatch(job):
            return Unknown(f"the answer names no job: {job!r}"[:2000])
        if submission.count == 1:
            return Accepted({0: job})
        return Accepted({index: f"{job}:{index}" for index in range(submission.count)})

    def _translated(self, failed: Exception) -> Refused | Unknown:
        """Batch has one code for every mistake of a client, so its words decide."""
        said = refused_or_unknown(failed)
        if isinstance(said, Refused) and error_code(failed) == "ClientException":
            return Refused(kind_of(said.text) or RefusalKind.CONFIG, said.text, said.retry_after_s)
        return said

    # ------------------------------------------------ list

    def list(self) -> Listing:
        return self._waiting.explained(self._jobs.listing())

    # ------------------------------------------------ terminate

    def terminate(self, handle: str, force: bool) -> EndOutcome:  # noqa: ARG002 -- there is no other way
        """Batch has one way to end a job: SIGTERM, and SIGKILL after the 30 s that ECS gives. `force` cannot be
        quicker; the first request decides when it is over."""
        form = _HANDLE.fullmatch(handle)
        if not form:
            return Refused(RefusalKind.CONFIG, f"{handle!r} is no job of AWS Batch")
        reason = f"ended by the worker manager {self._context.manager}, pool {self._context.pool}"
        self._jobs.touched(handle)
        try:
            self._account.once("batch").terminate_job(jobId=handle, reason=reason)
        except self._account.errors as failed:
            said = self._translated(failed)
            if isinstance(said, Refused) and said.kind is RefusalKind.CONFIG and _NO_SUCH_JOB.search(said.text):
                return self._unborn(handle) if form["child"] else Accepted()
            return said
        return Accepted()

    def _unborn(self, handle: str) -> EndOutcome:
        """A child that is not there: its array is over, or has not been opened yet."""
        try:
            answer = self._account.reading("batch").describe_jobs(jobs=[handle.partition(":")[0]])
        except self._account.errors as failed:
            return Unknown(refused_or_unknown(failed).text)
        opened = [job for job in answer.get("jobs") or [] if job.get("status") not in ENDED]
        return Unknown("its array has not been opened yet: ask again") if opened else Accepted()

    # ------------------------------------------------ for people

    def logs(self, handle: str, max_bytes: int) -> str:
        if not _HANDLE.fullmatch(handle) or max_bytes <= 0:
            return ""
        return logs.tail(self._account, handle, recipe.prefix(self._context.manager, self._context.pool), max_bytes)

    def check(self) -> tuple[Finding, ...]:
        return tuple(check.findings(self._account, self._settings, self._context))

    def render(self, submission: Submission) -> str:
        return recipe.rendered(submission, self._settings)


def _retry_after(said: Refused | Unknown) -> float | None:
    return said.retry_after_s if isinstance(said, Refused) else None


def _without(tokens: Sequence[str], outcome: LaunchOutcome) -> LaunchOutcome:
    """A refusal that repeats what it was sent must not carry a token to a log."""
    if isinstance(outcome, Accepted) or not any(token in outcome.text for token in tokens):
        return outcome
    text = outcome.text
    for token in tokens:
        text = text.replace(token, "***")
    return Unknown(text) if isinstance(outcome, Unknown) else Refused(outcome.kind, text, outcome.retry_after_s)


def create(options: Mapping[str, Any], context: Context) -> AwsBatchBackend:
    return AwsBatchBackend(options, context)
