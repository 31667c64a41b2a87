"""What the keeper tells the agent of its jobs, as values."""

from dataclasses import replace
from typing import List, Mapping, NamedTuple, Optional, Tuple, Union

from worker.protocol import Result, Shape

Amounts = Tuple[Tuple[str, int], ...]

AMOUNTS = ("cpus", "memory", "gpus", "disk")
CUSTOM = "custom:"  # before names of one's own, so that none can be taken for ours


def amounts(shape: Optional[Shape]) -> Optional[Amounts]:
    """What can be used up, sorted by name."""
    if shape is None:
        return None
    counts = {name: getattr(shape, name) for name in AMOUNTS}
    counts.update((CUSTOM + name, count) for name, count in shape.custom)
    return tuple(sorted((name, count) for name, count in counts.items() if count))


class Started(NamedTuple):
    """The process of this attempt runs."""

    job: str
    epoch: int
    started_ms: int  # UTC


class Output(NamedTuple):
    """Part of what the attempt wrote to its stdout and stderr, in order."""

    job: str
    epoch: int
    offset: int  # of the first byte, in the attempt's kept output
    data: bytes


class Ended(NamedTuple):
    """The attempt is over, every process of it is gone, and all its output has been delivered before."""

    result: Result
    kept: str = ""  # where its directory was set aside, because something of it is to be kept


class Progressed(NamedTuple):
    """The attempt has said how far it is: the newest."""

    job: str
    epoch: int
    done: int
    whole: Optional[int]  # None: it does not know
    text: str


class Hooked(NamedTuple):
    """A hook of this attempt has failed, or written something."""

    job: str
    epoch: int
    hook: str
    wrong: str  # "" when nothing was
    took_ms: int
    output: str  # the end of it


class Usage(NamedTuple):
    """What the running attempts use: (job, epoch, cpu ms so far, bytes now, its GPUs)."""

    jobs: List[Tuple[str, int, int, int, List[str]]]


class GpusLeft(NamedTuple):
    """A job has left these devices; none of them is given out before `gpu_is_free`."""

    gpus: List[str]


class Offered(NamedTuple):
    """What the neighbours on its machine leave to this worker has changed."""

    machine: str
    amount: Mapping[str, int]  # as `amounts` names them; its own jobs' are part of it

    def of(self, has: Shape) -> Shape:
        """What the hub is told, when it may have `has` at the most."""
        least = {name: min(getattr(has, name), self.amount.get(name, 0)) for name in AMOUNTS}
        custom = tuple((name, min(count, self.amount.get(CUSTOM + name, 0))) for name, count in has.custom)
        return replace(has, machine=self.machine, custom=custom, **least)


Event = Union[Started, Output, Ended, Usage, Progressed, Offered, Hooked, GpusLeft]
