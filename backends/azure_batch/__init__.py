"""Workers as tasks of an Azure Batch job, whose pool gives them machines.

A worker's id is its task's id, so the same submission sent twice makes one worker. What Azure calls active is queued
and not running. A task may be started again by Azure after a node was lost, whatever its retry count says: then its
worker is the second to register, and leaves.
"""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from backends.azure_batch import checks, errors, recipe, results, seen
from backends.azure_batch.blobs import LogContainer
from backends.azure_batch.errors import Trouble
from backends.azure_batch.seen import PoolView
from backends.azure_batch.service import Deadline, Service
from backends.azure_batch.settings import OPTIONS, Settings, read
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
    Seen,
    Submission,
    Unknown,
    WorkerPhase,
    clipped,
)

__all__ = ("CAPABILITIES", "OPTIONS", "AzureBatchBackend", "create")

CAPABILITIES = Capabilities(
    max_batch=recipe.MAX_BATCH,
    idempotent_create=True,
    list_lag_s=5.0,  # nobody promises that a task is listed at once
    confirms_end=False,  # a node that lost contact may run on what Azure calls completed
    graceful_end=False,  # Azure kills; the hub's drain is the polite way
    secrets="environment",
    elsewhere=True,
)

Rows = Sequence[Mapping[str, Any]]

_POOL_EVERY_MS = 60_000  # a pool changes slowly, and each look at it is two calls
_OVER = ("TaskCompleted", "TaskSucceeded", "JobCompleted", "JobBeingTerminated", "JobBeingDeleted")


