"""Workers as operators see them: look, drain, end."""

from typing import Any

from starlette.responses import Response

from worker_manager.hub import replies
from worker_manager.hub.endpoint import Call, Endpoint
from worker_manager.hub.problems import not_found
from worker_manager.hub.services import reply
from worker_manager.hub.types import AskLogs, DeleteQuery, DrainWorker, NoQuery, Reasoned
from worker_manager.hub.wirecheck import is_label


async def list_workers(call: Call[NoQuery, None]) -> Response:
    """Those that have registered, and beside them those that were launched and have not."""
    store = call.hub.store
    workers = await call.hub.read(store.list_workers)
    for worker in workers:
        worker["cache"] = store.inventory.of_worker(worker["id"])
    return reply({"workers": workers, "awaited": await call.hub.read(store.awaited_workers)})


async def get_worker(call: Call[NoQuery, None]) -> Response:
    hub = call.hub
    worker = await hub.read(hub.store.get_worker, worker_id(call))
    usage = hub.usage.of_worker(worker["id"], hub.clock.now_ms())
    return reply({**worker, "usage": usage, "cache": hub.store.inventory.of_worker(worker["id"])})


async def drain(call: Call[NoQuery, DrainWorker]) -> Response:
    body = call.body
    future = call.hub.store.drain_worker(worker_id(call), call.access.owner, body.reason, body.deadline_ms)
    return reply(await call.hub.write(future), 202)


async def undrain(call: Call[NoQuery, Reasoned]) -> Response:
    return reply(await call.hub.write(call.hub.store.undrain_worker(worker_id(call), call.access.owner)), 202)


async def delete(call: Call[DeleteQuery, None]) -> Response:
    query, store = call.query, call.hub.store
    grace = 60_000 if query.grace_ms is None else query.grace_ms
    future = store.delete_worker(worker_id(call), query.force, grace, call.access.owner)
    return reply(await call.hub.write(future), 202)


async def logs(call: Call[NoQuery, AskLogs]) -> Response:
    future = call.hub.store.ask_logs(worker_id(call), call.body.max_bytes, call.access.owner)
    return reply(await call.hub.write(future), 202)


def worker_id(call: Call[Any, Any]) -> str:
    name = call.path["worker"]
    if not is_label(name):
        raise not_found("worker", name[:64])
    return name


ENDPOINTS = (
    Endpoint("GET", "/v1/workers", ("read", "manager"), list_workers, "All workers", reply=replies.Workers),
    Endpoint("GET", "/v1/workers/{worker}", ("read", "manager"), get_worker, "One worker", reply=replies.Worker),
    Endpoint(
        "POST",
        "/v1/workers/{worker}/drain",
        ("operator",),
        drain,
        "It takes no more jobs and exits when it has none",
        body=DrainWorker,
        reply=replies.Worker,
        status=202,
    ),
    Endpoint(
        "POST",
        "/v1/workers/{worker}/undrain",
        ("operator",),
        undrain,
        "It takes jobs again",
        body=Reasoned,
        reply=replies.Worker,
        status=202,
    ),
    Endpoint(
        "POST",
        "/v1/workers/{worker}/logs",
        ("operator",),
        logs,
        "Its manager reads what it wrote; the command's result has the end of it",
        body=AskLogs,
        reply=replies.CommandGiven,
        status=202,
    ),
    Endpoint(
        "DELETE",
        "/v1/workers/{worker}",
        ("operator",),
        delete,
        "End it; with `force` its jobs go back to the queue at once",
        query=DeleteQuery,
        reply=replies.CommandGiven,
        status=202,
    ),
)
