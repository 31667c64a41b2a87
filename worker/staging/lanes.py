"""Whose transfer is next: as many at a time as were allowed, fairly between attempts, a few of each.

A task runs in a thread of its own and holds a lane. While it only waits (for what another worker builds, for a source
to come back) it `rests`, and its lane is another's.
"""

import contextlib
import threading
from collections import deque
from typing import Callable, Deque, Dict, Hashable, Iterator

Task = Callable[[], None]  # raises nothing
STACK = 512 * 1024
THREADS = 32  # also resting ones
RESTING = 4  # times as many tasks of one attempt as it may have lanes: it must not take all threads


class Lanes:
    def __init__(self, parallel: int, each: int, threads: int = THREADS) -> None:
        self._parallel = max(1, parallel)
        self._each = max(1, each)
        self._threads = max(threads, self._parallel)
        self._change = threading.Condition()
        self._queues: "Dict[Hashable, Deque[Task]]" = {}  # in the order in which they are served
        self._busy: Dict[Hashable, int] = {}  # lanes that each holds
        self._running: Dict[Hashable, int] = {}  # tasks of each, resting ones too
        self._started = self._free = 0
        threading.stack_size(STACK)

    def put(self, whose: Hashable, task: Task) -> None:
        with self._change:
            self._queues.setdefault(whose, deque()).append(task)
            self._begin_another()
            self._change.notify_all()

    def forget(self, whose: Hashable) -> None:
        """What has not begun never does."""
        with self._change:
            self._queues.pop(whose, None)
            self._change.notify_all()

    def has(self, whose: Hashable) -> bool:
        """Whether something of it is to be done or being done."""
        with self._change:
            return whose in self._queues or whose in self._running

    def is_busy(self, whose: Hashable) -> bool:
        """Whether it holds a lane."""
        with self._change:
            return whose in self._busy

    def wait_for(self, whose: Hashable) -> None:
        """Until nothing of it is being done."""
        with self._change:
            self._change.wait_for(lambda: whose not in self._queues and whose not in self._running)

    @contextlib.contextmanager
    def rest(self, whose: Hashable) -> Iterator[None]:
        """For the task that calls it. Coming back it waits for a lane."""
        self._leave(whose)
        try:
            yield
        finally:
            with self._change:
                self._change.wait_for(lambda: self._may(whose))
                self._busy[whose] = self._busy.get(whose, 0) + 1

    # ------------------------------------------------------------

    def _begin_another(self) -> None:
        """A thread, unless one is free or there are as many as there may be."""
        if not self._free and self._started < self._threads:
            self._started += 1
            self._free += 1
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._next() is not None)
                whose = self._next()
                self._free -= 1
                task = self._taken(whose)
                if self._queues:
                    self._begin_another()
            try:
                task()
            finally:
                del task
                with self._change:
                    self._count(self._running, whose, -1)
                    self._free += 1
                self._leave(whose)

    def _next(self) -> Hashable:
        """The attempt whose turn it is; None when no lane is free for any."""
        if sum(self._busy.values()) >= self._parallel:
            return None
        for whose in self._queues:
            if self._busy.get(whose, 0) < self._each and self._running.get(whose, 0) < self._each * RESTING:
                return whose
        return None

    def _taken(self, whose: Hashable) -> Task:
        """Its first task. It is the last one then, whose turn it is."""
        queue = self._queues.pop(whose)
        task = queue.popleft()
        if queue:
            self._queues[whose] = queue
        self._count(self._busy, whose, 1)
        self._count(self._running, whose, 1)
        return task

    def _may(self, whose: Hashable) -> bool:
        return sum(self._busy.values()) < self._parallel and self._busy.get(whose, 0) < self._each

    def _leave(self, whose: Hashable) -> None:
        with self._change:
            self._count(self._busy, whose, -1)
            self._change.notify_all()

    @staticmethod
    def _count(counts: Dict[Hashable, int], whose: Hashable, by: int) -> None:
        counts[whose] = counts.get(whose, 0) + by
        if not counts[whose]:
            del counts[whose]
