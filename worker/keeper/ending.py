"""Ending attempts: TERM, grace, KILL; reaping; the sweep for what an attempt left behind; and the end of everything."""

from __future__ import annotations

import os
import signal
import time

from worker import processes
from worker.keeper.attempt import RUNNING, STARTING, SWEPT, Ending
from worker.processes import boot_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from worker.keeper.attempt import Attempt
    from worker.keeper.roster import Roster

SWEEP_MS = 20  # between two looks for what an attempt left behind
SWEEP_PATIENCE_MS = 10_000  # a process in an uninterruptible wait must not keep a result for ever
LAST_SWEEP_MS = 30_000


class Ender:
    def __init__(self, roster: Roster, unwrap: Callable[[Attempt], None]) -> None:
        """`unwrap` is called when the main process of an attempt with a `way` was reaped."""
        self._roster = roster
        self._unwrap = unwrap
        self.due: dict[Attempt, int] = {}  # running → when it is told to end, or killed when it was told already
        self._hand_back: tuple[int, Ending] | None = None  # by when those that save what they have done are over
        self.handed: dict[Attempt, int] = {}  # those → when they are told
        self.swept: list[Attempt] = []
        self._doubtful = False  # there is a child of which we do not know whose it is
        self.wake = wake_on_child()

    # ------------------------------------------------------------ TERM, grace, KILL

    def limit(self, attempt: Attempt) -> None:
        """It has started: its time counts."""
        if attempt.time_limit_ms is not None:
            self.due[attempt] = attempt.started_at + attempt.time_limit_ms
        if attempt.checkpoint is not None and self._hand_back is not None:
            self.handed[attempt] = self._hand_back[0] - attempt.checkpoint[1]

    def hand_back_by(self, when: int | None, ending: Ending) -> None:
        self._hand_back = None if when is None else (when, ending)
        self.handed.clear()
        if when is not None:
            for attempt in self._roster.running.values():
                if attempt.checkpoint is not None and attempt.ending is None:
                    self.handed[attempt] = when - attempt.checkpoint[1]

    def tell(self, attempt: Attempt, ending: Ending, grace_ms: int | None) -> None:
        """Ask it to end, and kill it when the grace is over (None: its own). Again: the shorter grace counts."""
        if attempt.state != RUNNING:
            return
        kill_at = boot_ms() + (attempt.grace_ms if grace_ms is None else grace_ms)
        if attempt.ending is None:
            attempt.ending = ending
            self.due[attempt] = kill_at
            self._roster.signal(attempt, _first_signal(attempt, ending))
            self._roster.signal(attempt, signal.SIGCONT)  # a stopped process would not see it
        elif attempt in self.due:
            self.due[attempt] = min(self.due[attempt], kill_at)

    def keep_time(self, now: int) -> None:
        if self.handed:
            self._hand_back_in_time(now)
        for attempt in [attempt for attempt, when in self.due.items() if when <= now]:
            del self.due[attempt]
            if attempt.ending is None:
                self.tell(attempt, Ending("failed", "time-limit", ""), None)
            else:
                self._roster.signal(attempt, signal.SIGKILL)

    def _hand_back_in_time(self, now: int) -> None:
        for attempt in [attempt for attempt, when in self.handed.items() if when <= now]:
            del self.handed[attempt]
            if self._hand_back is not None and attempt.checkpoint is not None and attempt.ending is None:
                self.tell(attempt, self._hand_back[1], max(0, self._hand_back[0] - now))

    # ------------------------------------------------------------ reaping

    def reap(self) -> None:
        """When `wake` is readable: take leave of every child that has ended."""
        os.read(self.wake, 4096)
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._reap_one(ended.si_pid)

    def _reap_one(self, pid: int) -> None:
        attempt = self._roster.running.pop(pid, None)
        if attempt is None:
            self._roster.has_ended(pid, os.waitpid(pid, 0)[1])
            return
        # While it is a zombie nobody else can have its number, so this reaches its own group and nothing else.
        processes.send(-pid, signal.SIGKILL)
        _, attempt.status, usage = os.wait4(pid, 0)
        now = boot_ms()
        attempt.run_ms = now - attempt.started_at
        attempt.cpu_ms = int((usage.ru_utime + usage.ru_stime) * 1000)
        attempt.max_rss = usage.ru_maxrss * 1024
        attempt.state = SWEPT
        self.due.pop(attempt, None)
        if self.handed:
            self.handed.pop(attempt, None)
        attempt.swept_since = now
        self.swept.append(attempt)
        if attempt.way is not None:
            self._unwrap(attempt)

    # ------------------------------------------------------------ the sweep

    def sweep(self, now: int) -> list[tuple[Attempt, bool]]:
        """Kill what ended attempts left behind. Returns those that are over, because nothing of them is left (True), or
        something is that will not go or is in doubt (False)."""
        holding = set(self._roster.cleaners.values())
        self._doubtful = False
        for pid in self._roster.others():
            attempt = self._roster.whose(pid)
            if attempt is None:
                holding |= self._kill_if_nobodys(pid)
            elif attempt.state not in (RUNNING, STARTING):
                processes.send(pid, signal.SIGKILL)
                holding.add(attempt)
        over, still_swept = [], []
        for attempt in self.swept:
            if attempt not in holding:
                over.append((attempt, not self._doubtful))
            elif now - attempt.swept_since > SWEEP_PATIENCE_MS:
                over.append((attempt, False))
            else:
                still_swept.append(attempt)
        self.swept = still_swept
        return over

    def _kill_if_nobodys(self, pid: int) -> set[Attempt]:
        """A stray without session or environment of ours: it goes when everyone who can have started it is gone.
        Returns the ended attempts that wait for it."""
        _, began = processes.session_and_start(pid)
        tick = 1000 // processes.TICKS_PER_SECOND
        if any(attempt.started_at <= began + tick for attempt in self._roster.running.values()):
            self._doubtful = True
            return set()
        processes.send(pid, signal.SIGKILL)
        return {attempt for attempt in self.swept if attempt.started_at <= began + tick}

    # ------------------------------------------------------------ the end

    def end_everything(self) -> None:
        """Kill until no child is left. What is deeper becomes our child when its parent dies."""
        until = boot_ms() + LAST_SWEEP_MS
        for pid in self._roster.running:
            processes.send(-pid, signal.SIGKILL)
        while boot_ms() < until:
            for pid in self._roster.children.now():
                processes.send(pid, signal.SIGKILL)
            if processes.reap_all():
                return
            time.sleep(SWEEP_MS / 4000)


def _first_signal(attempt: Attempt, ending: Ending) -> int:
    """One that saves what it has done is asked to in its own way, when it is to go on elsewhere."""
    if attempt.checkpoint is not None and ending.outcome == "returned":
        return attempt.checkpoint[0]
    return signal.SIGTERM


def wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler there is nothing to wake for
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return readable
