"""Stable reason codes, each with the sentence that shows its numbers.

A code never changes its meaning; a new meaning is a new code. Programs match on `code`, people read `text`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from worker.protocol import format_bytes, format_cpus, format_duration

# code → sentence; {name} are the reason's numbers, *_ms shown as durations, bytes and cpus with their units;
# {name:# job|# jobs} chooses between one and several.
SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        # why workers are wanted
        "backlog": "{jobs:# job waits|# jobs wait}: "
        "{workers:# more worker|# more workers} of this shape would hold them",
        "min-workers": "min-workers: {have} of at least {min}",
        "step-one": "{jobs:# job waits|# jobs wait} and "
        "{pending:# worker is on its|# workers are on their} way: one more",
        "enough": "{jobs:# job waits|# jobs wait}; {room:# has|# have} room on workers that run or are on their way",
        "soon-done": "{jobs:# job|# jobs} will be done before a new worker would be ready, which takes {start_ms} here",
        "keep-idle": "keep idle: {idle} of {keep} stand idle",
        "no-backlog": "no job waits that it could run",
        # what lowered a launch
        "max-workers": "max-workers: {have} of {max}",
        "step-up": "step: at most {step:# new worker|# new workers} at a time, {wanted} wanted",
        "cooldown-up": "cooldown: {left_ms} left of {cooldown_ms} since the last launch",
        "backoff": "backoff after {failures:# failed launch|# failed launches} ({kind}): {left_ms} left; last: {text}",
        "breaker-open": "breaker open after {failures:# failed start|# failed starts} ({kind}): "
        "next probe in {left_ms}; last: {text}",
        "breaker-probe": "breaker half open: one worker as a probe",
        "frozen": "frozen for {left_ms}: {text}",
        "backend-unreadable": "the backend cannot be read, so nothing is decided: {text}",
        "backlog-unreadable": "the backlog cannot be read, so nothing is decided: {text}",
        "throttled": "the backend asked to wait: {left_ms} left",
        "platform-holds": "the platform lets {workers:# worker|# workers} wait ({kind}): {text}",
        # why a worker goes
        "idle": "idle for {idle_ms} (limit {limit_ms}) and not wanted: {wanted} wanted, {have} here",
        "too-old": "older than {limit_ms}",
        "drifted": "launched with an older configuration",
        "unconfigured": "the pool is no longer configured: its workers finish what they have and go",
        "never-registered": "runs for {waited_ms} and never registered (limit {limit_ms})",
        "queued-too-long": "waits for a machine for {waited_ms} (limit {limit_ms}){says}",
        "lost": "no sign of life for {silent_ms} (limit {limit_ms})",
        "orphaned": "listed by the backend, unknown to the ledger",
        "drain-overdue": "drains for longer than {limit_ms}",
        "end-overdue": "was asked to end {waited_ms} ago (grace {limit_ms})",
        "surplus-queued": "still waits for a machine and is not wanted any more",
        "platform-notice": "the platform is about to end it ({text}): its jobs have {left_ms} to end or go back",
        "platform-notices": "the platform is about to end {workers:# worker|# workers}: {text}",
        "platform-ends": "the platform is about to end it: {text}",
        "notices-unreadable": "the platform cannot be asked which workers it is about to end: {text}",
        "grace-over": "the grace that an operator gave it is over: it was asked to end {waited_ms} ago",
        # why one is counted no more
        "ended": "the backend says that it has ended",
        "never-started": "the backend says that it ended before it registered",
        "vanished": "the backend does not list it any more",
        "never-came": "its launch was never confirmed and the backend does not list it",
        "left": "it left, and the backend does not list it any more",
        "forsaken": "its pool is no longer configured, so its backend cannot be asked; nothing is heard from it",
        "last-output": "the last that it wrote",
        # what kept one
        "cooldown-down": "cooldown: {left_ms} left of {cooldown_ms} since the last worker went",
        "stabilise": "{peak:# was|# were} wanted within the last {window_ms}: none goes yet",
        "step-down": "step: at most {step:# worker goes|# workers go} at a time, {surplus} surplus",
        "min-workers-keep": "min-workers: {have} of at least {min}, none goes",
        "wanted-again": "work came back while it drained",
        # what becomes of a job group
        "room-now": "{jobs:# has|# have} room on workers that run",
        "room-coming": "{jobs:# has|# have} room on {workers:# worker that is on its|# workers that are on their} way",
        "room-held": "room is on its way, but the platform lets {workers:# worker|# workers} wait ({kind}): {text}",
        "launching": "{workers:# worker is|# workers are} launched for {jobs} of them",
        "elsewhere": "it fits here, but pool {pool} has it",
        "no-room": "{jobs:# job finds|# jobs find} no room: {why}",
        "cpus": "cpus: job asks {asked_cpus}, worker has {has_cpus}",
        "memory": "memory: job asks {asked_bytes}, worker has {has_bytes}",
        "disk": "disk: job asks {asked_bytes}, worker has {has_bytes}",
        "gpus": "gpus: job asks {asked}, worker has {has}",
        "gpu_type": "gpu type: job asks {asked}, worker has {has}",
        "walltime": "walltime: job asks {asked_ms}, worker has {has_ms}",
        "custom": "{resource}: job asks {asked}, worker has {has}",
        "tags": "tags: job asks {asked}, worker has {has}",
        "can": "job asks {asked}, worker can {has}",
        "owner": "owner: the pool serves {owners}, the job is {owner}'s",
        "queue": "queue: the pool serves {queues}, the job is in {queue}",
        # an operator's
        "operator": "{by}: {text}",
    }
)


class UnknownReason(KeyError):
    """A reason code without a sentence: a mistake in the program."""


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    numbers: tuple[tuple[str, Any], ...] = ()

    @property
    def text(self) -> str:
        return SENTENCES[self.code].format(**{name: _shown(name, value) for name, value in self.numbers})

    def to_wire(self) -> dict[str, Any]:
        return {"code": self.code, "numbers": dict(self.numbers), "text": self.text}


def because(code: str, **numbers: Any) -> Reason:
    if code not in SENTENCES:
        raise UnknownReason(code)
    return Reason(code, tuple(numbers.items()))


class _Number(int):
    def __format__(self, spec: str) -> str:
        one, sign, several = spec.partition("|")
        return (one if self == 1 else several).replace("#", str(int(self))) if sign else super().__format__(spec)


def _shown(name: str, value: Any) -> Any:
    if not isinstance(value, int):
        return value
    if name.endswith("_ms"):
        return format_duration(max(0, value))
    if name.endswith("_bytes"):
        return format_bytes(value)
    if name.endswith("_cpus"):
        return format_cpus(value)
    return _Number(value)
