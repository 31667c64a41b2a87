"""Jobs: submit, list, look at, cancel, read and follow their output, ask why they wait."""

import hashlib
import re
import secrets
from collections.abc import Iterator
from typing import Any

from starlette.responses import Response

from worker_manager.hub import replies
from worker_manager.hub.contract import Dependency, JobFilter, NewJob, job_topic
from worker_manager.hub.endpoint import Call, Endpoint
from worker_manager.hub.files.names import Storages
from worker_manager.hub.files.types import jobs_asked, storages_asked
from worker_manager.hub.logreader import read_output
from worker_manager.hub.problems import bad_request, invalid, not_found
from worker_manager.hub.services import reply
from worker_manager.hub.types import CancelJobs, JobSpec, JobsQuery, LogsQuery, NoQuery, Nothing, Submit

_JOB_ID = re.compile(r"j[0-9]{1,18}(-[0-9]{1,7})?")
_KEY = re.compile(r"[\x21-\x7e]{1,200}")

READERS = ("read", "submit", "manager")
MAX_SUBMIT = 64 * 2**20
MOST_MISTAKES = 100


async def submit(call: Call[NoQuery, Submit]) -> Response:
    key = call.headers.get(b"idempotency-key")
    digest = ""
    if key is not None:
        if not _KEY.fullmatch(key.decode("latin-1")):
            raise bad_request("idempotency-key-refused", "Idempotency-Key: 1 to 200 printable ASCII characters")
        digest = hashlib.sha256(call.raw_body).hexdigest()
    jobs = await call.hub.read(_new_jobs, call.body, call.access.owner, call.hub.storages.named)
    name = key.decode() if key is not None else None
    made = await call.hub.write(call.hub.store.submit_jobs(call.access.owner, jobs, name, digest))
    return reply({"jobs": made}, 201)


def _new_jobs(body: Submit, owner: str, storages: Storages) -> list[NewJob]:
    wrong = [
        {"where": f"jobs[{number}].{where}", "what": storages.refusal(source, owner)}
        for number, spec in enumerate(body.jobs)
        for where, source in storages_asked(spec.inputs, spec.outputs)
        if not storages.cover(source, owner)
    ]
    if wrong:
        raise invalid(wrong[:MOST_MISTAKES])
    return [_new_job(spec) for spec in body.jobs]


def _new_job(spec: JobSpec) -> NewJob:
    return NewJob(
        command=tuple(spec.command),
        shape=spec.asks,
        name=spec.name,
        env=spec.env,
        queue=spec.queue,
        priority=spec.priority,
        grace_ms=spec.term_grace,
        retries=spec.retries,
        depends_on=tuple(_dependencies(spec)),
        array=spec.array.count if spec.array else None,
        output_limit=spec.output_limit,
        work=_work(spec),
    )


def _dependencies(spec: JobSpec) -> Iterator[Dependency]:
    yield from (Dependency(each.job, each.needs) for each in spec.depends_on)
    for where, source in jobs_asked(spec.inputs):
        yield Dependency(source.job, "success", where)


def _work(spec: JobSpec) -> dict[str, Any]:
    """With a name for its folder that no job of another hub has, where workers of several share a disk."""
    work = spec.work
    if spec.checkpoint is not None and spec.checkpoint.dir:
        work["checkpoint"]["key"] = secrets.token_hex(8)
    return work


async def list_jobs(call: Call[JobsQuery, None]) -> Response:
    query = call.query
    owner = query.owner if call.sees_all else call.access.owner
    if not call.sees_all and query.owner not in (None, owner):
        return reply({"jobs": [], "next": None})
    wanted = JobFilter(
        state=query.state,
        owner=owner,
        queue=query.queue,
        name=query.name,
        array=query.array,
        worker=query.worker,
        limit=query.limit,
        cursor=query.cursor,
    )
    jobs, following = await call.hub.read(call.hub.store.list_jobs, wanted)
    return reply({"jobs": [as_it_is_now(call, job) for job in jobs], "next": following})


async def get_job(call: Call[NoQuery, None]) -> Response:
    return reply(as_it_is_now(call, await visible_job(call)))


