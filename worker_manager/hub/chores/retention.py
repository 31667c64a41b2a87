"""Ended jobs, events and output past their time, in steps so small that no heartbeat waits for one."""

from worker_manager.hub.services import Services

EVERY_S = 60.0


async def run_once(hub: Services) -> bool:
    """True when there is more to do at once."""
    purged = await hub.write(hub.store.purge())
    if purged.segments:
        await hub.read(hub.logs.folder.delete, purged.segments)
    return purged.more
