"""Requests that wait: one future for each, woken by topic, and one timer for all.

A topic is any hashable name: ("worker", id), "backlog", ("job", id), "events". Deadlines are rounded up to a grain,
so that thousands of waiters that came together share one timer. Everything here belongs to the event loop's thread;
`wake_soon` alone may be called from another.
"""

import asyncio
from collections.abc import Hashable, Iterable

GRAIN_S = 0.1


class Waiters:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_topic: dict[Hashable, dict[asyncio.Future[bool], None]] = {}  # in order of arrival
        self._by_deadline: dict[int, set[asyncio.Future[bool]]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self.closed = False

    def __len__(self) -> int:
        return sum(len(due) for due in self._by_deadline.values())

    def waiting(self, topic: Hashable) -> int:
        return len(self._by_topic.get(topic, ()))

    def listen(self, topics: Iterable[Hashable], seconds: float) -> "Waiter":
        """To be used with `with`, *before* looking whether there is something already: no wake between is lost."""
        return Waiter(self, tuple(topics), seconds)

    def wake(self, topic: Hashable, at_most: int | None = None) -> int:
        """Wakes the waiters of a topic, the longest-waiting first; returns how many."""
        woken = 0
        for future in list(self._by_topic.get(topic, ())):
            if at_most is not None and woken >= at_most:
                break
            if not future.done():
                future.set_result(True)
                woken += 1
        return woken

    def wake_soon(self, topic: Hashable) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self.wake, topic)

    def close(self) -> None:
        """Answers everyone at once, and nobody waits after that: the hub stops."""
        self.closed = True
        for topic in list(self._by_topic):
            self.wake(topic)

    def _add(self, topics: tuple[Hashable, ...], seconds: float) -> tuple[asyncio.Future[bool], int]:
        future: asyncio.Future[bool] = self._loop.create_future()
        for topic in topics:
            self._by_topic.setdefault(topic, {})[future] = None
        grain = int((self._loop.time() + seconds) / GRAIN_S) + 1
        self._by_deadline.setdefault(grain, set()).add(future)
        if grain not in self._timers:
            self._timers[grain] = self._loop.call_at(grain * GRAIN_S, self._expire, grain)
        if self.closed or seconds <= 0:
            future.set_result(False)
        return future, grain

    def _remove(self, future: asyncio.Future[bool], topics: tuple[Hashable, ...], grain: int) -> None:
        for topic in topics:
            waiting = self._by_topic.get(topic)
            if waiting is not None:
                waiting.pop(future, None)
                if not waiting:
                    del self._by_topic[topic]
        due = self._by_deadline.get(grain)
        if due is not None:
            due.discard(future)
            if not due:
                del self._by_deadline[grain]
                self._timers.pop(grain).cancel()

    def _expire(self, grain: int) -> None:
        for future in list(self._by_deadline.get(grain, ())):
            if not future.done():
                future.set_result(False)


class Waiter:
    """One request's place in the queue. `woken()` waits until a topic of its wakes it (True) or its time is over
    (False); after a True it may look, and wait again."""

    __slots__ = ("_future", "_grain", "_seconds", "_topics", "_until", "_waiters")

    def __init__(self, waiters: Waiters, topics: tuple[Hashable, ...], seconds: float) -> None:
        self._waiters = waiters
        self._topics = topics
        self._seconds = seconds

    def __enter__(self) -> "Waiter":
        self._until = self._waiters._loop.time() + self._seconds
        self._future, self._grain = self._waiters._add(self._topics, self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiters._remove(self._future, self._topics, self._grain)

    def give_up(self, *_: object) -> None:
        """The client went away: stop waiting. Fits as a callback of a future."""
        if not self._future.done():
            self._future.set_result(False)

    async def woken(self) -> bool:
        if not await self._future:
            return False
        left = self._until - self._waiters._loop.time()
        self._waiters._remove(self._future, self._topics, self._grain)
        self._future, self._grain = self._waiters._add(self._topics, left)
        return True