def as_it_is_now(call: Call[Any, Any], job: dict[str, Any]) -> dict[str, Any]:
    """With what it uses and how far it is, if a worker has it and told."""
    hub = call.hub
    return {**job, "usage": hub.usage.of_job(job, hub.clock.now_ms()), "progress": hub.progress.of_job(job)}


async def visible_job(call: Call[Any, Any]) -> dict[str, Any]:
    """The job that the path names, as far as the caller may see it: another's is not there."""
    name = job_id(call)
    job = await call.hub.read(call.hub.store.get_job, name)
    if not call.sees_all and job["owner"] != call.access.owner:
        raise not_found("job", name)
    return job


def job_id(call: Call[Any, Any]) -> str:
    name = call.path["job"]
    if not _JOB_ID.fullmatch(name):
        raise not_found("job", name[:64])
    return name


async def cancel(call: Call[NoQuery, Nothing]) -> Response:
    future = call.hub.store.cancel_job(job_id(call), _whose(call), call.access.owner)
    changed, job = await call.hub.write(future)
    return reply(job, 202 if changed else 200)


async def cancel_many(call: Call[NoQuery, CancelJobs]) -> Response:
    wrong = [name for name in call.body.jobs if not _JOB_ID.fullmatch(name)]
    if wrong:
        raise invalid([{"where": "jobs", "what": f"{wrong[0]!r} is no job's id"}])
    future = call.hub.store.cancel_jobs(call.body.jobs, _whose(call), call.access.owner)
    return reply({"jobs": await call.hub.write(future)})


def _whose(call: Call[Any, Any]) -> str | None:
    """Whose jobs may be cancelled; None: everyone's."""
    return None if "operator" in call.access.scopes else call.access.owner


async def explain(call: Call[NoQuery, None]) -> Response:
    if not call.sees_all:
        await visible_job(call)
    return reply(await call.hub.read(call.hub.store.explain_job, job_id(call)))


async def logs(call: Call[LogsQuery, None]) -> Response:
    """Raw bytes. Where output was purged or cut the answer begins later than asked: `X-Offset` says where."""
    job = job_id(call)
    if not call.sees_all:
        await visible_job(call)
    hub, query = call.hub, call.query
    with hub.waiters.listen((job_topic(job),), query.wait_ms / 1000) as waiter:
        while True:
            found = await hub.read(read_output, hub.store, hub.logs.folder, job, query)
            if found.data or found.complete or query.wait_ms == 0:
                break
            with hub.gate.parked():
                if not await waiter.woken():
                    break
    headers = {
        "X-Attempt": str(found.epoch),
        "X-Offset": str(found.offset),
        "X-Next-Offset": str(found.offset + len(found.data)),
        "X-Complete": "true" if found.complete else "false",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(found.data, headers=headers, media_type="application/octet-stream")


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/jobs",
        ("submit",),
        submit,
        "Submit jobs, all or none, in one commit. `Idempotency-Key`: the same key and body, the same answer",
        body=Submit,
        reply=replies.Submitted,
        status=201,
        max_body=MAX_SUBMIT,
    ),
    Endpoint("GET", "/v1/jobs", READERS, list_jobs, "Jobs, newest first", query=JobsQuery, reply=replies.Jobs),
    Endpoint(
        "POST",
        "/v1/jobs/cancel",
        ("submit",),
        cancel_many,
        "Cancel many in one commit; each answer says its state, or why not",
        body=CancelJobs,
        reply=replies.CancelledJobs,
    ),
    Endpoint("GET", "/v1/jobs/{job}", READERS, get_job, "One job with its attempts", reply=replies.Job),
    Endpoint(
        "POST",
        "/v1/jobs/{job}/cancel",
        ("submit",),
        cancel,
        "Cancel; 200 when it had ended already",
        body=Nothing,
        reply=replies.Job,
        status=202,
    ),
    Endpoint(
        "GET",
        "/v1/jobs/{job}/logs",
        READERS,
        logs,
        "The output of an attempt, and what follows",
        query=LogsQuery,
        reply="application/octet-stream",
    ),
    Endpoint("GET", "/v1/jobs/{job}/explain", READERS, explain, "Why it waits", reply=replies.JobExplained),
)
