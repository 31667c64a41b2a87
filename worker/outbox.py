"""What the agent owes to the hub, in order: starts, output, results; and the reports that carry it.

One queue keeps the order, so an attempt's result never overtakes its output. One report is under way at a time and is
sent again as it is, with the same number, until it is acknowledged. Nothing here reads a clock or a socket.
"""

import binascii
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Tuple, Union

from worker.cachenews import CacheTale
from worker.progresstale import ProgressTale
from worker.protocol import LogChunk, Report, Result
from worker.spool import Spool

LINGER_MS = 100  # how long results and starts wait for company while jobs wait here: half the hub's work of 25 ms
SHORT_LINGER_MS = 20  # and while none does
LOG_LINGER_MS = 100
FULL = 256 * 1024  # bytes of output that wait for nothing
REPORT_BYTES = 1024 * 1024  # of output, and of words about files, in one report
REPORT_ENTRIES = 2000
MEMORY = 4 * 2**20  # bytes of output kept in memory; what is beyond goes to the spool
MISSING = b"\n[worker: %d bytes are missing here, because its disk could not keep them]\n"


class Start(NamedTuple):
    job: str
    epoch: int
    started_ms: int


class Piece(NamedTuple):
    """Part of an attempt's output: its bytes, or where the spool has them."""

    job: str
    epoch: int
    offset: int
    data: bytes
    spooled: Optional[int] = None
    length: int = 0


class Gap:
    """Output of an attempt that could not be kept; it grows while nothing more can. A note stands in its place."""

    __slots__ = ("epoch", "job", "length", "offset")

    def __init__(self, job: str, epoch: int, offset: int, length: int) -> None:
        self.job = job
        self.epoch = epoch
        self.offset = offset
        self.length = length

    def as_piece(self) -> Piece:
        return Piece(self.job, self.epoch, self.offset, (MISSING % self.length)[: self.length])


Entry = Union[Start, Piece, Gap, Result]


