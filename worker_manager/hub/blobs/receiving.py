"""A blob's bytes as they come: PATCH with `Upload-Offset` and `Upload-Length`, until it is whole.

What has come is kept however a request ends, and the next one goes on from there. Two buffers, so that the line is read
while the disk is written; memory does not grow with the blob.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive

from worker.protocol import LARGEST
from worker_manager.hub.blobs.account import Reservation
from worker_manager.hub.blobs.folder import FULL
from worker_manager.hub.blobs.pace import Ended, Pace, Why
from worker_manager.hub.blobs.service import Blobs, settled
from worker_manager.hub.blobs.upload import Upload
from worker_manager.hub.bodies import Disconnected
from worker_manager.hub.endpoint import Call
from worker_manager.hub.problems import Problem, bad_request
from worker_manager.hub.services import Services

T = TypeVar("T")
BLOCK = 512 * 1024
PASSED_OVER = 64 * 2**20  # a body that is refused unread is passed over up to here; beyond it the line is cut
CHUNKED = 2**64  # as long as it likes
MEDIA_TYPES = (b"", b"application/octet-stream", b"application/offset+octet-stream")

log = logging.getLogger("worker_manager.hub")


async def receive(call: Call[Any, Any], owner: str, sha256: str) -> Response:
    """201 when it is whole, 204 when more is to come; both with `Upload-Offset`."""
    blobs: Blobs = call.hub.blobs
    try:
        offset, length = _what_comes(call.headers)
        size = await size_here(call.hub, owner, sha256)
        if size is not None:
            return _answer(201, size)
        with call.hub.gate.parked():
            async with blobs.slots.one() as pace, blobs.sending(owner, sha256, pace) as upload:
                return await _Receiving(call.hub, owner, upload, pace).take(call.receive, offset, length)
    except Problem as problem:
        if _declared(call.headers) > PASSED_OVER:
            problem.headers["Connection"] = "close"
        raise


async def size_here(hub: Services, owner: str, sha256: str) -> int | None:
    """None where this owner has it not. Its row alone does not count: somebody may have lost the file. One that is here
    stays for a while from now on: who asks for it may be about to submit a job that needs it."""
    if await hub.read(hub.store.find_blob, owner, sha256) is None:
        return None
    size = await hub.blobs.thread(hub.blobs.folder.size, sha256)
    before = hub.clock.now_ms() - hub.settings.blob_keep_ms // 4  # not each time a commit
    if size is not None and await hub.read(hub.store.is_blob_unused, owner, sha256, before):
        await hub.write(hub.store.renew_blob(owner, sha256))
    return size


class _Receiving:
    """One request that sends."""

    def __init__(self, hub: Services, owner: str, upload: Upload, pace: Pace) -> None:
        self._hub = hub
        self._blobs: Blobs = hub.blobs
        self._owner = owner
        self._upload = upload
        self._pace = pace

    async def take(self, receive: Receive, offset: int, length: int) -> Response:
        upload = self._upload
        try:
            await self._do(upload.open)
            if upload.size > length:  # of another length: it cannot be the beginning of this
                await self._do(upload.discard)
                await self._do(upload.open)
            if upload.size != offset:
                return await self._elsewhere()
            room = await self._do(self._blobs.folder.room)
            with self._blobs.account.reserve(length - offset, length, room) as reservation:
                while await self._do(upload.catch_up):
                    pass
                await self._body(receive, length, reservation)
            return await self._finish() if upload.size == length else _answer(204, upload.size)
        except OSError as error:
            raise self._unwritable(error) from error
        except Ended as ended:
            raise self._ended(ended) from None

    async def _elsewhere(self) -> Response:
        """Another sender was here in the meantime."""
        size = await size_here(self._hub, self._owner, self._upload.sha256)
        if size is not None:
            return _answer(201, size)
        detail = f"{self._upload.size} bytes of it are here: go on from there"
        raise Problem(409, "offset-differs", detail, headers=self._offset())

    async def _body(self, receive: Receive, length: int, reservation: Reservation) -> None:
        blocks = _Blocks(lambda pieces: self._append(pieces, reservation))
        expected = length - self._upload.size
        try:
            more = True
            while more:
                message = await self._pace.of(receive)
                if message["type"] == "http.disconnect":
                    raise Disconnected
                chunk: bytes = message.get("body", b"")
                expected -= len(chunk)
                if expected < 0:
                    raise Problem(413, "body-too-large", f"the body goes beyond its Upload-Length of {length} bytes")
                self._pace.moved(len(chunk))
                await blocks.add(chunk)
                more = message.get("more_body", False)
        finally:
            await blocks.finish()

    async def _append(self, pieces: Sequence[bytes], reservation: Reservation) -> None:
        before = self._upload.size
        try:
            await self._do(self._upload.append, pieces)
        finally:
            wrote = max(0, self._upload.size - before)
            reservation.wrote(wrote)
            self._hub.metrics.blob_bytes_received.inc(wrote)

    async def _finish(self) -> Response:
        upload, size = self._upload, self._upload.size
        await self._do(upload.flush)
        if not upload.is_right():
            await self._do(upload.discard)
            detail = "what came has another SHA-256 and is thrown away: send it again from the beginning"
            raise Problem(422, "digest-differs", detail, headers=self._offset())
        async with self._blobs.alone(upload.sha256):
            await settled(self._blobs.thread(upload.publish))
            new = await self._hub.write(self._hub.store.add_blob(self._owner, upload.sha256, size))
        self._blobs.account.became_whole(size, new)
        await self._do(upload.discard)
        return _answer(201, size)

    async def _do(self, act: Callable[..., T], *arguments: object) -> T:
        """Something with the upload, in a thread; what the disk holds of it is counted."""
        before = self._upload.size
        try:
            return await settled(self._blobs.thread(act, *arguments))
        finally:
            if act != self._upload.open:  # which only looks: that was counted when it came
                self._blobs.account.unfinished += self._upload.size - before

    # ------------------------------------------------------------ refusals

    def _offset(self) -> dict[str, str]:
        return {"Upload-Offset": str(self._upload.size)}

    def _unwritable(self, error: OSError) -> Problem:
        if error.errno in FULL:
            return Problem(507, "disk-full", "the hub's disk, or its quota there, is full", headers=self._offset())
        log.error("a blob could not be written: %s", error)
        detail = "the hub's disk refuses to write: its log says why"
        return Problem(503, "blob-unwritable", detail, headers={"Retry-After": "5", **self._offset()})

    def _ended(self, ended: Ended) -> Problem:
        close = {"Connection": "close", **self._offset()}
        if ended.why is Why.OVERTAKEN:
            return Problem(409, "upload-busy", "somebody else sends this blob now", headers=close)
        if ended.why is Why.ENDING:
            detail = "the hub ends: go on with the next one"
            return Problem(503, "hub-ends", detail, headers={"Retry-After": "2", **close})
        return Problem(408, "body-too-slow", "the body stood still for too long", headers=close)


class _Blocks:
    """Gathers what comes, and has one block written while the next one is gathered."""

    def __init__(self, write: Callable[[Sequence[bytes]], Coroutine[Any, Any, None]]) -> None:
        self._write = write
        self._pieces: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None

    async def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK:
            await self._turn()

    async def finish(self) -> None:
        """What was gathered is kept, however the request ended; but nothing is written behind what could not be."""
        if self._size:
            await self._turn()
        await self._written()

    async def _turn(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        await self._written()
        self._writing = asyncio.create_task(self._write(pieces))

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing


def _what_comes(headers: Mapping[bytes, bytes]) -> tuple[int, int]:
    """(Upload-Offset, Upload-Length)."""
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
        raise Problem(415, "encoding-refused", "send the body uncompressed", headers={"Accept-Encoding": "identity"})
    if headers.get(b"content-type", b"").split(b";")[0].strip().lower() not in MEDIA_TYPES:
        raise Problem(415, "media-type-refused", "send the body as application/octet-stream")
    offset, length = _number(headers, "Upload-Offset"), _number(headers, "Upload-Length")
    if offset > length:
        raise bad_request("header-refused", "Upload-Offset lies beyond Upload-Length")
    if _declared(headers) != CHUNKED and _declared(headers) > length - offset:
        raise Problem(413, "body-too-large", f"the body goes beyond its Upload-Length of {length} bytes")
    return offset, length


def _number(headers: Mapping[bytes, bytes], name: str) -> int:
    text = headers.get(name.lower().encode(), b"").strip()
    if not (text.isdigit() and len(text) <= 19 and int(text) <= LARGEST):
        raise bad_request("header-refused", f"send {name}: a number of bytes")
    return int(text)


def _declared(headers: Mapping[bytes, bytes]) -> int:
    """How long the body says that it is."""
    text = headers.get(b"content-length", b"")
    if text.isdigit():
        return int(text[:20])
    return CHUNKED if b"transfer-encoding" in headers else 0


def _answer(status: int, offset: int) -> Response:
    return Response(b"", status, {"Upload-Offset": str(offset)})
