"""The faults that can be ordered of the fake, and the queue of orders."""

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backends.base import RefusalKind

FOREVER = 2**62  # ms


@dataclass(frozen=True)
class Refuse:
    """launch, terminate, hold, release: the platform says no and does nothing."""

    kind: RefusalKind = RefusalKind.CAPACITY
    text: str = "refused by order"
    retry_after_s: float | None = None


@dataclass(frozen=True)
class TimeOut:
    """launch, terminate, hold, release: the answer is lost, after (`executes`) or before it was done."""

    executes: bool = True


@dataclass(frozen=True)
class Unreadable:
    """list, notices: fails."""

    text: str = "the platform cannot be read"


@dataclass(frozen=True)
class Lose:
    """list: so many of the newest workers are missing. `complete=True` is the platform that does not know it."""

    count: int = 1
    complete: bool = False


@dataclass(frozen=True)
class Hang:
    """any call of a backend: no answer comes. `wait(timeout_s)` waits, an Event's for example: True means that the
    answer came after all, False that the time was up. A `wait` that never returns is a call that nobody can take back.
    `executes`: what was asked for happened nevertheless."""

    wait: Callable[[float], bool]
    executes: bool = False


@dataclass(frozen=True)
class Fate:
    """worker: what becomes of one worker. None is the platform's default; FOREVER is never."""

    queue_ms: int | None = None
    boot_ms: int | None = None
    run_ms: int | None = None  # then it ends by itself
    end_ms: int | None = None
    exit_code: int | None = None  # when it ends by itself
    dies_at_boot: bool = False
    vanishes: bool = False  # it leaves the list without ever being shown as ended
    strange: bool = False  # it is shown in a state that nobody knows
    refusal: RefusalKind | None = None
    detail: str = ""
    output: str = ""  # what it writes to its log once it runs


Fault = Refuse | TimeOut | Unreadable | Lose | Hang | Fate
FAULTS: Mapping[str, tuple[type, ...]] = {
    "launch": (Refuse, TimeOut, Hang),
    "terminate": (Refuse, TimeOut, Hang),
    "list": (Unreadable, Lose, Hang),
    "notices": (Unreadable, Hang),
    "hold": (Refuse, TimeOut, Hang),
    "release": (Refuse, TimeOut, Hang),
    "worker": (Fate,),
}


class FaultOrders:
    """Which fault the next call meets. Ordered ones come first, in their order; then chance, by the seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - chooses faults, guards nothing
        self._lock = threading.Lock()
        self._ordered: dict[str, list[tuple[Fault, int]]] = {call: [] for call in FAULTS}
        self._chances: dict[str, list[tuple[Fault, float]]] = {call: [] for call in FAULTS}

    def inject(self, call: str, fault: Fault, times: int = 1) -> None:
        """The next `times` calls (a backend's methods; `worker`: the next workers) meet this fault."""
        _check(call, fault)
        with self._lock:
            self._ordered[call].append((fault, times))

    def chance(self, call: str, fault: Fault, probability: float) -> None:
        """Every such call meets this fault with this probability."""
        _check(call, fault)
        with self._lock:
            self._chances[call].append((fault, probability))

    def heal(self) -> None:
        """No more faults. What has become of workers stays."""
        with self._lock:
            for call in FAULTS:
                self._ordered[call].clear()
                self._chances[call].clear()

    def meet(self, call: str, timeout_s: float = 0.0) -> Fault | None:
        """The fault that this call meets; one that was ordered counts down. A hang is waited for here."""
        met = self._next(call)
        if isinstance(met, Hang) and met.wait(timeout_s):
            return None
        return met

    def _next(self, call: str) -> Fault | None:
        with self._lock:
            if self._ordered[call]:
                fault, times = self._ordered[call].pop(0)
                if times > 1:
                    self._ordered[call].insert(0, (fault, times - 1))
                return fault
            for fault, probability in self._chances[call]:
                if self._random.random() < probability:
                    return fault
            return None


def _check(call: str, fault: Fault) -> None:
    if call not in FAULTS or not isinstance(fault, FAULTS[call]):
        raise ValueError(f"{type(fault).__name__} is not a fault of {call!r}")
