"""Leases that ended, drains overdue, commands that expired: one commit a second."""

import logging

from worker_manager.hub.services import Services

EVERY_S = 1.0
log = logging.getLogger("worker_manager.hub")


async def run_once(hub: Services) -> bool:
    """True when there is more to do at once."""
    swept = await hub.write(hub.store.sweep())
    if swept.lost:
        hub.metrics.leases_lost.inc(len(swept.lost))
        log.warning("lost %d workers, their leases ended: %s", len(swept.lost), ", ".join(swept.lost[:20]))
    hub.metrics.recalled.inc(swept.recalled)
    return False
