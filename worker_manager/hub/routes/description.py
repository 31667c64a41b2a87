"""The routes' description of themselves: every other one, and this."""

from collections.abc import Sequence

from starlette.responses import Response

from worker_manager.hub.endpoint import Call, Endpoint, Need
from worker_manager.hub.openapi import document
from worker_manager.hub.services import reply
from worker_manager.hub.types import NoQuery


def with_description(others: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    async def openapi(call: Call[NoQuery, None]) -> Response:
        return reply(await call.hub.read(document, endpoints, call.hub.version))

    endpoints = (*others, Endpoint("GET", "/v1/openapi.json", Need.OPEN, openapi, "This document", reply=dict))
    return endpoints
