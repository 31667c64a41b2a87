"""Blobs that no job needs any more, uploads that nobody goes on with, and files that belong to nobody."""

import asyncio
import logging

from worker_manager.hub.blobs.folder import GROUPS
from worker_manager.hub.blobs.service import settled
from worker_manager.hub.contract import Removed
from worker_manager.hub.services import Services

EVERY_S = 60.0
STRAYS_EVERY_S = 3600.0
HOUR_MS = 3_600_000
UPLOAD_KEPT_MS = 24 * HOUR_MS  # since its last byte
AT_ONCE = 32

log = logging.getLogger("worker_manager.hub")


async def run_once(hub: Services) -> bool:
    """True when there is more to do at once."""
    await _forget_uploads(hub)
    before = hub.clock.now_ms() - hub.settings.blob_keep_ms
    unused = await hub.read(hub.store.unused_blobs, before, AT_ONCE)
    await asyncio.gather(*(_remove(hub, owner, sha256, size, before) for sha256, owner, size in unused))
    return len(unused) == AT_ONCE


async def _forget_uploads(hub: Services) -> None:
    blobs = hub.blobs
    before = hub.clock.now_ms() - UPLOAD_KEPT_MS
    for each in await blobs.thread(blobs.folder.unfinished):
        if each.written_ms < before and (aside := blobs.set_aside(each.name)) is not None:
            await settled(blobs.thread(blobs.folder.discard, aside))
            blobs.account.unfinished -= each.size


async def _remove(hub: Services, owner: str, sha256: str, size: int, before: int) -> None:
    blobs = hub.blobs
    async with blobs.alone(sha256):
        removed = await hub.write(hub.store.remove_blob(owner, sha256, before))
        if removed is Removed.LAST:
            await settled(blobs.thread(blobs.folder.remove, sha256))
            blobs.account.gone(size)


async def sweep_strays(hub: Services) -> bool:
    """Files with a name of which the database knows nothing: a crash came between the two, or it is an older copy. One
    folder of them a step. True when there is more to do at once."""
    blobs = hub.blobs
    group, blobs.group_to_look_at = blobs.group_to_look_at, (blobs.group_to_look_at + 1) % GROUPS
    rested = await blobs.thread(blobs.folder.rested, group, hub.clock.now_ms() - HOUR_MS)
    known = await hub.read(hub.store.known_blobs, rested)
    strays = [sha256 for sha256 in rested if sha256 not in known]
    for sha256 in strays:
        async with blobs.alone(sha256):
            if not await hub.read(hub.store.known_blobs, [sha256]):
                await settled(blobs.thread(blobs.folder.remove, sha256))
    if strays:
        log.warning("removed %d files of blobs that nobody owns", len(strays))
    return blobs.group_to_look_at != 0
