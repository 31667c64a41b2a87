"""What a backend hands to the conformance suite: how to make it, what can be seen of its workers, what can go wrong.

A test file for a backend is an Adopter and an empty subclass of the suite. What an adopter cannot do raises NotHere;
the test is then skipped with the reason, never passed.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto

from backends.base import Backend, Capabilities, Submission
from worker.protocol import Shape


class Fault(StrEnum):
    """What may be ordered of a platform. One order, one call or one worker."""

    REFUSED = auto()  # launch: no capacity
    THROTTLED = auto()  # launch: too many calls, later
    DENIED = auto()  # launch: credentials
    OVER_QUOTA = auto()  # launch: we may not have more
    MISCONFIGURED = auto()  # launch: it will never work like this
    LONG_REFUSAL = auto()  # launch: no capacity, said in 10 MB
    TIMED_OUT_BEFORE = auto()  # launch: no answer, nothing was done
    TIMED_OUT_AFTER = auto()  # launch: no answer, it was done
    LAUNCH_HANGS = auto()  # never answers
    LIST_HANGS = auto()
    END_HANGS = auto()
    END_TIMED_OUT_AFTER = auto()
    UNREADABLE = auto()  # list: an error
    EXPIRED = auto()  # list: credentials that are no longer good
    GARBAGE = auto()  # list: an answer that is none
    PAGE_LOST = auto()  # list: the end of it is missing, and the backend can know
    SLOW_BOOT = auto()  # the next worker stays pending or starting until `let_boot`
    DIES_AT_BOOT = auto()
    DIES_WITH_A_PAGE = auto()  # likewise, and the platform says why in 10 MB
    STRANGE_STATE = auto()  # the next worker is shown in a state that is in no table
    VANISHES = auto()  # the next worker leaves the list without having been shown as ended
    NOTICE = auto()  # the platform is about to end the newest worker, and waits for an answer
    NOTICES_UNREADABLE = auto()  # notices: an error


class NotHere(Exception):
    """This adopter cannot do or see that; the reason says why."""


@dataclass(frozen=True)
class Behaviour:
    """What the worker's command does. An adopter turns it into an argv, or into the fate of a virtual worker."""

    says: str = ""
    exits: int | None = None  # None: runs until it is ended
    deaf: bool = False  # ignores a polite request to end


RUNS = Behaviour()


@dataclass
class Adopter(ABC):
    capabilities: Capabilities
    faults: frozenset[Fault] = frozenset()
    has_shell: bool = True  # `Submission.setup` is run
    submissions: int = field(default=0, init=False)

    @abstractmethod
    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        """A new adapter on the same platform, as after a restart of the manager."""

    @abstractmethod
    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        """An argv that behaves like this (and arranges for it, where workers are virtual)."""

    @abstractmethod
    def inject(self, fault: Fault) -> None:
        """Order one of `faults`."""

    @abstractmethod
    def close(self) -> None:
        """End everything that was started."""

    def pause(self) -> None:
        """Let some time pass: really, or on the platform's clock."""
        time.sleep(0.01)

    def let_boot(self) -> None:
        raise NotHere("there is no slow boot")

    # ------------------------------------------------ what can be seen of a worker from outside

    def alive(self, handle: str) -> bool:
        raise NotHere("the platform shows no processes")

    def token(self, handle: str) -> str:
        """The join token as the worker finds it."""
        raise NotHere("the worker's secrets cannot be read")

    def environment(self, handle: str) -> Mapping[str, str]:
        """As the worker finds it."""
        raise NotHere("the worker's environment cannot be read")

    def argv(self, handle: str) -> tuple[str, ...]:
        """The worker's own, as it finds it."""
        raise NotHere("the worker's argv cannot be read")

    def exposed(self, handle: str) -> str:
        """Whatever others can see of it: command lines, the job's definition on the platform, environments."""
        raise NotHere("nothing but the listing is visible")

    # ------------------------------------------------ for the suite

    def submission(
        self,
        behaviour: Behaviour = RUNS,
        *,
        id: str = "",
        count: int = 1,
        manager: str = "wm-a",
        pool: str = "pool",
        environment: Mapping[str, str] | None = None,
        setup: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
    ) -> Submission:
        self.submissions += 1
        name = id or f"{manager}-{pool}-{self.submissions:04d}"
        return Submission(
            id=name,
            count=count,
            pool=pool,
            manager=manager,
            shape=Shape(cpus=100, memory=2**20),
            command=(*self.command(behaviour), *arguments),
            environment=environment or {},
            join_tokens=() if self.capabilities.identity else tuple(f"wmj_canary_{name}_{n}" for n in range(count)),
            setup=setup,
        )

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Wait for it, with a deadline."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
            self.pause()
