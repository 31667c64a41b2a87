"""What the agent's state orders, as values: one place carries them out.

Most go to the keeper; `Say` is a line for people, `Exit` the end.
"""

from typing import Any, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from worker.protocol import Assignment

Key = Tuple[str, int]  # job, epoch

OK, FAILED, REFUSED = 0, 1, 3  # exit codes


class Start(NamedTuple):
    assignments: Sequence[Assignment]


class Recall(NamedTuple):
    """Those that have not started are given back."""

    attempts: Sequence[Key]


class Cancel(NamedTuple):
    job: str
    epoch: int
    reason: str
    text: str
    outcome: str
    grace_ms: Optional[int] = None  # None: the job's own


class EndAll(NamedTuple):
    """Every attempt, queued or running, is ended and given back."""

    grace_ms: int
    reason: str
    text: str


class Extend(NamedTuple):
    """The lease holds for `ms` from `asked_at` on."""

    ms: int
    asked_at: int


class HandBackBy(NamedTuple):
    """Jobs that save what they have done are told so early that they are over by then (CLOCK_BOOTTIME); None: not any
    more. Others go on."""

    when: Optional[int]
    reason: str
    text: str


class LookAtGpus(NamedTuple):
    """A job has left these: the next gets them when they are free."""

    gpus: Sequence[str]


class Say(NamedTuple):
    event: str
    facts: Mapping[str, Any]


class Exit(NamedTuple):
    code: int
    reason: str


Order = Union[Start, Recall, Cancel, EndAll, Extend, HandBackBy, LookAtGpus, Say, Exit]
