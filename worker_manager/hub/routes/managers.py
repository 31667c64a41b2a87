"""What managers ask: the backlog, their workers and commands at once; and what they announce before they act."""

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from worker_manager.hub import replies
from worker_manager.hub.bodies import too_deep
from worker_manager.hub.contract import BACKLOG, Claim, CordonOrder, manager_topic
from worker_manager.hub.endpoint import Call, Endpoint
from worker_manager.hub.problems import invalid, not_found
from worker_manager.hub.services import reply
from worker_manager.hub.types import (
    MIB,
    BacklogQuery,
    Cordons,
    Identities,
    Launches,
    NoQuery,
    Publish,
    Sync,
    Uncordons,
    Workers,
)
from worker_manager.hub.wirecheck import is_label

MAX_DATA_DEPTH = 16


async def backlog(call: Call[BacklogQuery, None]) -> Response:
    seen, store = call.query.version, call.hub.store
    await _until(call, (BACKLOG,), call.query.wait_ms, lambda: seen != store.version())
    return reply(await call.hub.read(store.backlog, None))


async def sync(call: Call[NoQuery, Sync]) -> Response:
    manager, body, store = manager_id(call), call.body, call.hub.store
    seen = body.seen_version

    def has_news() -> bool:
        return seen != store.version() or store.has_commands(manager)

    await _until(call, (BACKLOG, manager_topic(manager)), body.wait_ms, has_news)
    found = await call.hub.read(store.sync, manager, body.pools)
    return reply({**found, "owner": call.access.owner})


async def _until(call: Call[Any, Any], topics: tuple[str, ...], wait_ms: int, has_news: Callable[[], bool]) -> None:
    """News is whatever differs from what was seen: a restored hub may count from below it."""
    with call.hub.waiters.listen(topics, wait_ms / 1000) as waiter:
        while not has_news():
            with call.hub.gate.parked():
                if not await waiter.woken():
                    return


async def publish(call: Call[NoQuery, Publish]) -> Response:
    manager = manager_id(call)
    report = call.body.model_dump(exclude_unset=True)
    for part in ("pools", "verdicts", "decisions"):
        if too_deep(report.get(part, ()), MAX_DATA_DEPTH):
            raise invalid([{"where": part, "what": f"it is nested deeper than {MAX_DATA_DEPTH}"}])
    await call.hub.write(call.hub.store.publish(manager, report))
    return reply({})


async def launches(call: Call[NoQuery, Launches]) -> Response:
    body = call.body
    claim = Claim(
        submission=body.submission,
        pool=body.pool,
        workers=tuple(body.workers),
        token_hashes=tuple(body.token_hashes),
        call_deadline=body.call_deadline,
        covers=tuple(body.covers),
        backlog_version=body.backlog_version,
        owners=tuple(body.owners),
        queues=tuple(body.queues),
        identity=body.identity,
    )
    await call.hub.write(call.hub.store.claim_launch(manager_id(call), claim, call.access.owner))
    return reply({})


async def identities(call: Call[NoQuery, Identities]) -> Response:
    told = await call.hub.write(call.hub.store.identify(manager_id(call), call.body.identities))
    return reply({"identified": told})


async def bury(call: Call[NoQuery, Workers]) -> Response:
    buried = await call.hub.write(call.hub.store.bury(manager_id(call), call.body.workers, call.body.reason))
    return reply({"buried": buried})


async def cordon(call: Call[NoQuery, Cordons]) -> Response:
    orders = [CordonOrder(one.worker, one.only_if_idle, one.reason, one.deadline_ms) for one in call.body.cordons]
    return reply({"cordoned": await call.hub.write(call.hub.store.cordon(manager_id(call), orders))})


async def uncordon(call: Call[NoQuery, Uncordons]) -> Response:
    freed = await call.hub.write(call.hub.store.uncordon(manager_id(call), call.body.workers))
    return reply({"uncordoned": freed})


async def gone(call: Call[NoQuery, Workers]) -> Response:
    await call.hub.write(call.hub.store.declare_gone(manager_id(call), call.body.workers, call.body.reason))
    return reply({})


def manager_id(call: Call[Any, Any]) -> str:
    name = call.path["manager"]
    if not is_label(name):
        raise not_found("manager", name[:64])
    return name


def _managers(name: str, handler: Any, does: str, body: Any, answer: Any, max_body: int = 4 * MIB) -> Endpoint:
    path = f"/v1/managers/{{manager}}/{name}"
    return Endpoint("POST", path, ("manager",), handler, does, body=body, reply=answer, max_body=max_body)


ENDPOINTS = (
    _managers("sync", sync, "Backlog, workers and commands; waits until something is new", Sync, replies.Synced),
    _managers("publish", publish, "Plans, verdicts, decisions, results", Publish, replies.Empty, 32 * MIB),
    _managers("launches", launches, "Announce a launch before the backend is called", Launches, replies.Empty),
    _managers(
        "identities",
        identities,
        "As whom workers without a token will come: they are admitted from then on",
        Identities,
        replies.Identified,
    ),
    _managers("bury", bury, "Revoke the tokens of workers that never came", Workers, replies.Buried),
    _managers("cordon", cordon, "These take no more jobs, if they are (still) idle", Cordons, replies.Cordoned),
    _managers("uncordon", uncordon, "These take jobs again", Uncordons, replies.Uncordoned),
    _managers("gone", gone, "Confirmed dead: their jobs go back at once", Workers, replies.Empty),
    Endpoint(
        "GET",
        "/v1/backlog",
        ("read", "manager"),
        backlog,
        "The backlog by groups; with `version` waits until it is newer",
        query=BacklogQuery,
        reply=replies.Backlog,
    ),
)
