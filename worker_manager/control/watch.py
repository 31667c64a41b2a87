"""The two things that go on while the loop waits or acts: the source is watched, and the lease is renewed.

Each has a thread of its own, so that neither a slow tick nor a silent source costs the lease, and a change of the
backlog wakes the loop within the time that the network takes.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from worker_manager.clock import Clock
from worker_manager.control.lease import LeaseLost
from worker_manager.control.ledger import Ledger, StoreBusy
from worker_manager.control.observe import look
from worker_manager.errors import WorkerManagerError
from worker_manager.policy.facts import BacklogFact
from worker_manager.sources.base import Observation, Source

WAIT_MS = 20_000  # of one long poll: also how old a quiet source's word may be
SILENT_MS = 60_000  # a poll that has not returned by then is a silent source
BURST = 20  # polls in a row without a pause; a backlog that goes on changing is then read every so often:
EVERY_MS = 200
RETRY_MS = (250, 500, 1_000, 2_000, 5_000, 10_000)  # after failures


@dataclass(frozen=True)
class Told:
    """An observation, and when it came, by the clock that never jumps."""

    observation: Observation
    at: int
    number: int


class Pace:
    """At most `burst` steps at once, and one more every `every_ms`: what is rare is never held up."""

    def __init__(self, clock: Clock, burst: int, every_ms: int) -> None:
        self._clock = clock
        self._room = burst * every_ms
        self._every_ms = every_ms
        self._debt = 0
        self._at = clock.boot_ms()

    def pause_ms(self) -> int:
        """How long to wait after the step that was just made."""
        now = self._clock.boot_ms()
        self._debt = max(0, self._debt - (now - self._at)) + self._every_ms
        self._at = now
        return max(0, self._debt - self._room)


class Watcher:
    """Holds the newest word of the source."""

    def __init__(self, source: Source, clock: Clock, wake: Callable[[], None]) -> None:
        self._source = source
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()
        self._newest: Told | None = None
        self._number = 0
        self._asked_at = clock.boot_ms()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch source", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait: a long poll may last a while yet."""
        self._stop.set()

    def newest(self) -> Told | None:
        """None before the first word. A source that does not return at all counts as unread."""
        with self._lock:
            silent = self._clock.boot_ms() - self._asked_at
            if silent <= SILENT_MS:
                return self._newest
            text = f"the source has not answered for {silent // 1000} s"
            failed = Observation(BacklogFact(registers=self._source.registers, failed=text))
            return Told(failed, self._clock.boot_ms(), self._number)

    def take(self, observation: Observation) -> Told:
        """Someone asked the source directly: what it said is the newest."""
        with self._lock:
            self._number += 1
            self._newest = Told(observation, self._clock.boot_ms(), self._number)
            return self._newest

    def _watch(self) -> None:
        seen: int | None = None
        pace = Pace(self._clock, BURST, EVERY_MS)
        failures = 0
        while not self._stop.is_set():
            with self._lock:
                self._asked_at = self._clock.boot_ms()
            observation = look(self._source, seen, WAIT_MS)
            self.take(observation)
            self._wake()
            if observation.backlog.failed is not None:
                failures, seen = failures + 1, None
                pause = RETRY_MS[min(failures, len(RETRY_MS)) - 1]
            else:
                failures, seen = 0, observation.backlog.version
                pause = pace.pause_ms()
            if pause:
                self._stop.wait(pause / 1000)


class LeaseKeeper:
    """Renews the lease until it is stopped or lost. `lost` then says why."""

    def __init__(self, ledger: Ledger, ttl_ms: int, wake: Callable[[], None]) -> None:
        self._ledger = ledger
        self._ttl_ms = ttl_ms
        self._wake = wake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="renew lease", daemon=True)
        self.lost: WorkerManagerError | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._ttl_ms / 1000)

    def renew(self) -> bool:
        """Whether the lease is still ours, as far as the ledger could be asked."""
        try:
            self._ledger.renew(self._ttl_ms)
        except StoreBusy:
            return True  # the next turn comes before the lease ends, and every write checks it anyway
        except (LeaseLost, WorkerManagerError) as error:
            self.lost = error
            self._wake()
            return False
        return True

    def _keep(self) -> None:
        while not self._stop.wait(self._ttl_ms / 3000) and self.renew():
            pass
