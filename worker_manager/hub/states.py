"""The life-cycles of jobs and of registered workers, as tables.

Every pair of state and event stands in its table: a step, IGNORED (it changes nothing, which is what makes repeats
harmless) or IMPOSSIBLE (a mistake in the program). The store asks `job_step` and `worker_step`; it knows no other rule.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from worker.protocol import JobState, Outcome, WorkerState


class JobEvent(StrEnum):
    UNBLOCK = "unblock"  # everything it depends on is done
    DEPENDENCY_FAILED = "dependency-failed"
    ASSIGN = "assign"
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    STOPPED = "stopped"  # the agent ended it because it was told to
    RETURN = "return"  # handed back
    SPOIL = "spoil"  # handed back because its files could not be moved: elsewhere too, perhaps
    LOSE = "lose"  # its worker is lost, dead or was preempted
    CANCEL = "cancel"  # someone asks for its end


OUTCOME_EVENTS = {
    Outcome.SUCCEEDED: JobEvent.SUCCEED,
    Outcome.FAILED: JobEvent.FAIL,
    Outcome.CANCELLED: JobEvent.STOPPED,
    Outcome.RETURNED: JobEvent.RETURN,
}
SPOILED_BY = ("staging-failed", "disk-full")  # reasons of attempts that were handed back


def event_of(outcome: str, reason: str) -> JobEvent | None:
    """What a worker's result does to its job; None: it is no outcome."""
    event = OUTCOME_EVENTS.get(outcome)
    return JobEvent.SPOIL if event is JobEvent.RETURN and reason in SPOILED_BY else event


class Budget(StrEnum):
    NONE = "none"
    RETRY = "retry"  # the job's own retries
    LOSS = "loss"  # the hub's cap on lost workers


@dataclass(frozen=True, slots=True)
class Step:
    to: str
    spends: Budget = Budget.NONE
    exhausted: str = ""  # where it goes when the budget is spent already
    reason: str = ""  # recorded with `exhausted`, or with `to` where no budget is spent
    when_cancelling: str = ""  # where it goes instead, once its end was asked for
    asks_worker: bool = False  # the state stays: the worker is told, and answers


IGNORED = None
_S = JobState
_E = JobEvent


class Impossible(Exception):
    """An event that cannot happen in this state: a mistake in the program."""


_BACK = Step(_S.QUEUED, Budget.LOSS, exhausted=_S.FAILED, reason="lost-too-often", when_cancelling=_S.CANCELLED)
_ON_WORKER: dict[JobEvent, Step | None] = {
    _E.SUCCEED: Step(_S.SUCCEEDED),
    _E.FAIL: Step(_S.QUEUED, Budget.RETRY, exhausted=_S.FAILED, when_cancelling=_S.CANCELLED),
    _E.STOPPED: Step(_S.CANCELLED, reason="cancelled"),
    _E.LOSE: _BACK,
    _E.SPOIL: _BACK,
}
_OVER: dict[JobEvent, Step | None] = dict.fromkeys(
    (_E.DEPENDENCY_FAILED, _E.START, _E.SUCCEED, _E.FAIL, _E.STOPPED, _E.RETURN, _E.SPOIL, _E.LOSE, _E.CANCEL), IGNORED
)

# state → event → step. A cell that is not here is impossible.
JOB: dict[str, dict[JobEvent, Step | None]] = {
    _S.BLOCKED: {
        _E.UNBLOCK: Step(_S.QUEUED),
        _E.DEPENDENCY_FAILED: Step(_S.CANCELLED, reason="dependency-failed"),
        _E.CANCEL: Step(_S.CANCELLED, reason="cancelled"),
    },
    _S.QUEUED: {
        _E.ASSIGN: Step(_S.ASSIGNED),
        _E.CANCEL: Step(_S.CANCELLED, reason="cancelled"),
    },
    _S.ASSIGNED: {
        **_ON_WORKER,
        _E.START: Step(_S.RUNNING),
        _E.RETURN: Step(_S.QUEUED, when_cancelling=_S.CANCELLED),  # it never ran: costs nothing
        _E.CANCEL: Step(_S.ASSIGNED, asks_worker=True),
    },
    _S.RUNNING: {
        **_ON_WORKER,
        _E.START: IGNORED,
        _E.RETURN: _BACK,
        _E.CANCEL: Step(_S.RUNNING, asks_worker=True),
    },
    _S.SUCCEEDED: _OVER,
    _S.FAILED: _OVER,
    _S.CANCELLED: _OVER,
}


