"""The keeper's roster: which attempts it has, and which process is whose.

A child that is no main process is a stray. It is known by its session, else by the environment it was started with.
"""

from __future__ import annotations

from worker import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.hooks.run import Run
    from worker.keeper.attempt import Attempt
    from worker.keeper.slots import Remover


class Roster:
    def __init__(self, remover: Remover) -> None:
        self.attempts: dict[tuple[str, int], Attempt] = {}  # all that are not over
        self.by_pid: dict[int, Attempt] = {}  # main processes, and sessions: running or swept
        self.running: dict[int, Attempt] = {}
        self.cleaners: dict[int, Attempt] = {}  # ours, at work for an attempt that is over when they are
        self.hooks: dict[int, Run] = {}  # ours too, see `hooks.run`
        self.strays: dict[int, Attempt] = {}  # those of which we found out whose they are
        self.children = processes.Children()
        self._remover = remover

    def others(self) -> list[int]:
        """Children that are neither a running main process nor ours."""
        own = (self._remover.pid,)
        ours = {*own, *self.cleaners, *self.hooks} if self.cleaners or self.hooks else own
        return [pid for pid in self.children.now() if pid not in self.running and pid not in ours]

    def whose(self, pid: int) -> Attempt | None:
        """The attempt a stray comes from: by its session, else by the environment it was started with."""
        attempt = self.strays.get(pid)
        if attempt is None:
            session, _ = processes.session_and_start(pid)
            attempt = self.by_pid.get(session)
            if attempt is None:
                job, _, epoch = processes.variable(pid, "WM_ATTEMPT").rpartition(".")
                attempt = self.attempts.get((job, int(epoch))) if epoch.isdigit() else None
            if attempt is not None:
                self.strays[pid] = attempt
        return attempt

    def signal(self, attempt: Attempt, number: int) -> None:
        """Its session, and every stray of it."""
        processes.send(-attempt.pid, number)
        for pid in self.others():
            if self.whose(pid) is attempt:
                processes.send(pid, number)

    def has_ended(self, pid: int, status: int) -> None:
        """A child that was no main process is gone: its number may come again."""
        if pid in self.hooks:
            self.hooks.pop(pid).status = status
        self.strays.pop(pid, None)
        self.cleaners.pop(pid, None)
        if pid == self._remover.pid:
            self._remover.pid = 0
