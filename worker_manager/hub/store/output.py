"""Where the bytes of attempts' output lie in the segment files."""

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select, update

from worker_manager.hub.contract import LogPiece, job_topic
from worker_manager.hub.refusals import NotFound
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.tables import attempts, jobs, log_chunks, segments
from worker_manager.hub.store.values import job_id, parse_job_id

_NEWEST_SEGMENT = (
    update(segments)
    .where(segments.c.segment == bindparam("of_segment"))
    .values(chunks=segments.c.chunks + bindparam("by"), newest_ms=bindparam("now"))
)


def index_output(moves: Moves, worker: str, logs: Sequence[LogPiece], mine: set[tuple[int, int, int]]) -> None:
    """Only called for a report that is taken for the first time. Output of attempts that were never this worker's is
    passed over."""
    rows = []
    by_segment: dict[str, int] = {}
    for piece in logs:
        try:
            number, idx = parse_job_id(piece.job)
        except NotFound:
            continue  # nobody's; and no reason to lose what else the report says
        attempt = (number, idx, piece.epoch)
        if attempt not in mine:
            if not _was_its(moves, worker, attempt):
                continue
            mine.add(attempt)
        rows.append(
            {
                "id": number,
                "idx": idx,
                "epoch": piece.epoch,
                "offset": piece.offset,
                "length": piece.length,
                "segment": piece.segment,
                "segment_offset": piece.segment_offset,
            }
        )
        by_segment[piece.segment] = by_segment.get(piece.segment, 0) + 1
        moves.batch.topics.add(job_topic(job_id(number, idx)))
    if rows:
        moves.connection.execute(insert(log_chunks).prefix_with("OR REPLACE", dialect="sqlite"), rows)
    for segment, count in by_segment.items():
        _count_chunks(moves, segment, count)


def _was_its(moves: Moves, worker: str, attempt: tuple[int, int, int]) -> bool:
    number, idx, epoch = attempt
    newest = select(jobs.c.id).where(
        jobs.c.id == number, jobs.c.idx == idx, jobs.c.epoch == epoch, jobs.c.worker == worker
    )
    earlier = select(attempts.c.id).where(
        attempts.c.id == number, attempts.c.idx == idx, attempts.c.epoch == epoch, attempts.c.worker == worker
    )
    return moves.connection.execute(newest.union(earlier)).first() is not None


def _count_chunks(moves: Moves, segment: str, count: int) -> None:
    now = moves.batch.now
    done = moves.connection.execute(_NEWEST_SEGMENT, {"of_segment": segment, "by": count, "now": now})
    if not done.rowcount:
        moves.connection.execute(insert(segments), {"segment": segment, "chunks": count, "newest_ms": now})
