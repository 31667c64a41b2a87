"""The hooks of jobs, in the keeper: processes that it starts and reaps like any other, with a deadline for each.

What the one before a job leaves behind belongs to the job and goes with it. Their output is read as it comes, and the
end of it is told.
"""

from __future__ import annotations

import os
import select
import signal

from worker import processes
from worker.hooks.run import Run
from worker.hooks.told import AFTER, BEFORE, OUTPUT_END, env_of_job, last_line, shell, trouble
from worker.keeper.attempt import STARTING
from worker.processes import boot_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

    from worker.hooks.run import Then
    from worker.keeper.attempt import Attempt, Ending
    from worker.keeper.news import News
    from worker.keeper.roster import Roster

CHUNK = 64 * 1024
AFTER_LEAST_MS = 5000  # the one after a job has so long at least, whatever is in a hurry


class Around:
    """The hooks that run now, by the keeper's word."""

    def __init__(
        self, told: Mapping[str, Any], work_dir: str, epoll: select.epoll, roster: Roster, news: News, nothing: int
    ) -> None:
        """`told`: see `Hooks.for_keeper`."""
        self.before: str = told["before"]
        self.after: str = told["after"]
        self._limit_ms: int = told["limit_ms"]
        self._env = told["env"]
        self._folder = self._env.get("WM_WORK_DIR") or work_dir
        self._epoll = epoll
        self._roster = roster
        self._news = news
        self._nothing = nothing
        self._runs: dict[Attempt, Run] = {}
        self._by_pipe: dict[int, Run] = {}

    # ------------------------------------------------------------ beginning

    def begin(self, attempt: Attempt, hook: str, then: Then) -> None:
        """`then` is called once, by `finish`. Raises OSError when it cannot even begin."""
        run = Run(attempt, hook, then, self._limit_ms)
        line = self.before if hook == BEFORE else self.after
        run.pipe, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            os.chdir(self._folder)
            run.pid = processes.spawn(shell(line), env_of_job(self._env, attempt, hook), self._nothing, theirs)
        except BaseException:
            os.close(run.pipe)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(run.pipe, False)
        self._epoll.register(run.pipe, select.EPOLLIN)
        self._runs[attempt] = self._by_pipe[run.pipe] = run
        self._roster.hooks[run.pid] = run
        if hook == BEFORE:
            attempt.state = STARTING

    # ------------------------------------------------------------ while they run

    def has(self, attempt: Attempt) -> bool:
        return attempt in self._runs

    def hurry(self, attempt: Attempt, ending: Ending, grace_ms: int) -> None:
        """The attempt is to end: what comes before it is told to stop; what comes after it may go on for a while."""
        run = self._runs[attempt]
        patience = grace_ms if run.hook == BEFORE else max(grace_ms, AFTER_LEAST_MS)
        run.due = min(run.due, boot_ms() + patience)
        if run.hook == BEFORE and attempt.ending is None:
            attempt.ending = ending
            processes.send(-run.pid, signal.SIGTERM)

    def waits(self, now: int) -> list[int]:
        return [run.due - now for run in self._runs.values() if not run.late]

    def read(self, fd: int) -> bool:
        """False: it is no pipe of a hook."""
        run = self._by_pipe.get(fd)
        if run is None:
            return False
        self._read(run)
        return True

    def _read(self, run: Run) -> None:
        try:
            data = os.read(run.pipe, CHUNK)
        except BlockingIOError:
            return
        run.output = (run.output + data)[-OUTPUT_END:]
        if not data:
            self._close(run)

    def _close(self, run: Run) -> None:
        if run.pipe >= 0:
            del self._by_pipe[run.pipe]
            self._epoll.unregister(run.pipe)
            os.close(run.pipe)
            run.pipe = -1

    # ------------------------------------------------------------ ending

    def keep_time(self, now: int) -> None:
        for run in self._runs.values():
            if run.status is None and not run.late and run.due <= now:
                run.late = True
                processes.send(-run.pid, signal.SIGKILL)

    def finish(self) -> None:
        """Go on with the attempts whose hook has ended."""
        for run in [run for run in self._runs.values() if run.status is not None]:
            del self._runs[run.attempt]
            if run.pipe >= 0:
                self._read(run)  # what it wrote last; of what it left behind nobody waits for more
            self._close(run)
            assert run.status is not None  # noqa: S101 (for the type checker)
            wrong = trouble(run.status, run.due - run.began if run.late else 0)
            took_ms = boot_ms() - run.began
            if wrong or run.output:
                text = run.output.decode("utf-8", "replace").strip()
                self._news.hook(run.attempt, (run.hook, wrong, took_ms, text))
            said = last_line(run.output)
            run.then(run.attempt, "%s: %s" % (wrong, said) if wrong and said else wrong)


__all__ = ["AFTER", "BEFORE", "Around"]
