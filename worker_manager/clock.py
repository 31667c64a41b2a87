"""Time, handed in wherever it is needed so that tests can step it."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """UTC, for people, storage and comparison between machines."""

    def boot_ms(self) -> int:
        """For durations within this process: never jumps, goes on while the machine sleeps."""


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class ManualClock:
    """Stands still until it is moved. Safe to move from another thread."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._lock = threading.Lock()
        self._now = now_ms
        self._boot = 0

    def now_ms(self) -> int:
        return self._now

    def boot_ms(self) -> int:
        return self._boot

    def advance(self, ms: int) -> None:
        with self._lock:
            self._now += ms
            self._boot += ms
