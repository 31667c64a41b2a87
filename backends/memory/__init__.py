"""The shipped fake: virtual workers in this process, on a clock that is handed in, with faults to order.

    platform = MemoryPlatform(clock.now_ms, seed=7)
    backend = MemoryBackend(platform, context)
    platform.faults.inject("launch", TimeOut(executes=True))   # the next launch happens, and nobody learns of it
    platform.warn(worker_id, in_ms=120_000)             # it is about to end this worker, and says so
    platform.next_change(now)                           # when a phase changes next: a simulator jumps there

A worker is a timetable of phases, so nothing runs between two calls: the same seed and calls give the same answers.
The platform outlives its backends, as a real one does; managers and pools on it do not see each other.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from backends.base import (
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    ListFailed,
    Listing,
    Notice,
    Option,
    Refused,
    Severity,
    Submission,
    Unknown,
    WorkerPhase,
    clipped,
)
from backends.memory.faults import FOREVER, Fate, Fault, Hang, Lose, Refuse, TimeOut, Unreadable
from backends.memory.platform import CAPABILITIES, MemoryPlatform
from backends.memory.virtual import VirtualWorker

__all__ = [
    "CAPABILITIES",
    "FOREVER",
    "OPTIONS",
    "Fate",
    "Fault",
    "Hang",
    "Lose",
    "MemoryBackend",
    "MemoryPlatform",
    "Refuse",
    "TimeOut",
    "Unreadable",
    "VirtualWorker",
    "create",
]

OPTIONS = (
    Option("queue-time", "duration", 0, "how long a worker waits for a machine"),
    Option("boot-time", "duration", 0, "how long its machine takes to start"),
    Option("end-time", "duration", 0, "how long it takes to end when it is asked to"),
    Option("quota", "int", None, "how many workers the platform allows at once"),
    Option("seed", "int", 0, "of the random faults"),
)


_NO_ANSWER = "no answer in time"


class MemoryBackend:
    """One pool's view of the platform. It never decides."""

    def __init__(self, platform: MemoryPlatform, context: Context) -> None:
        self.platform = platform
        self._context = context

    def launch(self, submission: Submission) -> LaunchOutcome:
        match self._fault("launch"):
            case Refuse(kind, text, retry_after_s):
                return Refused(kind, clipped(text), retry_after_s)
            case TimeOut(executes=executes) | Hang(executes=executes):
                if executes:
                    self.platform.start(submission)
                return Unknown(_NO_ANSWER)
        return self.platform.start(submission)

    def list(self) -> Listing:
        fault = self._fault("list")
        if isinstance(fault, Unreadable):
            raise ListFailed(clipped(fault.text))
        if isinstance(fault, Hang):
            raise ListFailed(_NO_ANSWER)
        seen = self.platform.shown(self._context.manager, self._context.pool)
        if isinstance(fault, Lose):
            return Listing(tuple(seen[: max(len(seen) - fault.count, 0)]), complete=fault.complete)
        return Listing(tuple(seen))

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        return self._may_fail("terminate", lambda: self.platform.end(handle, force=force))

    def notices(self) -> tuple[Notice, ...]:
        fault = self._fault("notices")
        if isinstance(fault, Unreadable):
            raise ListFailed(fault.text)
        if isinstance(fault, Hang):
            raise ListFailed(_NO_ANSWER)
        return self.platform.notices(self._context.manager, self._context.pool)

    def hold(self, notice: Notice) -> EndOutcome:
        return self._may_fail("hold", lambda: self.platform.hold(notice))

    def release(self, notice: Notice) -> EndOutcome:
        return self._may_fail("release", lambda: self.platform.release(notice))

    def _may_fail(self, call: str, act: Callable[[], EndOutcome]) -> EndOutcome:
        match self._fault(call):
            case Refuse(kind, text, retry_after_s):
                return Refused(kind, text, retry_after_s)
            case TimeOut(executes=executes) | Hang(executes=executes):
                if executes:
                    act()
                return Unknown(_NO_ANSWER)
        return act()

    def _fault(self, call: str) -> Fault | None:
        return self.platform.faults.meet(call, self._context.call_timeout_s)

    def logs(self, handle: str, max_bytes: int) -> str:
        worker = self.platform.find(handle)
        if worker is None:
            return ""
        now = self.platform.now_ms()
        lines = [f"{at} {worker.id} {phase}" for at, phase in worker.turns if at <= now]
        if any(phase is WorkerPhase.RUNNING and at <= now for at, phase in worker.turns):
            lines.append(worker.fate.output)
        text = "".join(f"{line}\n" for line in lines if line)
        return text.encode()[-max_bytes:].decode(errors="replace") if max_bytes > 0 else ""

    def check(self) -> tuple[Finding, ...]:
        return (Finding("memory", Severity.OK, "virtual workers need nothing"),)

    def render(self, submission: Submission) -> str:
        shown = {named.name: getattr(submission, named.name) for named in fields(submission)}
        shown["shape"] = submission.shape.to_wire()
        shown["environment"] = dict(submission.environment)
        shown["join_tokens"] = ["***"] * len(submission.join_tokens)
        return json.dumps(shown, indent=2)


def create(options: Mapping[str, Any], context: Context) -> MemoryBackend:
    """A platform of its own for each backend: what shall outlive it, or be shared, is built with MemoryPlatform."""
    defaults = Fate(queue_ms=options["queue-time"], boot_ms=options["boot-time"], end_ms=options["end-time"])
    platform = MemoryPlatform(context.now_ms, seed=options["seed"], defaults=defaults, quota=options["quota"])
    return MemoryBackend(platform, context)
