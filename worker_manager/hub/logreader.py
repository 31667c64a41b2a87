"""An attempt's output, put together from its pieces: overlaps (a report sent again) are read once, gaps are passed
over."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker_manager.hub.contract import HubStore, LogPiece
from worker_manager.hub.logs import LogFolder, Place
from worker_manager.hub.types import LogsQuery


@dataclass(frozen=True, slots=True)
class Output:
    epoch: int
    offset: int  # of the first byte of `data`
    data: bytes
    complete: bool  # the attempt has ended, and nothing follows `data`


def read_output(store: HubStore, folder: LogFolder, job: str, query: LogsQuery) -> Output:
    """Blocks: call it in a thread."""
    offset, attempt = query.offset, query.attempt
    if query.tail is not None:
        whole = store.log_view(job, attempt, 0, 1)
        offset, attempt = max(offset, whole.size - query.tail), whole.epoch
    view = store.log_view(job, attempt, offset)
    at, data = join(view.pieces, folder, offset, query.limit)
    ended = view.complete and at + len(data) >= view.size
    if not data and view.complete and view.pieces and not ended:
        at = min(view.size, _end(view.pieces[-1]))  # all of these pieces are purged: go on behind them
        ended = at >= view.size
    return Output(view.epoch, at, data, ended)


def join(pieces: Sequence[LogPiece], folder: LogFolder, offset: int, limit: int) -> tuple[int, bytes]:
    """(offset of the first byte, bytes without a gap, at most `limit`), the first there is from `offset` on."""
    found: list[bytes] = []
    start = at = offset
    for piece in pieces:
        if _end(piece) <= at:
            continue
        if piece.offset > at:
            if found:
                break  # a gap: the rest is another answer
            start = at = piece.offset
        place = Place(piece.segment, piece.segment_offset, piece.length)
        data = folder.read(place, at - piece.offset, limit - (at - start))
        if not data:
            if found:
                break
            start = at = _end(piece)  # purged
            continue
        found.append(data)
        at += len(data)
        if at - start >= limit or at < _end(piece):
            break
    return (start, b"".join(found)) if found else (offset, b"")


def _end(piece: LogPiece) -> int:
    return piece.offset + piece.length
