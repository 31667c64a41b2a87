"""The ASGI application: made from the table of routes, one answer for each request, and never a 500 for bad input.

The order is always the same: admitted? who is it? what is asked (query, body)? then the handler. A body is only read
for someone who may send it.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from worker_manager.errors import StoreError
from worker_manager.hub import bodies
from worker_manager.hub.auth import CHALLENGE, bearer_sha256, from_loopback, require
from worker_manager.hub.endpoint import NOBODY, Call, Endpoint, Need
from worker_manager.hub.problems import Problem, bad_request, from_validation
from worker_manager.hub.refusals import Refusal
from worker_manager.hub.services import Services
from worker_manager.hub.types import NoQuery

log = logging.getLogger("worker_manager.hub")

NO_QUERY = NoQuery()
LARGE_BODY = 65_536  # from here on it is checked in a thread: heartbeats must not wait for it


def make_app(hub: Services, endpoints: Sequence[Endpoint]) -> Starlette:
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    routes = [Route(path, Dispatch(hub, found), methods=list(found)) for path, found in by_path.items()]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_route})


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    code = {404: "route-unknown", 405: "method-refused"}.get(error.status_code, "refused")
    detail = f"there is no {request.method} {request.url.path[:200]}"
    return Problem(error.status_code, code, detail, headers=error.headers).response()


class Dispatch:
    """All methods of one path, as an ASGI application."""

    def __init__(self, hub: Services, by_method: Mapping[str, Endpoint]) -> None:
        self._hub = hub
        self._by_method = dict(by_method)
        if "GET" in by_method:
            self._by_method.setdefault("HEAD", by_method["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._by_method[scope["method"]]
        try:
            with self._hub.gate.admitted(endpoint.vital):
                response = await self._answer(endpoint, scope, receive)
        except bodies.Disconnected:
            return
        except Exception as error:
            response = refusal_of(error).response()
        self._hub.metrics.answered(endpoint.path, response.status_code)
        await response(scope, receive, send)

    async def _answer(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> Response:
        headers = dict(scope["headers"])
        access, secret = await self._who(endpoint, scope, headers)
        query = _query(endpoint, scope)
        body, raw = await self._body(endpoint, headers, receive)
        call = Call(self._hub, scope.get("path_params", {}), query, body, access, secret, raw, headers, scope["method"])
        if endpoint.streams:
            call.receive = receive
        return await endpoint.handler(call)

    async def _who(self, endpoint: Endpoint, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[Any, str]:
        needs = endpoint.needs
        if needs in (Need.OPEN, Need.IDENTITY):
            return NOBODY, ""
        if needs is Need.SUBMIT_OR_GRANT:
            if b"signature=" in scope["query_string"]:
                return NOBODY, ""  # the handler looks at what is signed
            needs = ("submit",)
        if needs is Need.OPEN_ON_LOOPBACK:
            if from_loopback(scope) and not self._hub.settings.behind_proxy:
                return NOBODY, ""
            needs = ("read", "manager")
        secret = bearer_sha256(headers)
        if isinstance(needs, Need):
            return NOBODY, secret
        access = self._hub.tokens.remembered(secret)
        if access is None:
            access = await self._hub.read(self._hub.tokens.find, secret)
        return require(access, needs), secret

    async def _body(self, endpoint: Endpoint, headers: Mapping[bytes, bytes], receive: Receive) -> tuple[Any, bytes]:
        if endpoint.body is None:
            return None, b""
        limit = min(endpoint.max_body, self._hub.settings.max_body)
        raw = await bodies.read(receive, headers, limit, self._hub.settings.body_seconds)
        model = endpoint.checked_body
        if model is None:
            return bodies.parse_quick(raw), raw
        if not raw and endpoint.body_may_be_absent:
            return model(), raw
        if len(raw) > LARGE_BODY:
            return await self._hub.read(_checked, model, raw), raw
        return _checked(model, raw), raw


def _checked(model: type[BaseModel], raw: bytes) -> BaseModel:
    return model.model_validate(bodies.parse_strict(raw))


def _query(endpoint: Endpoint, scope: Scope) -> BaseModel:
    text = scope["query_string"]
    if not text and endpoint.query is NoQuery:
        return NO_QUERY
    try:
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise bad_request("query-refused", "the query has too many parameters") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise bad_request("repeated-name", "a query parameter stands twice")
    return endpoint.query.model_validate(found)


def refusal_of(error: Exception) -> Problem:
    """The one translation from what went wrong to what is answered."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Refusal):
        return _of_store(error)
    if isinstance(error, ValidationError):
        return from_validation(error)
    if isinstance(error, StoreError):
        log.error("the store refused a request: %s", error)
        return Problem(503, "store-unavailable", str(error), headers={"Retry-After": "5"})
    reference = secrets.token_hex(6)
    log.error("a request failed, reference %s", reference, exc_info=error)
    return Problem(500, "internal", f"the hub made a mistake; its log has it under {reference}")


def _of_store(refusal: Refusal) -> Problem:
    headers = {}
    if refusal.status == 401:
        headers = CHALLENGE
    elif refusal.status == 429:
        headers = {"Retry-After": "1"}
    elif refusal.status == 503:
        headers = {"Retry-After": "2"}
    errors = [{"where": where, "what": what} for where, what in refusal.errors]
    return Problem(refusal.status, refusal.code, refusal.detail, errors=errors, headers=headers)
