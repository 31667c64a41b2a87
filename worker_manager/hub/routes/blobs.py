"""Blobs: is it here, send it, fetch it. By a token of its owner's, or by an address that the hub has signed."""

from starlette.responses import Response

from worker_manager.hub.auth import require
from worker_manager.hub.blobs.folder import is_digest
from worker_manager.hub.blobs.grants import Grant
from worker_manager.hub.blobs.receiving import receive, size_here
from worker_manager.hub.blobs.sending import answer
from worker_manager.hub.endpoint import NOBODY, Call, Endpoint, Need
from worker_manager.hub.problems import Problem, not_found

BlobCall = Call[Grant, None]


async def get_blob(call: BlobCall) -> Response:
    owner, sha256 = _which(call)
    return await answer(call, owner, sha256)


async def head_blob(call: BlobCall) -> Response:
    """Of one that is not here: how much of it has come, and `Retry-After` while somebody else sends it."""
    owner, sha256 = _which(call)
    if await size_here(call.hub, owner, sha256) is not None:
        return await answer(call, owner, sha256)
    blobs = call.hub.blobs
    name = blobs.folder.unfinished_name(owner, sha256)
    offset, busy = blobs.so_far(name) or (await blobs.thread(blobs.folder.so_far, name), False)
    headers = {"Upload-Offset": str(offset), **({"Retry-After": "1"} if busy else {})}
    raise Problem(404, "blob-unknown", f"there is no blob {sha256}; {offset} bytes of it have come", headers=headers)


async def patch_blob(call: BlobCall) -> Response:
    owner, sha256 = _which(call)
    return await receive(call, owner, sha256)


def _which(call: BlobCall) -> tuple[str, str]:
    """(owner, digest). Another owner's blob is not there."""
    sha256 = call.path["sha256"]
    if call.access is NOBODY:
        owner = call.hub.blobs.grants.owner(call.method, sha256, call.query)
    else:
        owner = require(call.access, ("submit",)).owner
    if not is_digest(sha256):
        raise not_found("blob", sha256[:80])
    return owner, sha256


PATH = "/v1/blobs/{sha256}"
ENDPOINTS = (
    Endpoint(
        "HEAD",
        PATH,
        Need.SUBMIT_OR_GRANT,
        head_blob,
        "Whether it is here; if not, `Upload-Offset` says how much of it has come",
        query=Grant,
        reply="application/octet-stream",
    ),
    Endpoint(
        "GET",
        PATH,
        Need.SUBMIT_OR_GRANT,
        get_blob,
        "A blob, or a range of it",
        query=Grant,
        reply="application/octet-stream",
    ),
    Endpoint(
        "PATCH",
        PATH,
        Need.SUBMIT_OR_GRANT,
        patch_blob,
        "Send bytes of it from `Upload-Offset` on; 201 when it is whole, 204 when more is to come",
        query=Grant,
        reply="application/octet-stream",
        status=201,
        streams=True,
    ),
)
