"""The agent's handle on its keeper: the small process that starts, watches, ends and reaps jobs.

The agent calls `start` with everything the hub assigned to it, in batches; the keeper queues what does not fit yet and
starts it the moment it fits, without asking back. What happens comes back as events, in batches too. The wire between
the two is a socket pair; when the agent dies it closes, and the keeper ends every job with everything it started.
"""

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

from worker.protocol import Assignment, Outcome, Result, Shape


class KeeperDied(Exception):
    """The keeper is gone, and with it every job it ran: hand all of them back."""


@dataclass(frozen=True)
class Started:
    """The process of this attempt runs."""

    job: str
    epoch: int
    started_ms: int  # UTC


@dataclass(frozen=True)
class Output:
    """Part of what the attempt wrote to its stdout and stderr, in order."""

    job: str
    epoch: int
    offset: int  # of the first byte, in the attempt's kept output
    data: bytes


@dataclass(frozen=True)
class Ended:
    """The attempt is over, every process of it is gone, and all its output has been delivered before."""

    result: Result


Event = Union[Started, Output, Ended]


class Runner:
    """One keeper. Not for several threads at once.

    `work_dir` gets the slot directories; nobody else may write there. `has` is what jobs may use together: a job
    waits in the keeper's queue until it fits; None starts everything at once. `gpus` are the device ids behind
    `has.gpus`; each job sees its own through CUDA_VISIBLE_DEVICES. `env` is what every job's environment starts from
    (the agent's own is never passed on).
    """

    def __init__(
        self,
        work_dir: str,
        has: Optional[Shape] = None,
        gpus: Sequence[str] = (),
        env: Optional[Mapping[str, str]] = None,
        lease_ms: Optional[int] = None,
    ) -> None:
        raise NotImplementedError

    def start(self, assignments: Sequence[Assignment]) -> None:
        """Queue these attempts, in this order. Each ends in exactly one `Ended`, even when it cannot be started.
        Never blocks: what the keeper does not take yet waits here and goes out with the next call of any kind."""
        raise NotImplementedError

    def cancel(
        self,
        job: str,
        epoch: int,
        reason: str = "cancelled",
        text: str = "",
        grace_ms: Optional[int] = None,
        outcome: str = Outcome.CANCELLED,
    ) -> None:
        """TERM, `grace_ms` (None: the job's own), KILL; its `Ended` carries `outcome`, `reason` and `text`. A queued job
        ends at once. Unknown or already ended attempts are ignored. Again with a shorter grace: the shorter counts."""
        raise NotImplementedError

    def recall(self, attempts: Sequence[Tuple[str, int]]) -> None:
        """Give back what has not started: `Ended` with outcome `returned`. What runs already goes on."""
        raise NotImplementedError

    def resize(self, has: Shape) -> None:
        """What the jobs may use together has changed. Running jobs go on."""
        raise NotImplementedError

    def extend_lease(self, ms: int, asked_at_ms: Optional[int] = None) -> None:
        """The keeper ends everything when this time has passed since `asked_at_ms` (CLOCK_BOOTTIME; None: now)."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Readable when `read` has something. Register it once; it stays the same."""
        raise NotImplementedError

    def read(self) -> List[Event]:
        """What happened since the last call, in order; [] when nothing did. Never blocks. Raises KeeperDied once
        everything that was still delivered has been returned. Not reading makes the keeper stop reading its jobs'
        output: that is the back-pressure, and memory stays bounded."""
        raise NotImplementedError

    def flush(self) -> bool:
        """Send what waits here; False when some still waits (call again when `fileno` is writable)."""
        raise NotImplementedError

    def running(self) -> Dict[Tuple[str, int], str]:
        """Every attempt that was given to `start` and has no `Ended` yet → `queued` or `running`."""
        raise NotImplementedError

    def stop(self, grace_ms: int, reason: str, text: str = "", outcome: str = Outcome.RETURNED) -> None:
        """Cancel everything, queued and running. Each still ends in its `Ended`: go on with `read` until `running`
        is empty."""
        raise NotImplementedError

    def close(self, wait_ms: int = 5000) -> None:
        """End the keeper; what still runs is killed. Returns when it is gone."""
        raise NotImplementedError
