"""A worker asks for what an attempt that it holds may fetch and send: `files/granting.py` answers."""

import re
from typing import Any

from starlette.responses import Response

from worker import files
from worker_manager.hub.endpoint import Call, Endpoint, Need
from worker_manager.hub.files.granting import Granting
from worker_manager.hub.files.names import MOST_SOURCE, is_safe_path
from worker_manager.hub.problems import invalid, not_found
from worker_manager.hub.services import reply
from worker_manager.hub.types import MIB, NoQuery
from worker_manager.hub.wirecheck import Fields, is_label

MOST_AT_ONCE = 1000
_JOB = re.compile(r"j[1-9][0-9]{0,17}(-(0|[1-9][0-9]{0,8}))?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


async def grants(call: Call[NoQuery, dict[str, Any]]) -> Response:
    worker, body = call.path["worker"], call.body
    if not is_label(worker):
        raise not_found("worker", worker[:64])
    fields = Fields(body)
    session, job, epoch = fields.integer("session"), fields.text("job", 64), fields.integer("epoch")
    fields.refuse_if("job", not _JOB.fullmatch(job), "write a job's id, such as j7 or j7-0")
    get, put = fields.items("get"), fields.items("put")
    for name, listed in (("get", get), ("put", put)):
        fields.refuse_if(name, len(listed) > MOST_AT_ONCE, f"at most {MOST_AT_ONCE} at once")
    fields.done()
    _check(get, put)
    store = call.hub.store
    held = await call.hub.read(store.held_attempt, worker, call.secret_sha256, session, job, epoch)
    return reply(await Granting(call.hub, held).all(get, put))


def _check(get: list[Any], put: list[Any]) -> None:
    for place, source in enumerate(get):
        if not isinstance(source, str) or len(source) > MOST_SOURCE:
            raise invalid([{"where": f"get[{place}]", "what": "write a source, as it stands in the job"}])
    for place, wanted in enumerate(put):
        if not isinstance(wanted, dict):
            raise invalid([{"where": f"put[{place}]", "what": "write an object"}])
        own = Fields(wanted, f"put[{place}].")
        own.text("to", MOST_SOURCE)
        own.integer("size")
        digest = wanted.get("sha256")
        own.refuse_if("sha256", not isinstance(digest, str) or not _DIGEST.fullmatch(digest), "write 64 hex digits")
        own.refuse_if("path", not is_safe_path(wanted.get("path")), "write a path within the job's directory")
        own.done()


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/workers/{worker}/grants",
        Need.CREDENTIAL,
        grants,
        "Addresses, good for minutes, for inputs and outputs of an attempt that the worker holds",
        body=files.Grants,
        reply=files.Granted,
        max_body=8 * MIB,
    ),
)
