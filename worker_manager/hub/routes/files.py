"""What jobs have kept: their list, and each file, from the hub or by an address of the storage where it lies."""

from typing import Annotated, Any

from pydantic import Field
from starlette.responses import Response

from worker.protocol import LARGEST
from worker_manager.hub import replies
from worker_manager.hub.blobs import sending
from worker_manager.hub.endpoint import Call, Endpoint
from worker_manager.hub.files.granting import LIFE_MS
from worker_manager.hub.files.names import is_safe_path, read_source
from worker_manager.hub.problems import Problem, not_found
from worker_manager.hub.routes.jobs import READERS, visible_job
from worker_manager.hub.services import reply
from worker_manager.hub.storages.base import StorageRefuses
from worker_manager.hub.types import Cursor, Limit, Query

Attempt = Annotated[int, Field(ge=1, le=LARGEST)]
_STATUS = {"source-missing": 404, "storage-unavailable": 503}


class FilesQuery(Query):
    attempt: Attempt | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


class FileQuery(Query):
    attempt: Attempt | None = None


async def list_files(call: Call[FilesQuery, None]) -> Response:
    job, query = await visible_job(call), call.query
    listed = call.hub.store.list_files
    return reply(await call.hub.read(listed, job["id"], query.attempt, query.limit, query.cursor))


async def get_file(call: Call[FileQuery, None]) -> Response:
    job, path = await visible_job(call), call.path["path"]
    kept = None
    if is_safe_path(path):
        kept = await call.hub.read(call.hub.store.kept_file, job["id"], call.query.attempt, path)
    if kept is None:
        raise not_found("file", path[:200])
    if kept.at.startswith("blob:"):
        return await sending.answer(call, job["owner"], kept.sha256, path.rpartition("/")[2])
    return await _elsewhere(call, job["owner"], kept.at)


async def _elsewhere(call: Call[Any, Any], owner: str, at: str) -> Response:
    """A redirection that is good for as long as what workers are granted."""
    source = read_source(at)
    desk = call.hub.storages
    if not desk.named.cover(source, owner):
        raise Problem(403, "storage-not-named", desk.named.refusal(source, owner))
    try:
        address = await desk.ask(source, lambda storage: storage.to_get(source, LIFE_MS // 1000))
    except StorageRefuses as refused:
        raise Problem(_STATUS.get(refused.code, 502), refused.code, str(refused)) from None
    return Response(status_code=302, headers={"Location": address.url, "Cache-Control": "no-store"})


ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/jobs/{job}/files",
        READERS,
        list_files,
        "What an attempt has kept, sorted by path",
        query=FilesQuery,
        reply=replies.Files,
    ),
    Endpoint(
        "GET",
        "/v1/jobs/{job}/files/{path:path}",
        READERS,
        get_file,
        "One of these files, or a range of it; 302 to an address of the object storage where it lies",
        query=FileQuery,
        reply="application/octet-stream",
    ),
)
