"""A worker of the fake platform: it runs nothing, and has a timetable instead."""

from bisect import bisect_right
from dataclasses import dataclass, field

from backends.base import Submission, WorkerPhase
from backends.memory.faults import FOREVER, Fate


@dataclass
class VirtualWorker:
    """One worker and its timetable: (from when, phase), in order; after the last one it is no longer shown."""

    submission: Submission
    index: int
    handle: str
    created: int
    fate: Fate
    turns: list[tuple[int, WorkerPhase]] = field(default_factory=list)
    shown_until: int = FOREVER
    exit_code: int | None = None
    detail: str = ""

    @property
    def id(self) -> str:
        return self.submission.worker_id(self.index)

    @property
    def command(self) -> tuple[str, ...]:
        return tuple(self.submission.filled(word, self.index) for word in self.submission.command)

    @property
    def environment(self) -> dict[str, str]:
        return {name: self.submission.filled(value, self.index) for name, value in self.submission.environment.items()}

    @property
    def join_token(self) -> str:
        """What the platform's secret holds, for whoever plays the agent."""
        return self.submission.join_tokens[self.index] if self.submission.join_tokens else ""

    @property
    def identity(self) -> str:
        """As whom the platform vouches for it, where it gives workers no secret."""
        return f"aws:{0:012}:i-{int(self.handle.rpartition('-')[2]):017x}"

    def phase(self, now: int) -> WorkerPhase:
        return self.turns[max(bisect_right(self.turns, now, key=lambda turn: turn[0]) - 1, 0)][1]

    def over(self, now: int) -> bool:
        return self.phase(now) is WorkerPhase.ENDED or now >= self.shown_until

    def cut(self, now: int, *turns: tuple[int, WorkerPhase]) -> None:
        """What was to come does not come; `turns` come instead."""
        self.turns = [turn for turn in self.turns if turn[0] <= now] + list(turns)
