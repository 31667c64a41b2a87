"""Where slow calls run: one lane for each backend, so that the calls of one pool follow each other and pools never wait
for each other.

A thread that hangs cannot be taken back. It keeps its lane, the lane says that it is stuck, and nothing more is asked
of that backend until the call has returned; so there are never more threads than lanes.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from worker_manager.clock import Clock

T = TypeVar("T")


class Call(Generic[T]):
    """One call, waiting, under way or over."""

    def __init__(self, what: str, work: Callable[[], T], limit_ms: int, clock: Clock) -> None:
        self.what = what
        self._work = work
        self._limit_ms = limit_ms
        self._clock = clock
        self._begun_at: int | None = None
        self._over = threading.Event()
        self._value: T | None = None
        self.error: Exception | None = None

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def value(self) -> T:
        """What it returned; raises what it raised. Only once it is over."""
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # set before `over`

    def wait(self, seconds: float) -> bool:
        return self._over.wait(seconds)

    def overdue_ms(self) -> int:
        """How long it takes already, where that is longer than it may; else 0."""
        if self._begun_at is None or self.over:
            return 0
        taken = self._clock.boot_ms() - self._begun_at
        return taken if taken > self._limit_ms else 0

    def overdue_at(self) -> int | None:
        """When it will have taken too long, by the clock that never jumps; None where that is over, or not known."""
        if self._begun_at is None or self.over or self.overdue_ms():
            return None
        return self._begun_at + self._limit_ms + 1

    def run(self) -> None:
        self._begun_at = self._clock.boot_ms()
        try:
            self._value = self._work()
        except Exception as error:  # whatever a backend or its SDK raises belongs to whoever asked
            self.error = error
        self._over.set()


class Lane(Protocol):
    def start(self, what: str, work: Callable[[], T], limit_ms: int) -> Call[T]:
        """Queue it behind what was started before."""

    def stuck(self) -> str | None:
        """One sentence when the call under way takes longer than it may."""

    def idle(self) -> bool: ...

    def close(self) -> None:
        """No more calls. Does not wait for the one under way."""


LaneMaker = Callable[[str], Lane]


class InlineLane:
    """Runs each call at once, in the caller's thread: for tests and simulations, where no backend hangs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def start(self, what: str, work: Callable[[], T], limit_ms: int) -> Call[T]:
        call = Call(what, work, limit_ms, self._clock)
        call.run()
        return call

    def stuck(self) -> str | None:
        return None

    def idle(self) -> bool:
        return True

    def close(self) -> None:
        pass


class ThreadLane:
    """One thread, begun with the first call. It never keeps the process from ending."""

    def __init__(self, name: str, clock: Clock, done: Callable[[], None]) -> None:
        self._name = name
        self._clock = clock
        self._done = done
        self._calls: queue.SimpleQueue[Call[Any] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._now: Call[Any] | None = None
        self._thread: threading.Thread | None = None

    def start(self, what: str, work: Callable[[], T], limit_ms: int) -> Call[T]:
        call = Call(what, work, limit_ms, self._clock)
        with self._lock:
            self._waiting += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=f"lane {self._name}", daemon=True)
                self._thread.start()
        self._calls.put(call)
        return call

    def stuck(self) -> str | None:
        call = self._now
        late = call.overdue_ms() if call is not None else 0
        return f"it has not answered {call.what} for {late // 1000} s" if call is not None and late else None

    def idle(self) -> bool:
        with self._lock:
            return self._waiting == 0

    def close(self) -> None:
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            self._now = call
            call.run()
            self._now = None
            with self._lock:
                self._waiting -= 1
            self._done()
