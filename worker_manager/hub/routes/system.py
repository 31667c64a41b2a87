"""The hub itself: health, metrics, and the agent as one file."""

from starlette.responses import Response

from worker.protocol import PROTOCOL_VERSION
from worker_manager.hub import replies
from worker_manager.hub.endpoint import Call, Endpoint, Need
from worker_manager.hub.problems import Problem, not_found
from worker_manager.hub.pyz import WorkerFile
from worker_manager.hub.services import reply
from worker_manager.hub.types import NoQuery

LATELY_MS = 3_600_000  # what `wait` in the metrics speaks of

SystemCall = Call[NoQuery, None]


async def healthz(call: SystemCall) -> Response:
    trouble = call.hub.store.healthy()
    if trouble is not None:
        raise Problem(503, "store-unavailable", trouble, headers={"Retry-After": "5"})
    return reply({"status": "ok"})


async def metrics(call: SystemCall) -> Response:
    hub = call.hub
    info, backlog = await hub.read(lambda: (hub.store.info(), hub.store.backlog()))
    shown = hub.metrics
    shown.show_counts(shown.jobs, info["jobs"])
    shown.show_counts(shown.workers, info["workers"])
    shown.show_backlog(backlog["groups"], backlog["now_ms"])
    began = hub.loop.time()
    if shown.takes_waits(began):
        lately = await hub.read(hub.store.summary, hub.clock.now_ms() - LATELY_MS)
        shown.show_waits(lately.get("wait_ms") or {})
        shown.waits_took(hub.loop.time() - began, hub.loop.time())
    blobs = hub.blobs
    account = blobs.account
    shown.show_blobs(account.count, account.whole, account.unfinished, blobs.uploads, len(blobs.slots))
    shown.show_cache(hub.store.inventory, hub.store.jobs_to_holders())
    shown.serving.set(hub.gate.serving)
    shown.waiting.set(len(hub.waiters))
    shown.turned_away.set(hub.gate.turned_away)
    return Response(await hub.read(shown.text), media_type="text/plain; version=0.0.4; charset=utf-8")


async def info(call: SystemCall) -> Response:
    found = await call.hub.read(call.hub.store.info)
    now_ms = call.hub.clock.now_ms()
    return reply({**found, "version": call.hub.version, "protocol": PROTOCOL_VERSION, "now_ms": now_ms})


async def authority(call: SystemCall) -> Response:
    """Who trusts it compares it with what was pinned: nothing secret is said before."""
    if call.hub.authority is None:
        raise Problem(404, "no-authority", "this hub has no authority of its own")
    return Response(call.hub.authority, media_type="application/x-pem-file")


async def worker_file(call: SystemCall) -> Response:
    files = call.hub.worker_files
    return _file(*await call.hub.read(lambda: _with_bytes(files.current())))


async def named_worker_file(call: SystemCall) -> Response:
    digest = call.path["digest"].removeprefix("sha256:")
    found = await call.hub.read(call.hub.worker_files.named, digest)
    if found is None:
        raise not_found("worker file", digest[:80])
    return _file(*await call.hub.read(_with_bytes, found))


def _with_bytes(file: WorkerFile) -> tuple[WorkerFile, bytes]:
    return file, file.read()


def _file(file: WorkerFile, data: bytes) -> Response:
    headers = {"X-Digest": f"sha256:{file.digest}", "ETag": f'"{file.digest}"'}
    return Response(data, headers=headers, media_type="application/zip")


ENDPOINTS = (
    Endpoint(
        "GET", "/healthz", Need.OPEN, healthz, "200 when the store writes, else 503", reply=replies.Health, vital=True
    ),
    Endpoint("GET", "/metrics", Need.OPEN_ON_LOOPBACK, metrics, "Prometheus text", reply="text/plain"),
    Endpoint("GET", "/v1/ca.pem", Need.OPEN, authority, "The hub's own CA", reply="application/x-pem-file"),
    Endpoint("GET", "/v1/worker.pyz", Need.OPEN, worker_file, "The agent as one file", reply="application/zip"),
    Endpoint(
        "GET",
        "/v1/worker/{digest}.pyz",
        Need.OPEN,
        named_worker_file,
        "The agent that a launch named",
        reply="application/zip",
    ),
    Endpoint("GET", "/v1/info", ("read", "submit", "manager"), info, "Version and counts", reply=replies.Info),
)
