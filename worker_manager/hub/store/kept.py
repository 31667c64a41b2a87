"""What attempts have kept of their directories: told with their results, read by people and by jobs that take it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from worker.protocol import JobState
from worker_manager.hub.contract import HeldAttempt, KeptFile, Wire
from worker_manager.hub.files.types import HUB, JOB
from worker_manager.hub.refusals import Conflict, Invalid, NotFound
from worker_manager.hub.store import blobs
from worker_manager.hub.store.moves import JobRow, Moves
from worker_manager.hub.store.tables import ON_WORKER_SQL, WHOLE, job_files, jobs
from worker_manager.hub.store.values import job_id, parse_job_id

_SPEC = select(jobs.c.spec).where(jobs.c.id == bindparam("job"), jobs.c.idx == bindparam("task"))
_ROW = select(jobs.c.owner, jobs.c.state, jobs.c.epoch, jobs.c.tasks).where(
    jobs.c.id == bindparam("job"), jobs.c.idx == bindparam("task")
)
_MINE = (
    job_files.c.id == bindparam("job"),
    job_files.c.idx == bindparam("task"),
    job_files.c.epoch == bindparam("attempt"),
)
_LISTED = select(job_files).where(*_MINE).order_by(job_files.c.n)
_ONE = select(job_files).where(*_MINE, job_files.c.path == bindparam("at_path"))
_TOTAL = select(func.count(), func.coalesce(func.sum(job_files.c.size), 0)).where(*_MINE)
_OF_TASKS = (
    select(job_files)
    .join(jobs, (jobs.c.id == job_files.c.id) & (jobs.c.idx == job_files.c.idx) & (jobs.c.epoch == job_files.c.epoch))
    .where(job_files.c.id == bindparam("job"), job_files.c.idx != WHOLE)
    .order_by(job_files.c.idx, job_files.c.n)
)
_HELD = select(jobs.c.owner, jobs.c.worker, jobs.c.epoch).where(
    jobs.c.id == bindparam("job"), jobs.c.idx == bindparam("task"), ON_WORKER_SQL
)


# ---------------------------------------------------------------- with a result


def keep(moves: Moves, row: JobRow, told: Sequence[Mapping[str, Any]]) -> None:
    """Checked for its form already. What the hub does not have, or what lies where this job keeps nothing, is left out
    and said: a result is not lost for it."""
    found = {str(one["path"]): one for one in told}
    name = job_id(row.id, row.idx)
    places = _places(_work(moves.connection, row.id, row.idx), name)
    here = {str(one["sha256"]) for one in found.values() if _lies_in_the_hub(one) and HUB in places}
    lost = set(blobs.refer(moves.connection, row.owner, row.id, row.idx, here))
    known = here - lost
    kept = [path for path in sorted(found) if _is_there(found[path], known, places)]
    if kept:
        attempt = {"id": row.id, "idx": row.idx, "epoch": row.epoch}
        moves.connection.execute(
            insert(job_files), [{**attempt, "n": n, **_columns(found[path])} for n, path in enumerate(kept)]
        )
    if len(kept) < len(found):
        left_out = next(path for path in sorted(found) if path not in set(kept))
        moves.event("job.files-left-out", name, files=len(found) - len(kept), first=left_out[:200])


def _columns(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("path", "size", "sha256", "at")}


def _lies_in_the_hub(one: Mapping[str, Any]) -> bool:
    return bool(one["at"] == f"blob:{one['sha256']}")


def _is_there(one: Mapping[str, Any], known: set[str], places: set[str]) -> bool:
    if _lies_in_the_hub(one):
        return one["sha256"] in known
    return any(one["at"] == place + one["path"] for place in places)


def _places(work: Mapping[str, Any], name: str) -> set[str]:
    return {each["to"].replace(JOB, name) for each in work.get("outputs", ())}


def _work(connection: Connection, number: int, idx: int) -> Mapping[str, Any]:
    spec = connection.execute(_SPEC, {"job": number, "task": idx}).scalar()
    if spec is None:
        spec = connection.execute(_SPEC, {"job": number, "task": WHOLE}).scalar()
    work: Mapping[str, Any] = json.loads(spec or "{}").get("work", {})
    return work


def count(connection: Connection, number: int, tasks: Sequence[int]) -> dict[int, int]:
    """Task → how many files it has kept, in all attempts; only of those that have."""
    these = (job_files.c.id == number, job_files.c.idx.in_(tasks))
    counted = select(job_files.c.idx, func.count()).where(*these).group_by(job_files.c.idx)
    return {row[0]: row[1] for row in connection.execute(counted)}


def forget(connection: Connection, number: int, tasks: Sequence[int]) -> None:
    """Retention takes these rows of a job."""
    connection.execute(delete(job_files).where(job_files.c.id == number, job_files.c.idx.in_(tasks)))


# ---------------------------------------------------------------- for people


def list_files(connection: Connection, job: str, attempt: int | None, limit: int, cursor: str | None) -> Wire:
    number, idx, epoch = _attempt(connection, job, attempt)
    mine = {"job": number, "task": idx, "attempt": epoch}
    after = _position(cursor)
    rows = connection.execute(_LISTED.where(job_files.c.n > after).limit(limit + 1), mine).all()
    count, size = connection.execute(_TOTAL, mine).one()
    return {
        "job": job_id(number, idx),
        "attempt": epoch,
        "count": int(count),
        "size": int(size),
        "files": [{name: getattr(row, name) for name in ("path", "size", "sha256", "at")} for row in rows[:limit]],
        "next": str(rows[limit - 1].n) if len(rows) > limit else None,
    }


def totals(connection: Connection, number: int, idx: int, epoch: int) -> Wire | None:
    """{count, size} of what an attempt kept; None where it kept nothing."""
    count, size = connection.execute(_TOTAL, {"job": number, "task": idx, "attempt": epoch}).one()
    return {"count": int(count), "size": int(size)} if count else None


def one_file(connection: Connection, job: str, attempt: int | None, path: str) -> KeptFile | None:
    number, idx, epoch = _attempt(connection, job, attempt)
    asked = {"job": number, "task": idx, "attempt": epoch, "at_path": path}
    row = connection.execute(_ONE, asked).first()
    return None if row is None else KeptFile(row.path, row.size, row.sha256, row.at)


def _attempt(connection: Connection, job: str, attempt: int | None) -> tuple[int, int, int]:
    """The one that is asked for, else the newest that has ended."""
    number, idx = parse_job_id(job)
    row = connection.execute(_ROW, {"job": number, "task": idx}).first()
    if row is None:
        raise NotFound(f"there is no job {job}, or it is a task that has not begun")
    if attempt is not None:
        return number, idx, attempt
    under_way = row.state in (JobState.ASSIGNED, JobState.RUNNING) and row.epoch > 1
    return number, idx, row.epoch - under_way


def _position(cursor: str | None) -> int:
    if cursor is None:
        return -1
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise Invalid("this cursor was not given by this hub", errors=[("cursor", "unreadable")])
    return int(cursor)


# ---------------------------------------------------------------- for other jobs and for workers


def taken_from(connection: Connection, owner: str, job: str, path: str, most: int) -> list[KeptFile]:
    """What a job of this owner has kept under that path: the file, or all below a folder (below everything when the
    path is empty), relative to it; empty where there is none. Of an array what each of its tasks has kept there, in
    folders with the tasks' numbers. At most so many. Raises NotFound."""
    number, idx = parse_job_id(job)
    row = connection.execute(_ROW, {"job": number, "task": idx}).first()
    if row is None or row.owner != owner:
        raise NotFound(f"there is no job {job} any more")
    if row.tasks:
        return list(_of_all_tasks(connection, number, path, most))
    mine = {"job": number, "task": idx, "attempt": row.epoch}
    if path and not path.endswith("/"):
        found = connection.execute(_ONE, {**mine, "at_path": path}).first()
        if found is not None:
            return [KeptFile("", found.size, found.sha256, found.at)]
    folder = _folder(path)
    rows = connection.execute(_LISTED.where(_lies_below(folder)).limit(most), mine)
    return [KeptFile(row.path[len(folder) :], row.size, row.sha256, row.at) for row in rows]


def _of_all_tasks(connection: Connection, number: int, path: str, most: int) -> Iterator[KeptFile]:
    folder, name = _folder(path), path.rpartition("/")[2]
    wanted = _lies_below(folder) | (job_files.c.path == path)
    for row in connection.execute(_OF_TASKS.where(wanted).limit(most), {"job": number}):
        below = name if row.path == path else row.path[len(folder) :]
        yield KeptFile(f"{row.idx}/{below}", row.size, row.sha256, row.at)


def _folder(path: str) -> str:
    return path.rstrip("/") + "/" if path else ""


def _lies_below(folder: str) -> Any:
    return func.substr(job_files.c.path, 1, len(folder)) == folder


def held(connection: Connection, worker: str, job: str, epoch: int) -> HeldAttempt:
    """Raises Conflict: the attempt is not this worker's, or not any more."""
    number, idx = parse_job_id(job)
    row = connection.execute(_HELD, {"job": number, "task": idx}).first()
    if row is None or row.worker != worker or row.epoch != epoch:
        raise Conflict(f"attempt {epoch} of {job} is not {worker}'s", code="attempt-not-held")
    return HeldAttempt(job_id(number, idx), row.owner, _work(connection, number, idx))
