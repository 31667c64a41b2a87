"""One resumable sequence of everything that happened."""

from starlette.responses import Response

from worker_manager.hub import replies
from worker_manager.hub.contract import EVENTS
from worker_manager.hub.endpoint import Call, Endpoint
from worker_manager.hub.services import reply
from worker_manager.hub.types import EventsQuery


async def list_events(call: Call[EventsQuery, None]) -> Response:
    hub, query = call.hub, call.query
    after = query.after
    with hub.waiters.listen((EVENTS,), query.wait_ms / 1000) as waiter:
        while True:
            events, after = await hub.read(hub.store.list_events, after, query.kind, query.subject, query.limit)
            if events or query.wait_ms == 0:
                break
            with hub.gate.parked():
                if not await waiter.woken():
                    break
    return reply({"events": events, "next": after})


ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/events",
        ("read", "manager"),
        list_events,
        "Events after a cursor; `after=now` begins with what comes, `after=last` with the last `limit`",
        query=EventsQuery,
        reply=replies.Events,
    ),
)
