"""What every handler needs, put together once by `server.py` and handed in with each call."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.responses import Response

from worker_manager.clock import Clock
from worker_manager.hub.auth import Credentials, Tokens
from worker_manager.hub.blobs.service import Blobs
from worker_manager.hub.contract import HubStore
from worker_manager.hub.identity import OwnNames
from worker_manager.hub.logwriter import LogWriter
from worker_manager.hub.longpoll import Waiters
from worker_manager.hub.metrics import Metrics
from worker_manager.hub.outputlimits import OutputLimits
from worker_manager.hub.overload import Gate
from worker_manager.hub.progress import Progress
from worker_manager.hub.pyz import WorkerFiles
from worker_manager.hub.settings import HubSettings
from worker_manager.hub.storages.desk import Desk
from worker_manager.hub.usage import Usage
from worker_manager.hub.vouching import Vouching

T = TypeVar("T")


@dataclass(slots=True)
class Services:
    settings: HubSettings
    store: HubStore
    clock: Clock
    waiters: Waiters
    logs: LogWriter
    output_limits: OutputLimits
    worker_files: WorkerFiles
    tokens: Tokens
    metrics: Metrics
    gate: Gate
    readers: ThreadPoolExecutor
    loop: asyncio.AbstractEventLoop
    version: str
    vouching: Vouching
    own_names: OwnNames
    blobs: Blobs
    storages: Desk
    authority: bytes | None = None  # the hub's own, PEM
    credentials: Credentials = field(default_factory=Credentials)
    usage: Usage = field(default_factory=Usage)
    progress: Progress = field(default_factory=Progress)

    async def read(self, function: Callable[..., T], *arguments: Any) -> T:
        """Reads of the store block for a moment: not here."""
        return await self.loop.run_in_executor(self.readers, function, *arguments)

    async def write(self, future: "Future[T]") -> T:
        """Waits for the commit. It goes on when the client goes away: what was asked is asked."""
        return await asyncio.wrap_future(future)


def reply(value: Any, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")
