"""Unstarted jobs that stand behind one that takes longer than expected: called back while others have room."""

from worker_manager.hub.services import Services

EVERY_S = 0.25


async def run_once(hub: Services) -> bool:
    if hub.store.holds_ahead():
        await hub.write(hub.store.recall())
    return False
