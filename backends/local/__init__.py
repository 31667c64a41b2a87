"""Workers as processes of this machine, each in a session of its own that outlives the manager.

Before a worker is started its folder says so, and its environment names that folder; so after a kill -9 of the manager
at any point the next one finds the process, by its record or by that variable. ENDED is said only when nothing of it
is left: neither the shell around it, nor its session, nor anything that still carries the variable.
"""

import errno
import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
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
    Seen,
    Submission,
    Unknown,
    WorkerPhase,
)
from backends.local import processes
from backends.local.machine import folder_findings, interpreter_finding, slice_findings, this_machine
from backends.local.processes import Process, Table
from backends.local.records import Ended, Launching, Records, WorkerFolder, is_submission
from backends.local.shell import around

OPTIONS = (
    Option("keep-ended", "duration", 3_600_000, "how long an ended worker stays listed and its log is kept"),
    Option("keep-ended-count", "int", 100, "of how many submissions that are over the logs are kept at most"),
    Option("inherit-environment", "list", (), "further variables of the manager that its workers get"),
)

CAPABILITIES = Capabilities(max_batch=64, idempotent_create=True, shared_machine=True, secrets="file")

MARK = "WM_WORKER_DIR"

# What a worker gets of the manager's environment. Everything else may be a secret of the manager.
INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY", "no_proxy"),
)

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
        self._inherited = (*INHERITED, *options["inherit-environment"])
        self._records = Records(Path(context.state_dir).absolute())
        self._ended: dict[str, Ended] = {}  # final, so never read again
        self._records.create()

    # ------------------------------------------------ launch

    def launch(self, submission: Submission) -> LaunchOutcome:
        """Again for the same id: only what is missing is started."""
        if problem := self._problem(submission):
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
        there = self._launched_before(known) if known else set()
        started = []
        for index in sorted(set(range(submission.count)) - there):
            folder = self._records.worker(submission.id, index)
            started.append(folder)
            try:
                self._start(submission, folder)
            except OSError as failed:
                for begun in started:
                    self._end_all(begun)
                if there:
                    return Unknown(f"only workers {sorted(there)} of {submission.id} were started: {failed}")
                self._records.remove(submission.id)
                return _refused(failed)
        return Accepted({index: submission.worker_id(index) for index in range(submission.count)})

    def _launched_before(self, folders: Sequence[WorkerFolder]) -> set[int]:
        now = processes.table()
        return {
            folder.index
            for folder in folders
            if folder.ended() or folder.exit_status() is not None or self._is_alive(folder, now)
        }

    def _start(self, submission: Submission, folder: WorkerFolder) -> None:
        folder.prepare(submission.join_tokens[folder.index] if submission.join_tokens else None)
        process = processes.spawn(self._argv(submission, folder), self._environment(submission, folder), folder.log)
        if process:
            folder.record(process, processes.boot_id(), self._context.now_ms())

    def _argv(self, submission: Submission, folder: WorkerFolder) -> list[str]:
        command = [submission.filled(word, folder.index) for word in submission.command]
        return around(command, str(folder.path), submission.setup)

    def _environment(self, submission: Submission, folder: WorkerFolder) -> dict[str, str]:
        environment = {name: os.environ[name] for name in self._inherited if name in os.environ}
        return environment | self._own_environment(submission, folder)

    def _own_environment(self, submission: Submission, folder: WorkerFolder) -> dict[str, str]:
        given = {name: submission.filled(value, folder.index) for name, value in submission.environment.items()}
        token = {"WM_JOIN_TOKEN_FILE": str(folder.token)} if submission.join_tokens else {}
        ours = {"WM_WORKER": folder.handle, "WM_MANAGER": submission.manager, MARK: str(folder.path)}
        return given | token | ours

    def _problem(self, submission: Submission) -> str:
        texts = [*submission.command, *submission.setup, *submission.environment.values(), *submission.join_tokens]
        if not is_submission(submission.id):
            return f"{submission.id!r} is not a name: a lowercase DNS label of at most 36 characters"
        if not 1 <= submission.count <= CAPABILITIES.max_batch:
            return f"{submission.count} workers in one submission; 1 to {CAPABILITIES.max_batch} are possible"
        if submission.join_tokens and len(submission.join_tokens) != submission.count:
            return f"{len(submission.join_tokens)} join tokens for {submission.count} workers"
        if bad := [name for name in submission.environment if not name.isidentifier() or not name.isascii()]:
            return f"{bad[0]!r} is not the name of an environment variable"
        if any("\0" in text for text in texts):
            return "a NUL character in command, set-up or environment"
        if not submission.command:
            return "there is no command"
        program = submission.filled(submission.command[0], 0)
        if not submission.setup and not shutil.which(program, path=submission.environment.get("PATH")):
            return f"{program!r} is not a program on this machine"
        return ""

    def _remove_old(self) -> None:
        """Folders of ended workers past their time or number. Only what this process has seen end is looked at."""
        last: dict[str, int] = {}
        for handle, ended in self._ended.items():
            submission = handle.rpartition("-")[0]
            last[submission] = max(last.get(submission, 0), ended.at)
        oldest_first = sorted(last, key=lambda name: last[name])
        too_many = len(oldest_first) - self._keep_count
        before = self._context.now_ms() - self._keep_ms
        old = [name for rank, name in enumerate(oldest_first) if rank < too_many or last[name] < before]
        for name in old[:_REMOVALS]:
            handles = [folder.handle for folder in self._records.workers(name)]
            if all(handle in self._ended for handle in handles):
                self._records.remove(name)
                for handle in handles:
                    self._ended.pop(handle, None)

    # ------------------------------------------------ list

    def list(self) -> Listing:
        try:
            names = self._records.submissions()
        except OSError as failed:
            raise ListFailed(f"{self._records.state_dir} cannot be read: {failed.strerror}") from failed
        look = _Look()
        seen = []
        for name in names:
            if not self._is_ours(name):
                continue
            try:
                folders = self._records.workers(name)
            except OSError as failed:
                raise ListFailed(f"{name} cannot be read: {failed.strerror}") from failed
            seen += [one for folder in folders if (one := self._see(folder, look))]
        return Listing(tuple(seen))

    def _is_ours(self, submission: str) -> bool:
        """The folder is this pool's own; a record that says otherwise is believed, one that is torn is not."""
        owner = self._records.owner(submission)
        mine = (self._context.manager, self._context.pool)
        return (owner.get("manager", mine[0]), owner.get("pool", mine[1])) == mine

    def _see(self, folder: WorkerFolder, look: "_Look") -> Seen | None:
        ended = self._ended.get(folder.handle) or folder.ended()
        if not ended:
            found = folder.process()
            if found and processes.boot_id() == found[1] and processes.alive(found[0]):
                phase = WorkerPhase.ENDING if folder.asked_to_end() else WorkerPhase.RUNNING
                return Seen(folder.submission, folder.index, folder.handle, phase, started_at=found[2])
            shown = self._see_without_shell(folder, found, look)
            if not isinstance(shown, Ended):
                return shown
            ended = shown
        self._ended[folder.handle] = ended
        if ended.at + self._keep_ms < self._context.now_ms():
            return None
        return Seen(
            folder.submission,
            folder.index,
            folder.handle,
            WorkerPhase.ENDED,
            exit_code=ended.exit_code,
            detail=ended.detail,
        )

    def _see_without_shell(
        self, folder: WorkerFolder, found: tuple[Process, str, int] | None, look: "_Look"
    ) -> Seen | Ended | None:
        """The shell around the worker is not there, or not on record. None when it never was."""
        if found and found[1] != processes.boot_id():
            return self._close(folder, None, "the machine was restarted")
        if found and (status := processes.reap(found[0])) is not None:
            folder.note_exit(status)
        status = folder.exit_status()
        if not found and status is None and self._records.is_launching(folder.submission):
            return Seen(folder.submission, folder.index, folder.handle, WorkerPhase.PENDING)
        if left := self._roots(folder, look.table):
            if not found:
                self._adopt(folder, look.table, left)
            over = status is not None or folder.asked_to_end()
            phase = WorkerPhase.ENDING if over else WorkerPhase.RUNNING
            return Seen(folder.submission, folder.index, folder.handle, phase, started_at=found[2] if found else None)
        if not found and status is None:
            return None
        return self._close(folder, status, self._last_words(folder, status))

    def _close(self, folder: WorkerFolder, status: int | None, detail: str) -> Ended:
        ended = Ended(self._context.now_ms(), status, detail)
        folder.close(ended)
        return ended

    @staticmethod
    def _last_words(folder: WorkerFolder, status: int | None) -> str:
        if status is None:
            return "ended without leaving an exit status"
        lines = folder.tail(2000).split("\n") if status else []
        spoken = ["".join(c for c in line if c.isprintable()).strip() for line in lines]
        return next((line[:300] for line in reversed(spoken) if line), "")

    def _adopt(self, folder: WorkerFolder, table: Table, pids: set[int]) -> None:
        """Write down what the manager that started it could not."""
        for pid in pids:
            if table[pid].session == pid:
                folder.record(table[pid].process, processes.boot_id(), self._context.now_ms())

    def _is_alive(self, folder: WorkerFolder, table: Table) -> bool:
        found = folder.process()
        if found and found[1] == processes.boot_id() and processes.alive(found[0]):
            return True
        left = self._roots(folder, table)
        if left and not found:
            self._adopt(folder, table, left)
        return bool(left)

    def _roots(self, folder: WorkerFolder, table: Table) -> set[int]:
        """Whatever of this worker is alive."""
        found = folder.process()
        session = processes.in_session(table, found[0].pid) if found and found[1] == processes.boot_id() else set()
        recycled = found and (leader := table.get(found[0].pid)) and leader.start != found[0].start
        return (set() if recycled else session) | processes.marked(table, MARK, str(folder.path))

    # ------------------------------------------------ terminate

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        folder = self._records.find(handle)
        if folder is None:
            return Refused(RefusalKind.CONFIG, f"{handle!r} is no worker of this backend")
        if handle in self._ended or not folder.path.is_dir() or folder.ended():
            return Accepted()
        if not folder.process() and self._records.is_launching(folder.submission):
            return Unknown(f"another process launches {folder.submission} at this moment")
        try:
            folder.ask_to_end()
            if force:
                self._end_all(folder)
            else:
                self._ask(folder)
        except OSError as failed:
            return Unknown(str(failed))
        return Accepted()

    def _end_all(self, folder: WorkerFolder) -> None:
        processes.end_all(lambda table: self._roots(folder, table))

    def _ask(self, folder: WorkerFolder) -> None:
        """TERM to the shell, which passes it on to the worker alone; where the shell is gone, to its session."""
        found = folder.process()
        if found and processes.alive(found[0]):
            processes.send(found[0], signal.SIGTERM)
            return
        table = processes.table()
        for pid in self._roots(folder, table):
            processes.send(table[pid].process, signal.SIGTERM)

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
        return "\n".join(self._rendered(submission, index) for index in range(submission.count))

    def _rendered(self, submission: Submission, index: int) -> str:
        folder = self._records.worker(submission.id, index)
        environment = self._own_environment(submission, folder)
        lines = [f"# {folder.handle}, in {folder.path}, in a session of its own"]
        lines += [f"# {folder.token}, mode 0600: ***"] if submission.join_tokens else []
        lines += [f"# as here: {' '.join(name for name in self._inherited if name in os.environ)}"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        lines += submission.setup
        lines += [shlex.join(submission.filled(word, index) for word in submission.command)]
        return "\n".join(lines) + "\n"


class _Look:
    """One look at all processes, taken when the first worker needs it and shared by the others."""

    def __init__(self) -> None:
        self._table: Table | None = None

    @property
    def table(self) -> Table:
        if self._table is None:
            self._table = processes.table()
        return self._table


def _refused(failed: OSError) -> Refused:
    return Refused(_REFUSALS.get(failed.errno or 0, RefusalKind.CONFIG), str(failed)[:2000])


def create(options: Mapping[str, Any], context: Context) -> LocalBackend:
    try:
        return LocalBackend(options, context)
    except OSError as failed:
        raise BackendUnusable(f"the state folder {context.state_dir} cannot be made: {failed.strerror}") from failed
