"""Blobs while the hub serves: what is on its way, what there is room for, and the threads that touch the disk."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from worker_manager.clock import Clock
from worker_manager.hub.blobs.account import Account
from worker_manager.hub.blobs.folder import BlobFolder
from worker_manager.hub.blobs.grants import Grants, key_in
from worker_manager.hub.blobs.pace import Pace, Slots, Why
from worker_manager.hub.blobs.upload import Upload
from worker_manager.hub.contract import HubStore
from worker_manager.hub.problems import Problem
from worker_manager.hub.settings import HubSettings

T = TypeVar("T")
THREADS = 8
REMEMBERED = 1024  # digests of unfinished blobs; of others what has come is read again
STILL_S = 2.0  # a sender of whom nothing has come for so long makes way for another


@dataclass(slots=True)
class Sender:
    upload: Upload
    pace: Pace
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Blobs:
    def __init__(self, settings: HubSettings, store: HubStore, clock: Clock) -> None:
        self.folder = BlobFolder(settings.state_dir / "blobs")
        self.grants = Grants(key_in(settings.state_dir), clock)
        self.account = Account(settings.blob_limit)
        self.slots = Slots(settings.max_transfers, settings.transfer_stall_s)
        self.account.count, self.account.whole = store.count_blobs()
        self.account.unfinished = sum(each.size for each in self.folder.unfinished())
        self._threads = ThreadPoolExecutor(THREADS, "hub-blob")
        self._senders: dict[str, Sender] = {}
        self._begun: OrderedDict[str, Upload] = OrderedDict()
        self.group_to_look_at = 0  # for strays, next
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @property
    def uploads(self) -> int:
        return len(self._senders)

    def end_transfers(self) -> None:
        self.slots.end_all()

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    def thread(self, act: Callable[..., T], *arguments: object) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._threads, act, *arguments)

    # ------------------------------------------------------------ senders

    def so_far(self, name: str) -> tuple[int, bool] | None:
        """While somebody sends it: how much has come, and whether another one would be refused now."""
        sender = self._senders.get(name)
        return (sender.upload.size, not _is_silent(sender)) if sender else None

    @asynccontextmanager
    async def sending(self, owner: str, sha256: str, pace: Pace) -> AsyncIterator[Upload]:
        """Makes this request the only one that sends this blob for this owner; one that has fallen silent makes way.
        Raises Problem (409)."""
        name = self.folder.unfinished_name(owner, sha256)
        while (before := self._senders.get(name)) is not None:
            await self._overtake(before)
        upload = self._begun.pop(name, None) or Upload(self.folder, owner, sha256)
        sender = self._senders[name] = Sender(upload, pace)
        try:
            yield upload
        finally:
            try:
                await settled(self.thread(upload.close if upload.size else upload.discard))
            finally:
                del self._senders[name]
                sender.gone.set()
                self._remember(name, upload)

    def _remember(self, name: str, upload: Upload) -> None:
        if upload.size:
            self._begun[name] = upload
        if len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)

    def set_aside(self, name: str) -> str | None:
        """An unfinished file that nobody goes on with, under a name by which nobody finds it, for whoever removes it.
        None while somebody sends it."""
        if name in self._senders:
            return None
        self._begun.pop(name, None)
        return self.folder.set_aside(name)

    async def _overtake(self, before: Sender) -> None:
        if not _is_silent(before):
            raise Problem(
                409,
                "upload-busy",
                "somebody else sends this blob now",
                headers={"Upload-Offset": str(before.upload.size), "Retry-After": "1"},
            )
        before.pace.end(Why.OVERTAKEN)
        await before.gone.wait()

    @asynccontextmanager
    async def alone(self, sha256: str) -> AsyncIterator[None]:
        """Nobody else gives a name to these bytes, or takes it from them, meanwhile."""
        lock, users = self._locks.get(sha256, (asyncio.Lock(), 0))
        self._locks[sha256] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks[sha256]
            if users == 1:
                del self._locks[sha256]
            else:
                self._locks[sha256] = (lock, users - 1)


def _is_silent(sender: Sender) -> bool:
    return asyncio.get_running_loop().time() - sender.pace.moved_at >= STILL_S


async def settled(work: "asyncio.Future[T]") -> T:
    """The result of something in a thread. Who is cancelled meanwhile waits until the thread has let go."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
