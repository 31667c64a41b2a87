"""What the fake platform says beforehand of the ends that it is about to bring about."""

from dataclasses import dataclass

from backends.base import Notice, WorkerPhase
from backends.memory.faults import FOREVER
from backends.memory.virtual import VirtualWorker

KILLED = 137


@dataclass
class OpenNotice:
    """One notice, and the timetable that its worker had before it."""

    notice: Notice
    manager: str
    pool: str
    worker: VirtualWorker | None
    patience_ms: int  # how long the platform waits for an answer, from each `hold` on
    until: int  # then it ends the worker without one
    turns: tuple[tuple[int, WorkerPhase], ...] = ()

    def hold(self, now: int) -> None:
        """It waits anew, unless it has said when it will go on."""
        if self.notice.deadline_ms is None:
            self.until = min(now + self.patience_ms, FOREVER)
            self.put_down()

    def put_down(self) -> None:
        """The worker's timetable ends when the platform's patience does."""
        if self.worker is None or self.until >= FOREVER:
            return
        self.worker.turns = [turn for turn in self.turns if turn[0] < self.until] + [(self.until, WorkerPhase.ENDED)]
        self.worker.exit_code = KILLED
        self.worker.detail = self.notice.reason