class AzureBatchBackend:
    """`credential` is for a caller that brings its own; else the settings say which."""

    def __init__(self, settings: Settings, context: Context, credential: Any = None) -> None:
        self._settings = settings
        self._context = context
        self._service = Service(settings, credential)
        self._logs = LogContainer(settings, credential)
        self._view = PoolView()
        self._viewed_at: int | None = None
        self._lock = Lock()

    # ------------------------------------------------ launch

    def launch(self, submission: Submission) -> LaunchOutcome:
        """One call for all of them; two more, once ever, where the job is ours to make."""
        if problem := recipe.problem(submission):
            return Refused(RefusalKind.CONFIG, problem)
        tasks = recipe.tasks(submission, self._settings)
        if problem := recipe.too_large(tasks):
            return Refused(RefusalKind.CONFIG, problem)
        deadline = self._deadline()
        try:
            return self._add(submission, tasks, deadline)
        except Trouble as trouble:
            if not self._is_yet_to_be_made(trouble):
                return errors.outcome(trouble)
        try:
            self._make_job(deadline)
            return self._add(submission, tasks, deadline)
        except Trouble as trouble:
            return errors.outcome(trouble)

    def _add(self, submission: Submission, tasks: Rows, deadline: Deadline) -> LaunchOutcome:
        """All or none: where Azure took some and refused others, those it took are deleted again."""
        result = results.read(self._service.add(tasks, deadline), [task["id"] for task in tasks])
        if result.existing:
            strange = self._not_ours(submission, result.existing, deadline)
            if strange:
                return Unknown(strange) if result.added else Refused(RefusalKind.CONFIG, strange)
        if result.whole:
            return Accepted({index: submission.worker_id(index) for index in range(submission.count)})
        if result.unclear or result.existing:
            return Unknown(clipped(result.words))
        for id in result.added:
            try:
                self._service.delete(id, deadline)
            except Trouble as trouble:
                if not trouble.gone:
                    return Unknown(clipped(f"{result.words}; and {id}, which was taken, cannot be deleted: {trouble}"))
        return result.refusal()

    def _not_ours(self, submission: Submission, ids: tuple[str, ...], deadline: Deadline) -> str:
        """The first of these tasks that somebody else made, or nothing."""
        labels = {submission.worker_id(index): recipe.label(submission, index) for index in range(submission.count)}
        try:
            pages = self._service.tasks(f"startswith(id,'{submission.id}-')", ("id", "displayName"), deadline)
            found = {task.get("id"): task.get("displayName") for page in pages for task in page}
        except Trouble as trouble:
            raise Trouble(f"{ids[0]} exists already, and whose it is cannot be told: {trouble}") from trouble
        wrong = [id for id in ids if found.get(id) != labels[id]]
        return f"a task with the id {wrong[0]} exists already in {self._settings.job}, made by another" if wrong else ""

    def _is_yet_to_be_made(self, trouble: Trouble) -> bool:
        """The service itself says that there is no job, and the first launch is to make it: no job, no workers."""
        return trouble.code == "JobNotFound" and self._settings.create_job

    def _make_job(self, deadline: Deadline) -> None:
        manager = self._context.manager
        if self._settings.pool_template is not None:
            self._service.make_pool(recipe.pool(self._settings, manager, self._formula()), deadline)
        self._service.make_job(recipe.job(self._settings, manager), deadline)

    def _formula(self) -> str:
        return checks.formula_for(self._settings, self._context.max_workers)

    # ------------------------------------------------ list

    def list(self) -> Listing:
        """A later page that is missing makes it incomplete; the first one that is missing is no listing at all."""
        deadline = self._deadline()
        since = self._context.now_ms() - self._settings.keep_ended_ms
        rows: Rows = ()
        complete = True
        try:
            for page in self._service.tasks(seen.wanted_tasks(self._context.manager, since), seen.COLUMNS, deadline):
                rows = (*rows, *page)
        except Trouble as trouble:
            if not rows and not self._is_yet_to_be_made(trouble):
                raise ListFailed(str(trouble)) from trouble
            complete = not rows
        try:
            return Listing(self._workers(rows, deadline), complete)
        except (ValueError, TypeError, KeyError, AttributeError) as nonsense:
            raise ListFailed(clipped(f"Azure Batch shows a task that makes no sense: {nonsense}")) from nonsense

    def _workers(self, rows: Rows, deadline: Deadline) -> tuple[Seen, ...]:
        place = (self._context.manager, self._context.pool)
        found = {one.handle: one for row in rows if (one := seen.worker(row, *place))}
        if all(one.phase is WorkerPhase.ENDED for one in found.values()):
            return tuple(found.values())
        view = self._pool_view(deadline)
        return tuple(one for row in rows if (one := seen.worker(row, *place, view)))

    def _pool_view(self, deadline: Deadline) -> PoolView:
        """A pool that cannot be looked at is said, and keeps nobody from seeing the workers."""
        now = self._context.now_ms()
        with self._lock:
            if self._viewed_at is None or not 0 <= now - self._viewed_at < _POOL_EVERY_MS:
                self._view, self._viewed_at = self._look_at_pool(deadline), now
            return self._view

    def _look_at_pool(self, deadline: Deadline) -> PoolView:
        try:
            pool = self._view.pool or checks.pool_of(self._service.job(deadline))
            return checks.view(self._service, pool, deadline)
        except Trouble as trouble:
            kind = RefusalKind.CONFIG if trouble.code in ("PoolNotFound", "JobNotFound") else None
            return PoolView(refusal=kind, detail=f"why it waits cannot be told: {trouble}")

    # ------------------------------------------------ terminate

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        """Azure kills the worker's processes and calls the task completed. With `force`, where Azure will not: the
        task is deleted, which takes it from a node that no longer answers as well."""
        if not recipe.is_handle(handle, self._context.manager):
            return Accepted()
        deadline = self._deadline()
        try:
            self._service.terminate(handle, deadline)
            return Accepted()
        except Trouble as trouble:
            if _is_over(trouble):
                return Accepted()
            if not force or trouble.status != 409:
                return errors.outcome(trouble)
        try:
            self._service.delete(handle, deadline)
        except Trouble as trouble:
            if not _is_over(trouble):
                return errors.outcome(trouble)
        return Accepted()

    # ------------------------------------------------ for people

    def logs(self, handle: str, max_bytes: int) -> str:
        """From the node while it has them, else from the container to which they are copied at the end."""
        if max_bytes <= 0 or not recipe.is_handle(handle, self._context.manager):
            return ""
        text = self._output(handle, max_bytes).decode(errors="replace")
        return text.encode()[-max_bytes:].decode(errors="ignore") if len(text.encode()) > max_bytes else text

    def _output(self, handle: str, most: int) -> bytes:
        deadline = self._deadline()
        try:
            return self._service.end_of_output(handle, most, deadline)
        except Trouble as from_node:
            trouble = from_node
        if self._settings.log_url:
            try:
                return self._logs.end_of(f"{handle}/{recipe.OUTPUT}", most, deadline)
            except Trouble as from_container:
                trouble = Trouble(f"{trouble}; {from_container}")
        return b"" if trouble.status in (404, 409) else f"[its output cannot be read: {trouble}]".encode()

    def check(self) -> tuple[Finding, ...]:
        return tuple(checks.findings(self._service, self._logs, self._settings, self._context))

    def render(self, submission: Submission) -> str:
        text = recipe.rendered(submission, self._settings)
        if not self._settings.create_job:
            return text
        return text + checks.rendered_job(self._settings, self._context)

    def _deadline(self) -> Deadline:
        return Deadline(self._context.call_timeout_s)


def _is_over(trouble: Trouble) -> bool:
    return trouble.gone or trouble.code in _OVER


def create(options: Mapping[str, Any], context: Context) -> AzureBatchBackend:
    return AzureBatchBackend(read(options), context)
