"""What new jobs take from other jobs: named by number, checked to be there and their owner's."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from worker_manager.hub.contract import NewJob
from worker_manager.hub.files.names import Source, read_source
from worker_manager.hub.refusals import Invalid
from worker_manager.hub.store import blobs
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.tables import WHOLE
from worker_manager.hub.store.values import job_id, parse_job_id

Known = Mapping[int, tuple[str, str, int | None]]  # job → state, owner, tasks


def check_jobs_of_inputs(owner: str, new: Sequence[NewJob], first: int, known: Known) -> None:
    """Raises Invalid: no such job of this owner, or no such task."""
    for i, job in enumerate(new):
        for n, source in _jobs_among(job):
            where = f"jobs[{i}].inputs[{n}].source"
            number, idx = parse_job_id(_named(source, first))
            if number >= first:
                tasks = new[number - first].array if number - first < i else _refuse(where, source, "no earlier job")
            elif number in known and known[number][1] == owner:
                tasks = known[number][2]
            else:
                _refuse(where, source, "there is no such job of yours")
            if idx != WHOLE and idx >= (tasks or 0):
                _refuse(where, source, "there is no such task")


def _refuse(where: str, source: Source, what: str) -> NoReturn:
    raise Invalid(f"{where}: job:{source.where}/…: {what}", errors=[(where, what)])


def refer_blobs(moves: Moves, owner: str, new: Sequence[NewJob], first: int) -> None:
    """Blobs that new jobs take are kept for them. Raises Invalid for one that this owner has not sent."""
    for i, job in enumerate(new):
        inputs = job.work.get("inputs", ())
        found = {each["source"][5:]: n for n, each in enumerate(inputs) if each["source"].startswith("blob:")}
        if not found:
            continue
        for digest in blobs.refer(moves.connection, owner, first + i, WHOLE, found.keys()):
            where = f"jobs[{i}].inputs[{found[digest]}].source"
            what = f"the hub has no blob:{digest} of yours: send it first (PATCH /v1/blobs/{digest}, or submit --input)"
            raise Invalid(f"{where}: {what}", errors=[(where, what)])


def with_numbers(work: Mapping[str, Any], first: int) -> Mapping[str, Any]:
    """`job:#0/path` with the number that #0 has got."""
    inputs = work.get("inputs", ())
    if not any(each["source"].startswith("job:#") for each in inputs):
        return work
    return {**work, "inputs": [{**each, "source": _with_number(each["source"], first)} for each in inputs]}


def _with_number(text: str, first: int) -> str:
    if not text.startswith("job:#"):
        return text
    source = read_source(text)
    return f"job:{_named(source, first)}/{source.key}"


def _named(source: Source, first: int) -> str:
    job, dash, task = source.where.partition("-")
    return (job_id(first + int(job[1:])) if job.startswith("#") else job) + dash + task


def _jobs_among(job: NewJob) -> list[tuple[int, Source]]:
    inputs = job.work.get("inputs", ())
    return [(n, read_source(each["source"])) for n, each in enumerate(inputs) if each["source"].startswith("job:")]
