"""Whose blobs are here, and which jobs need them. The bytes are `hub/blobs/folder.py`'s.

Each function takes the writer's connection (or, to look, a reader's) and is part of the commit around it. `refs` counts
the rows of `blob_refs`; while it is 0, `unused_ms` says since when.
"""

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, update

from worker_manager.hub.contract import Removed
from worker_manager.hub.store.tables import blob_refs, blobs

AT_ONCE = 500  # values in one statement

_SIZE = select(blobs.c.size).where(blobs.c.sha256 == bindparam("digest"), blobs.c.owner == bindparam("whose"))
_ANYONES = select(blobs.c.sha256).where(blobs.c.sha256 == bindparam("digest")).limit(1)
_THIS = (blobs.c.sha256 == bindparam("digest"), blobs.c.owner == bindparam("whose"))
_RENEW = update(blobs).where(*_THIS, blobs.c.unused_ms.is_not(None)).values(unused_ms=bindparam("at"))
_LEFT = blobs.c.refs - bindparam("by")
_RELEASED = update(blobs).where(*_THIS).values(refs=_LEFT, unused_ms=case((_LEFT <= 0, bindparam("at")), else_=None))
_REFERRED = update(blobs).where(*_THIS).values(refs=blobs.c.refs + 1, unused_ms=None)
_UNUSED = (
    select(blobs.c.sha256, blobs.c.owner, blobs.c.size)
    .where(blobs.c.unused_ms.is_not(None), blobs.c.unused_ms < bindparam("before"))
    .order_by(blobs.c.unused_ms)
    .limit(bindparam("most"))
)
_SINCE = (blobs.c.unused_ms.is_not(None), blobs.c.unused_ms < bindparam("before"))
_OLD = select(blobs.c.sha256).where(*_THIS, *_SINCE)
_REMOVE = delete(blobs).where(*_THIS, *_SINCE)


def find(connection: Connection, owner: str, sha256: str) -> int | None:
    """Its size, if this owner has it."""
    size = connection.execute(_SIZE, {"digest": sha256, "whose": owner}).scalar()
    return None if size is None else int(size)


def add(connection: Connection, now: int, owner: str, sha256: str, size: int) -> bool:
    """Whether nobody had these bytes before. One that is there already is kept for longer."""
    these = {"digest": sha256, "whose": owner}
    if connection.execute(_SIZE, these).scalar() is not None:
        connection.execute(_RENEW, {**these, "at": now})
        return False
    new = connection.execute(_ANYONES, {"digest": sha256}).scalar() is None
    connection.execute(insert(blobs), {"sha256": sha256, "owner": owner, "size": size, "refs": 0, "unused_ms": now})
    return new


def renew(connection: Connection, now: int, owner: str, sha256: str) -> None:
    """Somebody has asked for it, and may be about to submit a job that needs it."""
    connection.execute(_RENEW, {"digest": sha256, "whose": owner, "at": now})


def refer(connection: Connection, owner: str, number: int, idx: int, digests: Collection[str]) -> list[str]:
    """The job needs these for as long as it is there. Returns those that the owner has not, which is for the caller to
    judge. Safe to repeat."""
    wanted = sorted(set(digests))
    there = set(_owned(connection, owner, wanted))
    held = {
        digest
        for part in _parts(wanted)
        for digest in connection.execute(
            select(blob_refs.c.sha256).where(
                blob_refs.c.id == number, blob_refs.c.idx == idx, blob_refs.c.sha256.in_(part)
            )
        ).scalars()
    }
    new = [digest for digest in wanted if digest in there and digest not in held]
    if new:
        connection.execute(
            insert(blob_refs), [{"id": number, "idx": idx, "sha256": digest, "owner": owner} for digest in new]
        )
        connection.execute(_REFERRED, [{"digest": digest, "whose": owner} for digest in new])
    return [digest for digest in wanted if digest not in there]


def release(connection: Connection, now: int, number: int, tasks: Sequence[int]) -> None:
    """These rows of a job go: what only they needed is unused from now on."""
    mine = (blob_refs.c.id == number, blob_refs.c.idx.in_(tasks))
    held = connection.execute(
        select(blob_refs.c.sha256, blob_refs.c.owner, func.count())
        .where(*mine)
        .group_by(blob_refs.c.sha256, blob_refs.c.owner)
    ).all()
    if held:
        connection.execute(_RELEASED, [{"digest": row[0], "whose": row[1], "by": row[2], "at": now} for row in held])
        connection.execute(delete(blob_refs).where(*mine))


def is_unused(connection: Connection, owner: str, sha256: str, before: int) -> bool:
    """No job has needed it since before then."""
    return connection.execute(_OLD, {"digest": sha256, "whose": owner, "before": before}).scalar() is not None


def unused(connection: Connection, before: int, limit: int) -> list[tuple[str, str, int]]:
    """[(sha256, owner, size)] that no job has needed since before then, the longest unused first."""
    found = connection.execute(_UNUSED, {"before": before, "most": limit})
    return [(row.sha256, row.owner, row.size) for row in found]


def remove(connection: Connection, owner: str, sha256: str, before: int) -> Removed:
    """Only if it is still unused since before then."""
    if not connection.execute(_REMOVE, {"digest": sha256, "whose": owner, "before": before}).rowcount:
        return Removed.NO
    others = connection.execute(_ANYONES, {"digest": sha256}).scalar() is not None
    return Removed.ROW if others else Removed.LAST


def totals(connection: Connection) -> tuple[int, int]:
    """(blobs, bytes), those of several owners counted once."""
    each = select(func.max(blobs.c.size).label("size")).group_by(blobs.c.sha256).subquery()
    count, size = connection.execute(select(func.count(), func.coalesce(func.sum(each.c.size), 0))).one()
    return int(count), int(size)


def known(connection: Connection, digests: Sequence[str]) -> set[str]:
    """Those that anybody owns."""
    return {
        digest
        for part in _parts(digests)
        for digest in connection.execute(select(blobs.c.sha256).where(blobs.c.sha256.in_(part)).distinct()).scalars()
    }


def _owned(connection: Connection, owner: str, digests: Sequence[str]) -> Iterator[str]:
    for part in _parts(digests):
        query = select(blobs.c.sha256).where(blobs.c.owner == owner, blobs.c.sha256.in_(part))
        yield from connection.execute(query).scalars()


def _parts(values: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), AT_ONCE):
        yield list(values[start : start + AT_ONCE])
