"""What has become of a worker: its record and the process table, compared.

shell around it | left of its session, or marked | shown as
alive           |                                | running, or ending when it was asked to
gone            | something                      | ending; running when the shell was killed and nobody asked
gone            | nothing                        | ended, and so written down
not on record   | something                      | the same, and the record is made good
not on record   | nothing                        | pending while the launch goes on, else it never was
"""

import signal
from collections.abc import Callable, Sequence
from functools import cache

from backends.base import Seen, WorkerPhase
from backends.local import processes
from backends.local.processes import Process, Table
from backends.local.recipe import MARK
from backends.local.records import Ended, Records, WorkerFolder

Recorded = tuple[Process, str, int]


class Watch:
    def __init__(self, records: Records, now_ms: Callable[[], int], keep_ended_ms: int) -> None:
        self._records = records
        self._now_ms = now_ms
        self._keep_ended_ms = keep_ended_ms
        self._reaped: dict[str, int] = {}
        self.ended: dict[str, Ended] = {}  # by handle; final, so never read again

    @staticmethod
    def lazy_table() -> Callable[[], Table]:
        """One look at all processes: taken when the first worker needs it, shared by the others."""
        return cache(processes.table)

    def see(self, folder: WorkerFolder, table: Callable[[], Table]) -> Seen | None:
        """None when it never was started, or has been over for so long that it is shown no more."""
        ended = self.ended.get(folder.handle) or folder.ended()
        if ended:
            return self._show_ended(folder, ended)
        recorded = folder.process()
        if recorded and _lives(recorded):
            return _show(folder, WorkerPhase.ENDING if folder.asked_to_end() else WorkerPhase.RUNNING, recorded)
        if recorded and recorded[1] != processes.boot_id():
            return self._close(folder, None, "the machine was restarted")
        return self._see_without_shell(folder, recorded, table)

    def _see_without_shell(
        self, folder: WorkerFolder, recorded: Recorded | None, table: Callable[[], Table]
    ) -> Seen | None:
        if recorded and (code := processes.reap(recorded[0])) is not None:
            self._reaped[folder.handle] = code
        status = folder.exit_status()
        if not recorded and status is None and self._records.is_launching(folder.submission):
            return _show(folder, WorkerPhase.PENDING, None)
        if left := roots(folder, table()):
            recorded = recorded or self._adopt(folder, table(), left)
            over = status is not None or folder.asked_to_end()
            return _show(folder, WorkerPhase.ENDING if over else WorkerPhase.RUNNING, recorded)
        if not recorded and status is None:
            return None
        if status is None:  # the shell was killed; its own end is all that is known, and only by its parent
            status = self._reaped.pop(folder.handle, None)
        return self._close(folder, status, _last_words(folder, status))

    def launched(self, folders: Sequence[WorkerFolder]) -> set[int]:
        """Indexes of those that were started once, whatever has become of them."""
        now = processes.table()
        return {
            folder.index
            for folder in folders
            if folder.ended() or folder.exit_status() is not None or folder.process() or self._adopted(folder, now)
        }

    def end_all(self, folder: WorkerFolder) -> None:
        """KILL everything of this worker."""
        processes.end_all(lambda table: roots(folder, table))

    def ask_to_end(self, folder: WorkerFolder) -> None:
        """TERM to the shell, which passes it on to the worker alone; where the shell is gone, to all that is left."""
        recorded = folder.process()
        if recorded and _lives(recorded):
            processes.send(recorded[0], signal.SIGTERM)
            return
        now = processes.table()
        for pid in roots(folder, now):
            processes.send(now[pid].process, signal.SIGTERM)

    def _adopted(self, folder: WorkerFolder, table: Table) -> bool:
        left = roots(folder, table)
        self._adopt(folder, table, left)
        return bool(left)

    def _adopt(self, folder: WorkerFolder, table: Table, pids: set[int]) -> Recorded | None:
        """Write down what the manager that started it could not: the shell leads the session."""
        for pid in sorted(pids):
            if table[pid].session == pid:
                recorded = (table[pid].process, processes.boot_id(), self._now_ms())
                folder.record(*recorded)
                return recorded
        return None

    def _close(self, folder: WorkerFolder, status: int | None, detail: str) -> Seen | None:
        ended = Ended(self._now_ms(), status, detail)
        folder.close(ended)
        return self._show_ended(folder, ended)

    def _show_ended(self, folder: WorkerFolder, ended: Ended) -> Seen | None:
        self.ended[folder.handle] = ended
        if ended.at + self._keep_ended_ms < self._now_ms():
            return None
        return Seen(
            folder.submission,
            folder.index,
            folder.handle,
            WorkerPhase.ENDED,
            exit_code=ended.exit_code,
            detail=ended.detail,
        )


def roots(folder: WorkerFolder, table: Table) -> set[int]:
    """Whatever of this worker is alive: its session, and what carries its mark."""
    found = processes.marked(table, MARK, str(folder.path))
    recorded = folder.process()
    if recorded and recorded[1] == processes.boot_id():
        leader = table.get(recorded[0].pid)
        if leader is None or leader.process == recorded[0]:  # else the number belongs to somebody else by now
            found |= processes.in_session(table, recorded[0].pid)
    return found


def _lives(recorded: Recorded) -> bool:
    return recorded[1] == processes.boot_id() and processes.alive(recorded[0])


def _show(folder: WorkerFolder, phase: WorkerPhase, recorded: Recorded | None) -> Seen:
    started_at = recorded[2] if recorded else None
    return Seen(folder.submission, folder.index, folder.handle, phase, started_at=started_at)


def _last_words(folder: WorkerFolder, status: int | None) -> str:
    """The last line that a failed worker wrote, for people."""
    if status is None:
        return "ended without leaving an exit status"
    lines = folder.tail(2000).split("\n") if status else []
    spoken = ["".join(c for c in line if c.isprintable()).strip() for line in lines]
    return next((line[:300] for line in reversed(spoken) if line), "")
