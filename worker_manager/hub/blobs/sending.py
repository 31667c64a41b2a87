"""A blob as it goes out: all of it or a range, a block read while the one before is sent."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from worker_manager.hub.blobs import ranges
from worker_manager.hub.blobs.pace import Ended, Pace, Why
from worker_manager.hub.blobs.service import Blobs, settled
from worker_manager.hub.connection import ABORT
from worker_manager.hub.endpoint import Call
from worker_manager.hub.problems import Problem, not_found
from worker_manager.hub.services import Services

BLOCK = 256 * 1024
SMALL = 64 * 1024  # what is not longer is answered at once, and takes no place among the transfers


async def answer(call: Call[Any, Any], owner: str, sha256: str, filename: str = "") -> Response:
    """The answer to a GET or HEAD of a blob that this owner has. `filename`: by what name it is to be saved. Raises
    Problem: 404, 416, 429."""
    blobs: Blobs = call.hub.blobs
    if await call.hub.read(call.hub.store.find_blob, owner, sha256) is None:
        raise not_found("blob", sha256[:80])
    descriptor = await blobs.thread(blobs.folder.open, sha256)
    if descriptor is None:
        raise not_found("blob", sha256[:80])
    try:
        reply = await _reply(call, descriptor, sha256, filename or sha256)
    except BaseException:
        os.close(descriptor)
        raise
    if not isinstance(reply, _Body):
        os.close(descriptor)
    return reply


async def _reply(call: Call[Any, Any], descriptor: int, sha256: str, filename: str) -> Response:
    hub = call.hub
    size = os.fstat(descriptor).st_size
    headers = headers_of(sha256, filename)
    try:
        span = ranges.asked(call.headers, sha256, size)
    except ranges.Unsatisfiable:
        detail = f"it has {size} bytes, and none of them is in that range"
        raise Problem(416, "range-refused", detail, headers={"Content-Range": f"bytes */{size}"}) from None
    first, end = span or (0, size)
    if span is not None:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - first)
    status = 200 if span is None else 206
    if call.method == "HEAD":
        return Response(b"", status, headers, "application/octet-stream")
    if end - first <= SMALL:
        data = await settled(hub.blobs.thread(os.pread, descriptor, end - first, first))
        hub.metrics.blob_bytes_sent.inc(len(data))
        return Response(data, status, headers, "application/octet-stream")
    with hub.gate.parked():
        pace = await hub.blobs.slots.take()
    return _Body(hub, descriptor, (first, end), pace, status, headers)


def headers_of(sha256: str, filename: str) -> dict[str, str]:
    """Whatever is in it, no browser shows it as a page of ours."""
    plain = "".join(each if each.isascii() and each.isprintable() and each not in '"\\%' else "_" for each in filename)
    return {
        "ETag": ranges.tag(sha256),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}",
    }


class _Body(Response):
    """Sends the bytes, and gives back the descriptor and its place among the transfers."""

    def __init__(
        self, hub: Services, descriptor: int, span: tuple[int, int], pace: Pace, status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(None, status, headers, "application/octet-stream")
        self._hub = hub
        self._descriptor = descriptor
        self._at, self._end = span
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with _watched(receive, self._pace):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await self._send_all(send)
        except Ended:
            # The other end has less than Content-Length, and knows it. What it does not read is not waited for.
            scope.get(ABORT, _nothing)()
            await asyncio.sleep(0)
        finally:
            os.close(self._descriptor)
            self._hub.blobs.slots.give(self._pace)

    async def _send_all(self, send: Send) -> None:
        block = await self._read()
        while self._at < self._end:
            following = asyncio.create_task(self._read())
            try:
                await self._send(send, block)
            finally:
                block = await settled(following)
        await self._send(send, block, last=True)

    async def _read(self) -> bytes:
        """The next block."""
        want = min(BLOCK, self._end - self._at)
        data = await settled(self._hub.blobs.thread(os.pread, self._descriptor, want, self._at))
        if not data:
            raise OSError("a blob is shorter than it was")
        self._at += len(data)
        return data

    async def _send(self, send: Send, block: bytes, last: bool = False) -> None:
        await self._pace.of(send, {"type": "http.response.body", "body": block, "more_body": not last})
        self._pace.moved(len(block))
        self._hub.metrics.blob_bytes_sent.inc(len(block))


def _nothing() -> None:
    """There is no line to cut."""


@asynccontextmanager
async def _watched(receive: Receive, pace: Pace) -> AsyncIterator[None]:
    """The transfer ends when the other end has gone."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        pace.end(Why.LEFT)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
