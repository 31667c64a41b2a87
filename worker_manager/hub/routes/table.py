"""Every route of the hub. The busiest stand first, because paths are compared in this order."""

from worker_manager.hub.endpoint import Endpoint
from worker_manager.hub.routes import (
    agents,
    blobs,
    events,
    files,
    grants,
    jobs,
    joining,
    managers,
    operators,
    system,
    workers,
)
from worker_manager.hub.routes.description import with_description

ENDPOINTS: tuple[Endpoint, ...] = with_description(
    (
        *agents.ENDPOINTS,
        *managers.ENDPOINTS,
        *jobs.ENDPOINTS,
        *files.ENDPOINTS,
        *workers.ENDPOINTS,
        *grants.ENDPOINTS,
        *events.ENDPOINTS,
        *operators.ENDPOINTS,
        *blobs.ENDPOINTS,
        *system.ENDPOINTS,
        *joining.ENDPOINTS,
    )
)