class Budgets(NamedTuple):
    retries: int  # allowed
    tries: int  # retries spent
    losses: int  # spent
    lost_cap: int


class Change(NamedTuple):
    """What an event does to one job."""

    to: str
    tries: int
    losses: int
    reason: str = ""
    asks_worker: bool = False


def job_step(state: str, event: JobEvent, budgets: Budgets, cancelling: bool = False) -> Change | None:
    """None: nothing changes. Raises Impossible."""
    row = JOB[state]
    if event not in row:
        raise Impossible(f"{event} of a job that is {state}")
    step = row[event]
    if step is None:
        return None
    tries, losses = budgets.tries, budgets.losses
    if cancelling and step.when_cancelling:
        return Change(step.when_cancelling, tries, losses, "cancelled")
    if step.spends is Budget.RETRY:
        if tries >= budgets.retries:
            return Change(step.exhausted, tries, losses, step.reason)
        return Change(step.to, tries + 1, losses)
    if step.spends is Budget.LOSS:
        if losses + 1 >= budgets.lost_cap:
            return Change(step.exhausted, tries, losses + 1, step.reason)
        return Change(step.to, tries, losses + 1)
    return Change(step.to, tries, losses, step.reason, step.asks_worker)


class WorkerEvent(StrEnum):
    SEEN = "seen"  # a poll or a report
    SILENT = "silent"  # its lease ended
    CORDON = "cordon"
    UNCORDON = "uncordon"
    LEAVE = "leave"  # its last report
    DIE = "die"  # the backend confirms its death, or an operator forced it


_W = WorkerState
CORDONED_OR_READY = "cordoned-or-ready"  # draining where it is cordoned, else ready

WORKER: dict[str, dict[WorkerEvent, str | None]] = {
    _W.READY: {
        WorkerEvent.SEEN: IGNORED,
        WorkerEvent.SILENT: _W.LOST,
        WorkerEvent.CORDON: _W.DRAINING,
        WorkerEvent.UNCORDON: IGNORED,
        WorkerEvent.LEAVE: _W.GONE,
        WorkerEvent.DIE: _W.GONE,
    },
    _W.DRAINING: {
        WorkerEvent.SEEN: IGNORED,
        WorkerEvent.SILENT: _W.LOST,
        WorkerEvent.CORDON: IGNORED,
        WorkerEvent.UNCORDON: _W.READY,
        WorkerEvent.LEAVE: _W.GONE,
        WorkerEvent.DIE: _W.GONE,
    },
    _W.LOST: {
        WorkerEvent.SEEN: CORDONED_OR_READY,  # its jobs were taken from it; it starts anew, without any
        WorkerEvent.SILENT: IGNORED,
        WorkerEvent.CORDON: IGNORED,  # the cordon is kept, for when it comes back
        WorkerEvent.UNCORDON: IGNORED,
        WorkerEvent.LEAVE: _W.GONE,
        WorkerEvent.DIE: _W.GONE,
    },
    _W.GONE: dict.fromkeys(WorkerEvent, IGNORED),  # SEEN is refused before it comes here: 410
}


def worker_step(state: str, event: WorkerEvent, cordoned: bool = False) -> str:
    """The state after it."""
    to = WORKER[state][event]
    if to is None:
        return state
    if to == CORDONED_OR_READY:
        return _W.DRAINING if cordoned else _W.READY
    return to


@dataclass(frozen=True, slots=True)
class ArrayCounts:
    """How many tasks of an array are where. `queued` includes those that were never opened."""

    blocked: int = 0
    queued: int = 0
    assigned: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


def array_state(counts: ArrayCounts) -> str:
    """What an array as a whole is: the first that is true of any task, in the order below."""
    if counts.blocked:
        return _S.BLOCKED
    if counts.running:
        return _S.RUNNING
    if counts.assigned:
        return _S.ASSIGNED if not counts.succeeded + counts.failed else _S.RUNNING
    if counts.queued:
        return _S.QUEUED if not counts.succeeded + counts.failed else _S.RUNNING
    if counts.failed:
        return _S.FAILED
    if counts.cancelled:
        return _S.CANCELLED
    return _S.SUCCEEDED
