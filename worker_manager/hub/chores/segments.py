"""Log segments past every retention that no index names any more: what a crash left behind."""

from worker_manager.hub.services import Services

EVERY_S = 3600.0
SLACK_MS = 2 * 86_400_000  # a segment is written for a day, and its last job may end a while later


async def run_once(hub: Services) -> bool:
    before = hub.clock.now_ms() - hub.settings.retention_ms - SLACK_MS
    folder = hub.logs.folder
    await hub.read(lambda: folder.delete(folder.older_than(before)))
    return False
