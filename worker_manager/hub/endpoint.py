"""One row of the table of routes, and what a handler is given.

From the same rows `app.py` makes the application and `openapi.py` the document, so that they cannot drift.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Message, Receive

from worker_manager.hub.contract import Access
from worker_manager.hub.services import Services
from worker_manager.hub.types import MIB, NoQuery

B = TypeVar("B")
Q = TypeVar("Q", bound=BaseModel)


async def no_more() -> Message:
    """The body of a request whose body nobody asked for."""
    return {"type": "http.request", "body": b"", "more_body": False}


class Need(Enum):
    """Who may call, where that is not one of a token's scopes."""

    OPEN = "no token"
    OPEN_ON_LOOPBACK = "`read`, or no token on loopback"
    JOIN = "a join token, or one with the scope `worker`"
    CREDENTIAL = "the worker's own credential"
    SUBMIT_OR_GRANT = "`submit`, or an address that the hub has signed"
    IDENTITY = "no token: a signed identity stands in the body"


Needs = Need | tuple[str, ...]  # any one of these scopes; `operator` always may

NOBODY = Access(id="", owner="", scopes=frozenset())


@dataclass(slots=True)
class Call(Generic[Q, B]):
    """One request, read and checked."""

    hub: Services
    path: Mapping[str, str]
    query: Q
    body: B
    access: Access = NOBODY
    secret_sha256: str = ""  # of the bearer token, where the store checks it itself
    raw_body: bytes = b""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    method: str = "GET"  # or HEAD, which a GET's handler answers as well
    receive: Receive = no_more  # the body, where the endpoint `streams`

    @property
    def sees_all(self) -> bool:
        """A token that may only submit sees its owner's jobs, and no others."""
        return bool(self.access.scopes & {"read", "operator", "manager"})


Handler = Callable[[Call[Any, Any]], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    method: str
    path: str
    needs: Needs
    handler: Handler
    does: str  # one line, for the document
    query: type[BaseModel] = NoQuery
    body: Any = None  # a model (clients: checked before the handler) or a TypedDict (workers: checked by it)
    reply: Any = None  # a TypedDict, or the media type of what is not JSON
    status: int = 200
    max_body: int = MIB
    streams: bool = False  # the handler reads the body itself, and bounds it
    vital: bool = False  # a worker's sign of life: admitted when other requests are turned away

    @property
    def checked_body(self) -> type[BaseModel] | None:
        is_model = isinstance(self.body, type) and issubclass(self.body, BaseModel)
        return self.body if is_model else None

    @property
    def body_may_be_absent(self) -> bool:
        """`POST …/cancel` with nothing in it means `{}`, where no field is required."""
        model = self.checked_body
        return model is not None and not any(each.is_required() for each in model.model_fields.values())
