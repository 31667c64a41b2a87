"""Workers as processes of this machine, each in a session of its own that outlives the manager.

Before a worker is started its folder says so, and its environment names that folder; so after a kill -9 of the manager
at any point the next one finds the process, by its record or by that variable. ENDED is said only when nothing of it
is left: neither the shell around it, nor its session, nor anything that still carries the variable.
"""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.base import (
    Accepted,
    BackendUnusable,
    Capabilities,
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    ListFailed,
    Listing,
    Option,
    RefusalKind,
    Refused,
    Submission,
    Unknown,
)
from backends.local import processes, recipe
from backends.local.machine import folder_findings, interpreter_finding, slice_findings, this_machine
from backends.local.records import Launching, Records, WorkerFolder
from backends.local.watch import Watch

OPTIONS = (
    Option("keep-ended", "duration", 3_600_000, "how long an ended worker stays listed and its log is kept"),
    Option("keep-ended-count", "int", 100, "of how many submissions that are over the logs are kept at most"),
    Option("inherit-environment", "list", (), "further variables of the manager that its workers get"),
)

CAPABILITIES = Capabilities(max_batch=64, idempotent_create=True, shared_machine=True, secrets="file")

_REMOVALS = 8  # old folders in one launch, so that it stays quick
_REFUSALS = {
    errno.EAGAIN: RefusalKind.CAPACITY,
    errno.ENOMEM: RefusalKind.CAPACITY,
    errno.EMFILE: RefusalKind.CAPACITY,
    errno.ENFILE: RefusalKind.CAPACITY,
    errno.ENOSPC: RefusalKind.CAPACITY,
    errno.EDQUOT: RefusalKind.QUOTA,
    errno.EACCES: RefusalKind.AUTH,
    errno.EPERM: RefusalKind.AUTH,
}


class LocalBackend:
    def __init__(self, options: Mapping[str, Any], context: Context) -> None:
        self._context = context
        self._keep_ms: int = options["keep-ended"]
        self._keep_count: int = options["keep-ended-count"]
        self._inherited = (*recipe.INHERITED, *options["inherit-environment"])
        self._records = Records(Path(context.state_dir).absolute())
        self._watch = Watch(self._records, context.now_ms, self._keep_ms)
        self._records.create()

    # ------------------------------------------------ launch

    def launch(self, submission: Submission) -> LaunchOutcome:
        """Again for the same id: only what is missing is started."""
        if problem := recipe.problem(submission, CAPABILITIES.max_batch):
            return Refused(RefusalKind.CONFIG, problem)
        try:
            owner = {"manager": submission.manager, "pool": submission.pool, "count": submission.count}
            self._records.begin(submission.id, owner)
            with self._records.launching(submission.id):
                outcome = self._start_all(submission)
        except Launching:
            return Unknown(f"another process launches {submission.id} at this moment")
        except OSError as failed:
            return _refused(failed)
        self._remove_old()
        return outcome

    def _start_all(self, submission: Submission) -> LaunchOutcome:
        """All or none: when one cannot be started, those started before it are ended."""
        known = self._records.workers(submission.id)
        there = self._watch.launched(known) if known else set()
        started = []
        for index in sorted(set(range(submission.count)) - there):
            folder = self._records.worker(submission.id, index)
            started.append(folder)
            try:
                self._start(submission, folder)
            except OSError as failed:
                for begun in started:
                    self._watch.end_all(begun)
                if there:
                    return Unknown(f"only workers {sorted(there)} of {submission.id} were started: {failed}")
                self._records.remove(submission.id)
                return _refused(failed)
        return Accepted({index: submission.worker_id(index) for index in range(submission.count)})

    def _start(self, submission: Submission, folder: WorkerFolder) -> None:
        folder.prepare(submission.join_tokens[folder.index] if submission.join_tokens else None)
        process = processes.spawn(
            recipe.argv(submission, folder), recipe.environment(submission, folder, self._inherited), folder.log
        )
        if process:
            folder.record(process, processes.boot_id(), self._context.now_ms())

    def _remove_old(self) -> None:
        """Folders of submissions that are over, past their time or number. Only what was seen to end is touched."""
        ended = self._watch.ended
        last: dict[str, int] = {}
        for handle, end in ended.items():
            submission = handle.rpartition("-")[0]
            last[submission] = max(last.get(submission, 0), end.at)
        oldest_first = sorted(last, key=lambda name: last[name])
        too_many = len(oldest_first) - self._keep_count
        before = self._context.now_ms() - self._keep_ms
        old = [name for rank, name in enumerate(oldest_first) if rank < too_many or last[name] < before]
        for name in old[:_REMOVALS]:
            handles = [folder.handle for folder in self._records.workers(name)]
            if all(handle in ended for handle in handles):
                self._records.remove(name)
                for handle in handles:
                    del ended[handle]

    # ------------------------------------------------ list

    def list(self) -> Listing:
        try:
            names = self._records.submissions()
        except OSError as failed:
            raise ListFailed(f"{self._records.state_dir} cannot be read: {failed.strerror}") from failed
        table = self._watch.lazy_table()
        seen = []
        for name in names:
            if not self._is_ours(name):
                continue
            try:
                folders = self._records.workers(name)
            except OSError as failed:
                raise ListFailed(f"{name} cannot be read: {failed.strerror}") from failed
            seen += [one for folder in folders if (one := self._watch.see(folder, table))]
        return Listing(tuple(seen))

    def _is_ours(self, submission: str) -> bool:
        """The folder is this pool's own; a record that says otherwise is believed, one that is torn is not."""
        owner = self._records.owner(submission)
        mine = (self._context.manager, self._context.pool)
        return (owner.get("manager", mine[0]), owner.get("pool", mine[1])) == mine

    # ------------------------------------------------ terminate

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        folder = self._records.find(handle)
        if folder is None:
            return Refused(RefusalKind.CONFIG, f"{handle!r} is no worker of this backend")
        if handle in self._watch.ended or not folder.path.is_dir() or folder.ended():
            return Accepted()
        if not folder.process() and self._records.is_launching(folder.submission):
            return Unknown(f"another process launches {folder.submission} at this moment")
        try:
            if force:
                self._watch.end_all(folder)
            elif not folder.asked_to_end():  # a second TERM would mean: drop everything now
                self._watch.ask_to_end(folder)
            folder.note_asked()
        except OSError as failed:
            return Unknown(str(failed))
        return Accepted()

    # ------------------------------------------------ for people

    def logs(self, handle: str, max_bytes: int) -> str:
        folder = self._records.find(handle)
        return folder.tail(max_bytes) if folder and max_bytes > 0 else ""

    def check(self) -> tuple[Finding, ...]:
        return (
            *folder_findings(self._records.state_dir),
            interpreter_finding(self._context.call_timeout_s),
            *slice_findings(self._context.shape, self._context.max_workers, this_machine()),
        )

    def render(self, submission: Submission) -> str:
        folders = (self._records.worker(submission.id, index) for index in range(submission.count))
        return "\n".join(recipe.rendered(submission, folder, self._inherited) for folder in folders)


def _refused(failed: OSError) -> Refused:
    return Refused(_REFUSALS.get(failed.errno or 0, RefusalKind.CONFIG), str(failed)[:2000])


def create(options: Mapping[str, Any], context: Context) -> LocalBackend:
    try:
        return LocalBackend(options, context)
    except OSError as failed:
        raise BackendUnusable(f"the state folder {context.state_dir} cannot be made: {failed.strerror}") from failed