class Outbox:
    def __init__(self, session: int, heartbeat_ms: int, spool: Spool, now: int) -> None:
        self._session = session
        self._heartbeat_ms = heartbeat_ms
        self._spool = spool
        self._queue: Deque[Entry] = deque()
        self._gaps: Dict[Tuple[str, int], Gap] = {}  # that wait, the newest of each attempt
        self._memory = 0  # bytes of output in the queue's memory
        self._results = 0
        self._since: Optional[int] = None  # when the oldest start or result that waits came
        self._output_at: Optional[int] = None  # when the output that waits should go at the latest
        self._told = False  # something that waits for nothing: a drain, a farewell
        self._sent_at = now
        self._seq = 0
        self.under_way: Optional[Report] = None
        self.usage: Optional[Dict[str, Any]] = None  # newest, and not told yet; a newer one takes its place
        self.cache = CacheTale()  # goes with the next report, whenever that is
        self.progress = ProgressTale(now)

    # ------------------------------------------------------------ in

    def start(self, job: str, epoch: int, started_ms: int, now: int) -> None:
        self._queue.append(Start(job, epoch, started_ms))
        self._since = now if self._since is None else self._since

    def result(self, result: Result, now: int) -> None:
        self.progress.forget(result["job"], result["epoch"])
        self._queue.append(result)
        self._results += 1
        self._since = now if self._since is None else self._since

    def output(self, job: str, epoch: int, offset: int, data: bytes, now: int) -> None:
        """Beyond what memory may hold it goes to the spool; what the spool cannot keep is lost: it is counted
        there, and a note takes its place."""
        if self._memory + len(data) <= MEMORY:
            self._memory += len(data)
            self._queue.append(Piece(job, epoch, offset, data))
        else:
            at = self._spool.put(data)
            if at is None:
                self._miss(job, epoch, offset, len(data))
            else:
                self._queue.append(Piece(job, epoch, offset, b"", at, len(data)))
        until = now if self._memory >= FULL else now + LOG_LINGER_MS
        self._output_at = until if self._output_at is None else min(until, self._output_at)

    def _miss(self, job: str, epoch: int, offset: int, length: int) -> None:
        gap = self._gaps.get((job, epoch))
        if gap is not None and gap.offset + gap.length == offset:
            gap.length += length
        else:
            gap = self._gaps[job, epoch] = Gap(job, epoch, offset, length)
            self._queue.append(gap)

    def tell(self) -> None:
        """The next report goes at once."""
        self._told = True

    # ------------------------------------------------------------ out

    @property
    def empty(self) -> bool:
        """Nothing is owed; a heartbeat that is under way does not count."""
        under_way = self.under_way or {}
        return not self._queue and not any(under_way.get(name) for name in ("started", "results", "logs"))

    @property
    def reports(self) -> int:
        """How many were made."""
        return self._seq

    @property
    def lost(self) -> int:
        """Bytes of output that could not be kept."""
        return self._spool.lost

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def due_at(self, held: int) -> int:
        """When the next report should go. `held` are the attempts here that have not started: as soon as as many have
        ended as are left, the hub should hear of it, so that the next ones come before a slot stands idle."""
        if self._told or (self._results and self._results >= held):
            return 0
        due = self._sent_at + self._heartbeat_ms
        if self._since is not None:
            due = min(due, self._since + (LINGER_MS if held else SHORT_LINGER_MS))
        progress_at = self.progress.due_at
        if progress_at is not None:
            due = min(due, progress_at)
        return due if self._output_at is None else min(due, self._output_at)

    def take(self, now: int, running: int, draining: bool, leaving: str = "") -> Report:
        """The next report; it is under way until `acknowledged`. `leaving` is only said when nothing else is left."""
        if self.under_way is not None:
            raise RuntimeError("one report at a time")
        started: List[List[Any]] = []
        results: List[Result] = []
        logs: List[Piece] = []
        size = 0
        while self._queue and len(started) + len(results) < REPORT_ENTRIES and size < REPORT_BYTES:
            entry = self._queue.popleft()
            if isinstance(entry, Piece):
                piece = self._in_memory(entry)
                size += len(piece.data)
                logs.append(piece)
            elif isinstance(entry, Gap):
                self._gaps.pop((entry.job, entry.epoch), None)
                logs.append(entry.as_piece())
            elif isinstance(entry, Start):
                started.append(list(entry))
            else:
                results.append(entry)
                size += _of_files(entry)
        self._results -= len(results)
        self._seq += 1
        report: Report = {"session": self._session, "seq": self._seq, "running": running, "draining": draining}
        if started:
            report["started"] = started
        if results:
            report["results"] = results
        if logs:
            report["logs"] = _chunks(logs)
        if self.usage is not None:
            report["usage"], self.usage = self.usage, None
        if self.cache.waits:
            report["cache"] = dict(self.cache.take())
        progress = self.progress.take(now)
        if progress:
            report["progress"] = progress
        if leaving and not self._queue:
            report["leaving"] = leaving
        self.under_way = report
        self._sent_at = now
        self._told = False
        self._since = None
        self._output_at = now if self._queue else None
        return report

    def _in_memory(self, piece: Piece) -> Piece:
        if piece.spooled is None:
            self._memory -= len(piece.data)
            return piece
        data = self._spool.fetch(piece.spooled, piece.length)
        if not data:
            return Gap(piece.job, piece.epoch, piece.offset, piece.length).as_piece()
        return piece._replace(data=data, spooled=None)

    def acknowledged(self) -> Report:
        report, self.under_way = self.under_way, None
        return report or {}

    def without_output(self) -> bool:
        """The hub refuses the report as it is (too large, malformed): the same without output, because results matter
        more. False when it has none, or nothing is under way."""
        if self.under_way is None or not self.under_way.get("logs"):
            return False
        del self.under_way["logs"]
        return True


def _of_files(result: Result) -> int:
    """Bytes that tell what it has kept."""
    files = result.get("files")
    if not files:
        return 0
    from worker.files import told_bytes

    return sum(told_bytes(file["path"], file["at"]) for file in files)


def _chunks(pieces: List[Piece]) -> List[LogChunk]:
    """Pieces that continue each other become one chunk; text stays text."""
    joined: Dict[Tuple[str, int], List[Tuple[int, List[bytes], int]]] = {}  # → (offset, parts, end)
    for piece in pieces:
        runs = joined.setdefault((piece.job, piece.epoch), [])
        end = piece.offset + len(piece.data)
        if runs and runs[-1][2] == piece.offset:
            offset, parts, _ = runs[-1]
            parts.append(piece.data)
            runs[-1] = (offset, parts, end)
        elif piece.data:
            runs.append((piece.offset, [piece.data], end))
    return [
        _chunk(job, epoch, offset, b"".join(parts))
        for (job, epoch), runs in joined.items()
        for offset, parts, _ in runs
    ]


def _chunk(job: str, epoch: int, offset: int, data: bytes) -> LogChunk:
    chunk: LogChunk = {"job": job, "epoch": epoch, "offset": offset}
    try:
        chunk["text"] = data.decode()
    except UnicodeDecodeError:
        chunk["b64"] = binascii.b2a_base64(data, newline=False).decode()
    return chunk
