"""One attempt as the stager knows it, and the end of those that are over."""

import contextlib
import re
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from worker.cache.entries import remove_tree
from worker.staging.building import Sums
from worker.staging.lanes import Lanes
from worker.staging.stops import Stop

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
LOOK_S = 0.05


class Attempt:
    """Its tasks go by this object's identity: one that was dropped and asked for anew is another."""

    def __init__(self, job: str, epoch: int) -> None:
        self.job = job
        self.epoch = epoch
        self.label = "%s.%d" % (job, epoch)
        self.stop = Stop()
        self.let_go: List[Callable[[], None]] = []  # of its pins
        self.uses: List[Tuple[str, str]] = []  # scope and key of the entries that its links lead to
        self.folder = ""
        self.phase = ""
        self.done = 0
        self.whole: Optional[int] = None
        self.trouble = ""  # why a part of it waits to be tried again
        self.told: Tuple[Any, ...] = ()  # of its progress
        self.answered = False  # what was asked for last
        self._seen = (-1, 0.0)  # how far it was, and since when it stands there
        self.lock = threading.Lock()

    def begin(self, phase: str) -> Sums:
        """Where the parts of its progress are told."""
        self.phase, self.done, self.whole, self.trouble, self.told, self.answered = phase, 0, None, "", (), False
        return Sums(self._has_done)

    def _has_done(self, done: int) -> None:
        self.done, self.trouble = done, ""

    def stands_for(self, now: float, is_busy: bool) -> float:
        """For how many seconds its transfers, which hold a lane, have not taken a step."""
        if not is_busy or self._seen[0] != self.stop.touched:
            self._seen = (self.stop.touched, now)
        return now - self._seen[1]

    def answer_once(self) -> bool:
        """True for the first who asks: its answer counts."""
        with self.lock:
            first, self.answered = not self.answered, True
            return first


class Undertaker:
    """Ends attempts that are over, when none of their tasks runs any more, in a thread of its own: a removal may take
    long, and a task may hang on a dead file server."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._change = threading.Condition()
        self._dying: List[Attempt] = []
        self._folders: List[str] = []
        threading.Thread(target=self._work, daemon=True).start()

    def take(self, attempt: Attempt) -> None:
        attempt.stop.now()
        self._lanes.forget(attempt)
        with self._change:
            self._dying.append(attempt)
            self._change.notify_all()

    def remove(self, folder: str) -> None:
        with self._change:
            self._folders.append(folder)
            self._change.notify_all()

    def is_done(self, patience_s: float) -> bool:
        """Whether everything is ended, waiting for it so long at the most."""
        with self._change:
            return self._change.wait_for(lambda: not self._dying and not self._folders, patience_s)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._dying or self._folders)
                over = [attempt for attempt in self._dying if not self._lanes.has(attempt)]
                folders = list(self._folders)
            for attempt in over:
                for let_go in attempt.let_go:
                    _quietly(let_go)
            for folder in (*folders, *(attempt.folder for attempt in over if attempt.folder)):
                remove_tree(folder)
            with self._change:
                self._dying = [attempt for attempt in self._dying if attempt not in over]
                self._folders = self._folders[len(folders) :]
                self._change.notify_all()
                waiting = bool(self._dying)
            if waiting and not over and not folders:
                time.sleep(LOOK_S)


def _quietly(act: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        act()


Attempts = Dict[Tuple[str, int], Attempt]
