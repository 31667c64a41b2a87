"""Pools, commands, tokens and figures: what operators look at and change."""

import re
from typing import Any

from starlette.responses import Response

from worker_manager.hub import replies
from worker_manager.hub.auth import new_secret, sha256_of
from worker_manager.hub.endpoint import Call, Endpoint
from worker_manager.hub.problems import invalid, not_found
from worker_manager.hub.services import reply
from worker_manager.hub.types import Freeze, NewToken, NoQuery, SummaryQuery, TokenQuery, Unfreeze
from worker_manager.hub.wirecheck import is_label

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


async def list_pools(call: Call[NoQuery, None]) -> Response:
    return reply({"pools": await call.hub.read(call.hub.store.list_pools)})


async def explain_pool(call: Call[NoQuery, None]) -> Response:
    return reply({"pools": await call.hub.read(call.hub.store.explain_pool, _pool(call))})


async def freeze(call: Call[NoQuery, Freeze]) -> Response:
    body, store = call.body, call.hub.store
    until = call.hub.clock.now_ms() + body.for_ms
    future = store.freeze_pool(_pool(call), until, body.text, call.access.owner, body.manager)
    return reply(await call.hub.write(future), 202)


async def unfreeze(call: Call[NoQuery, Unfreeze]) -> Response:
    future = call.hub.store.unfreeze_pool(_pool(call), call.access.owner, call.body.manager)
    return reply(await call.hub.write(future), 202)


async def get_command(call: Call[NoQuery, None]) -> Response:
    name = call.path["command"]
    if not _ID.fullmatch(name):
        raise not_found("command", name[:64])
    return reply(await call.hub.read(call.hub.store.get_command, name))


async def summary(call: Call[SummaryQuery, None]) -> Response:
    return reply(await call.hub.read(call.hub.store.summary, call.query.since_ms))


async def create_token(call: Call[NoQuery, NewToken]) -> Response:
    """The secret is in this answer and nowhere else."""
    body = call.body
    if body.expires_ms is not None and body.expires_ms <= call.hub.clock.now_ms():
        raise invalid([{"where": "expires_ms", "what": "that is over already"}])
    secret = new_secret()
    scopes = sorted(set(body.scopes))
    future = call.hub.store.create_token(sha256_of(secret), body.owner, scopes, body.expires_ms, call.access.owner)
    made = await call.hub.write(future)
    answer = reply({**made, "token": secret}, 201)
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def list_tokens(call: Call[NoQuery, None]) -> Response:
    return reply({"tokens": await call.hub.read(call.hub.store.list_tokens)})


async def delete_token(call: Call[TokenQuery, None]) -> Response:
    await call.hub.write(call.hub.store.delete_token(call.query.id, call.access.owner))
    call.hub.tokens.forget()
    return reply({})


def _pool(call: Call[Any, Any]) -> str:
    name = call.path["pool"]
    if not is_label(name):
        raise not_found("pool", name[:64])
    return name


READ = ("read", "manager")
OPERATE = ("operator",)

ENDPOINTS = (
    Endpoint("GET", "/v1/pools", READ, list_pools, "What the managers last published", reply=replies.Pools),
    Endpoint("GET", "/v1/pools/{pool}/explain", READ, explain_pool, "Why it is as it is", reply=replies.Pools),
    Endpoint(
        "POST",
        "/v1/pools/{pool}/freeze",
        OPERATE,
        freeze,
        "It neither launches nor ends anything, for a time",
        body=Freeze,
        reply=replies.CommandGiven,
        status=202,
    ),
    Endpoint(
        "POST",
        "/v1/pools/{pool}/unfreeze",
        OPERATE,
        unfreeze,
        "It goes on",
        body=Unfreeze,
        reply=replies.CommandGiven,
        status=202,
    ),
    Endpoint("GET", "/v1/commands/{command}", READ, get_command, "What became of a command", reply=replies.Command),
    Endpoint("GET", "/v1/summary", READ, summary, "Counts, waits, use", query=SummaryQuery, reply=dict),
    Endpoint(
        "POST",
        "/v1/tokens",
        OPERATE,
        create_token,
        "A new token; its secret is shown once",
        body=NewToken,
        reply=replies.TokenMade,
        status=201,
    ),
    Endpoint("GET", "/v1/tokens", OPERATE, list_tokens, "Tokens without their secrets", reply=replies.Tokens),
    Endpoint("DELETE", "/v1/tokens", OPERATE, delete_token, "Revoke one", query=TokenQuery, reply=replies.Empty),
)
