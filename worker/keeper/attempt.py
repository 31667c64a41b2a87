"""One attempt as the keeper sees it: what was asked, where it stands, how it ended, what it wrote. No effects here."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from worker.keeper.slots import Slot
    from worker.progress import Scanner

QUEUED, RUNNING, SWEPT, OVER = "queued", "running", "swept", "over"
STARTING = "starting"  # between the first two, where a hook comes before it
TAIL = 16 * 1024  # of output beyond the limit, its end is kept: errors stand there
NOTE = "\n[worker: %d bytes left out here, because the output went over its limit of %d bytes]\n"


class Ending:
    """Why an attempt was told to end, and what that makes of it."""

    __slots__ = ("outcome", "reason", "text")

    def __init__(self, outcome: str, reason: str, text: str) -> None:
        self.outcome = outcome
        self.reason = reason
        self.text = text


class Kept:
    """What is kept of an attempt's output: the head up to the limit, and the end of the rest. Counts everything."""

    __slots__ = ("_limit", "_tail", "_unsent", "offset", "total")

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._unsent = bytearray()
        self._tail = b""
        self.offset = 0  # of the first byte not sent yet
        self.total = 0

    @property
    def unsent(self) -> int:
        return len(self._unsent)

    def add(self, data: bytes) -> None:
        room = len(data) if self._limit is None else max(0, self._limit - self.total)
        self.total += len(data)
        if room:
            self._unsent += data[:room]
        if room < len(data):
            self._tail = (self._tail + data[room:])[-TAIL:]

    def take(self) -> tuple[int, bytes]:
        """What has not been sent, and its offset."""
        data, at = bytes(self._unsent), self.offset
        self._unsent.clear()
        self.offset += len(data)
        return at, data

    def finish(self) -> None:
        """No more comes: say what was left out, if anything, and end with the end."""
        if self._limit is None or self.total <= self._limit:
            return
        left_out = self.total - self._limit - len(self._tail)
        if left_out:
            self._unsent += (NOTE % (left_out, self._limit)).encode()
        self._unsent += self._tail
        self._tail = b""


class WorkerProblem(OSError):
    """The worker could not prepare what a job needs: a directory, a pipe. It is none of the job's fault."""


class Attempt:
    __slots__ = (
        "argv",
        "asks",
        "checkpoint",
        "cores",
        "cpu_ms",
        "ending",
        "env",
        "epoch",
        "files",
        "gpus",
        "grace_ms",
        "job",
        "kept",
        "kept_at",
        "kill_at",
        "limits",
        "max_rss",
        "output_listed",
        "owner",
        "pid",
        "pipe",
        "pipe_in",
        "progress",
        "run_ms",
        "slot",
        "started_at",
        "started_ms",
        "state",
        "status",
        "swept_since",
        "time_limit_ms",
        "tries",
        "way",
    )

    def __init__(
        self,
        job: str,
        epoch: int,
        owner: str,
        argv: list[str],
        env: dict[str, str],
        asks: tuple[tuple[str, int], ...],
        time_limit_ms: int | None,
        grace_ms: int,
        output_limit: int | None,
        limits: tuple[int, int, int, int] | None = None,
        way: tuple[str, str, bool] | None = None,
        checkpoint: tuple[int, int, str] | None = None,
        files: tuple[str, tuple[str, ...], int] | None = None,
    ) -> None:
        self.job = job
        self.epoch = epoch
        self.owner = owner
        self.argv = argv
        self.env = env
        self.asks = asks
        self.time_limit_ms = time_limit_ms
        self.grace_ms = grace_ms
        self.limits = (
            limits  # memory, processes, open files, cores that are its own; each 0: none. None: no limit at all
        )
        self.way = way  # isolation, image, network (`isolation.ways.Way`); None: a process like ours
        self.checkpoint = checkpoint  # signal, grace, folder (`checkpoints.Checkpoint`), of a job that asked for it
        self.files = files  # see `filling.Files`; None: it has none
        self.kept_at = ""  # where its directory stands now, once it was set aside
        self.kept = Kept(output_limit)
        self.state = QUEUED
        self.ending: Ending | None = None
        self.kill_at: int | None = None
        self.pid = 0
        self.pipe = -1  # the end to read from
        self.pipe_in = -1
        self.slot: Slot | None = None
        self.gpus: list[str] = []
        self.cores: list[int] = []
        self.started_ms = 0  # UTC
        self.started_at = 0  # CLOCK_BOOTTIME
        self.run_ms = 0
        self.status: int | None = None  # as waitpid gives it
        self.cpu_ms: int | None = None
        self.max_rss: int | None = None
        self.swept_since = 0
        self.tries = 0  # to start it, that failed for want of something
        self.progress: Scanner | None = None  # from its first progress line on, or from the first byte with a pattern
        self.output_listed = False  # it stands in the keeper's list of those with unsent output

    @property
    def name(self) -> str:
        """What its processes carry as WM_ATTEMPT."""
        return "%s.%d" % (self.job, self.epoch)

    def result(self) -> tuple[Any, ...]:
        """(job, epoch, outcome, exit_code, signal, reason, text, started_ms, run_ms, cpu_ms, max_rss, output)"""
        exit_code, number = exit_of(self.status)
        ending = self.ending or Ending("succeeded" if exit_code == 0 else "failed", "", "")
        return (
            self.job,
            self.epoch,
            ending.outcome,
            exit_code,
            number,
            ending.reason,
            ending.text,
            self.started_ms,
            self.run_ms,
            self.cpu_ms,
            self.max_rss,
            self.kept.total,
        )


def exit_of(status: int | None) -> tuple[int | None, int | None]:
    """(exit code, signal) of a wait status; one of them is None, or both when there was no process."""
    if status is None:
        return None, None
    if status & 0x7F:
        return None, status & 0x7F
    return status >> 8, None
