"""The workers' own calls: register, poll, report. The hot path: checked by hand, no models.

Fields that we do not know are ignored (a newer agent); a field of the wrong kind is a 422 that names it. A worker's
words (reasons, texts) are cut, never refused: a result must not be lost because its sentence is too long.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any, cast

from starlette.responses import Response

from worker.protocol import (
    LARGEST,
    PROTOCOL_VERSION,
    LogChunk,
    Outcome,
    Poll,
    Polled,
    Register,
    Registered,
    Report,
    Reported,
)
from worker_manager.hub.bodies import too_deep
from worker_manager.hub.contract import LogPiece, worker_topic
from worker_manager.hub.endpoint import Call, Endpoint, Need
from worker_manager.hub.files.told import check_files
from worker_manager.hub.inventory import sensible
from worker_manager.hub.problems import Problem, invalid, not_found
from worker_manager.hub.services import Services, reply
from worker_manager.hub.types import MIB, NoQuery
from worker_manager.hub.wirecheck import Fields, is_label, shape_mistake

WorkerCall = Call[NoQuery, dict[str, Any]]
Output = tuple[LogChunk, bytes]
LONGEST_TEXT = 2000
LONGEST_CODE = 200
LONGEST_JOB = 64
AMOUNTS = ("signal", "started_ms", "run_ms", "cpu_ms", "max_rss", "output")


async def register(call: WorkerCall) -> Response:
    message = registration(call.body)
    registered = await call.hub.write(call.hub.store.register(message, call.secret_sha256))
    return reply(registered, 201)


def registration(body: dict[str, Any]) -> Register:
    """What a worker says of itself when it comes."""
    fields = Fields(body)
    fields.refuse_if("", too_deep(body, 16), "it is nested too deep")
    fields.done()
    message: dict[str, Any] = {
        "protocol": fields.integer("protocol", PROTOCOL_VERSION),
        "worker": fields.text("worker", 64, ""),  # the join token names it too; by hand the hub may choose
        "nonce": fields.text("nonce", 200),
        "credential_sha256": fields.text("credential_sha256", 64),
        "pool": fields.text("pool", 64, ""),
        "shape": fields.object("shape", {}),
        "host": fields.object("host", {}),
        "idle_exit_ms": fields.integer_or_none("idle_exit_ms"),
        "max_runs": fields.integer_or_none("max_runs"),
        "config": fields.text("config", 200, ""),
    }
    if not fields.mistakes:
        fields.refuse_if(
            "worker",
            bool(message["worker"]) and not is_label(message["worker"]),
            "write lowercase letters, digits and dashes",
        )
        digest = message["credential_sha256"]
        fields.refuse_if("credential_sha256", len(digest) != 64 or not _is_hex(digest), "write 64 hex digits")
        fields.refuse_if("nonce", not message["nonce"], "it is empty")
        fields.refuse_if("shape", shape_mistake(message["shape"]) is not None, shape_mistake(message["shape"]) or "")
        fields.refuse_if("host", len(str(message["host"])) > 20_000, "it is too large")
    fields.done()
    if not PROTOCOL_VERSION - 1 <= message["protocol"] <= PROTOCOL_VERSION + 1:
        text = f"the hub speaks protocol {PROTOCOL_VERSION} and one version around it, not {message['protocol']}"
        raise Problem(400, "protocol-unknown", text)
    return cast(Register, message)


async def poll(call: WorkerCall) -> Response:
    worker = _worker(call)
    fields = Fields(call.body)
    session, ack = fields.integer("session"), fields.integer("ack", 0)
    fields.done()
    hub = call.hub
    waits = False
    with hub.waiters.listen((worker_topic(worker),), hub.store.settings.poll_ms / 1000) as waiter:
        while True:
            polled = await hub.read(hub.store.poll, worker, call.secret_sha256, session, ack, waits)
            if polled["seq"] > ack:
                break
            waits = True
            with hub.gate.parked():
                if not await waiter.woken():
                    break
    hub.credentials.learn(worker, call.secret_sha256)
    hub.output_limits.learn(polled["assign"])
    polled["now_ms"] = hub.clock.now_ms()
    return reply(polled)


def _told_why(fields: Fields, told: object) -> dict[str, str] | None:
    fields.refuse_if("why", not (told is None or isinstance(told, dict)), "write an object or null")
    if not isinstance(told, dict):
        return None
    words = {"code": LONGEST_CODE, "text": LONGEST_TEXT}
    return {name: str(told.get(name) or "").replace("\0", "?")[:longest] for name, longest in words.items()}


async def report(call: WorkerCall) -> Response:
    worker = _worker(call)
    body = call.body
    fields = Fields(body)
    fields.integer("session")
    fields.integer("seq")
    results, started = fields.items("results"), fields.items("started")
    chunks = fields.items("logs")
    fields.integer_or_none("running")
    shape = body.get("shape")
    if shape is not None:
        mistake = shape_mistake(shape)
        fields.refuse_if("shape", mistake is not None, mistake or "")
    fields.refuse_if("draining", not isinstance(body.get("draining", False), bool), "write true or false")
    body["leaving"] = fields.words("leaving", LONGEST_TEXT)
    body["why"] = _told_why(fields, body.get("why"))
    if "cache" in body:
        body["cache"] = sensible(body["cache"])
    for place, one in enumerate(results):
        if not _is_plain(one):
            _check_result(fields, place, one)
    for place, one in enumerate(started):
        _check_started(fields, place, one)
    fields.done()
    output = read_chunks(chunks)
    if output:
        await _admit(call.hub, worker, call.secret_sha256)
    pieces = await keep_output(call.hub, output) if output else []
    future = call.hub.store.report(worker, call.secret_sha256, cast(Report, body), pieces)
    reported = await call.hub.write(future)
    if "usage" in body:
        call.hub.usage.learn(worker, body["usage"], call.hub.clock.now_ms())
    if "progress" in body:
        call.hub.progress.learn(worker, body["progress"], call.hub.clock.now_ms())
    call.hub.progress.forget(worker, results)
    return reply(reported)


def _worker(call: WorkerCall) -> str:
    worker = call.path["worker"]
    if not is_label(worker):
        raise not_found("worker", worker[:64])
    return worker


async def _admit(hub: Services, worker: str, secret_sha256: str) -> None:
    """Output goes to the disk before the store looks at the report: not for everyone."""
    if not hub.credentials.knows(worker, secret_sha256):
        await hub.read(hub.store.admit_worker, worker, secret_sha256)
        hub.credentials.learn(worker, secret_sha256)


def _check_started(fields: Fields, place: int, one: Any) -> None:
    right = isinstance(one, list) and len(one) >= 3 and type(one[0]) is str
    right = right and all(type(each) is int and 0 <= each <= LARGEST for each in one[1:3])
    fields.refuse_if(f"started[{place}]", not right, "write [job, epoch, started_ms]")


def _is_plain(result: Any) -> bool:
    """As agents send nearly all of them: nothing to refuse, nothing to mend. Only saves the closer look."""
    if type(result) is not dict:
        return False
    job, epoch, exit_code = result.get("job"), result.get("epoch"), result.get("exit_code", 0)
    if type(job) is not str or len(job) > LONGEST_JOB or type(epoch) is not int or not 0 <= epoch <= LARGEST:
        return False
    if exit_code is not None and (type(exit_code) is not int or abs(exit_code) > LARGEST):
        return False
    if "files" in result:
        return False
    if result.get("outcome") not in Outcome.ALL or result.get("reason") != "" or result.get("text") != "":
        return False
    for name in AMOUNTS:
        amount = result.get(name)
        if amount is not None and (type(amount) is not int or not 0 <= amount <= LARGEST):
            return False
    return "\0" not in job


def _check_result(fields: Fields, place: int, one: Any) -> None:
    if not isinstance(one, dict):
        fields.refuse_if(f"results[{place}]", True, "write an object")
        return
    own = Fields(one, f"results[{place}].", fields.mistakes)
    own.text("job", LONGEST_JOB)
    own.integer("epoch")
    outcome = own.text("outcome", 64)
    own.refuse_if("outcome", outcome not in Outcome.ALL, f"write one of {', '.join(Outcome.ALL)}")
    own.signed_or_none("exit_code")
    for name in AMOUNTS:
        own.integer_or_none(name)
    check_files(own, own.items("files"))
    one["reason"] = own.words("reason", LONGEST_CODE)
    one["text"] = own.words("text", LONGEST_TEXT)


def read_chunks(chunks: list[Any]) -> list[Output]:
    fields = Fields({})
    read = [_chunk(fields, place, one) for place, one in enumerate(chunks)]
    fields.done()
    return read


async def keep_output(hub: Services, output: list[Output]) -> list[LogPiece]:
    """The bytes first; where they lie goes into the commit of the report."""
    cut = hub.output_limits.cut
    kept = [(chunk, cut(chunk["job"], chunk["epoch"], chunk["offset"], data)) for chunk, data in output]
    found = [(chunk, data) for chunk, data in kept if data]
    if not found:
        return []
    try:
        places = await hub.logs.append([data for _, data in found])
    except OSError as error:
        detail = f"output cannot be written now ({error.strerror}): send it again"
        raise Problem(503, "logs-unwritable", detail, headers={"Retry-After": "5"}) from None
    return [
        LogPiece(chunk["job"], chunk["epoch"], chunk["offset"], place.length, place.segment, place.position)
        for (chunk, _), place in zip(found, places, strict=True)
    ]


def _chunk(fields: Fields, place: int, one: Any) -> Output:
    if not isinstance(one, dict):
        raise invalid([{"where": f"logs[{place}]", "what": "write an object"}])
    own = Fields(one, f"logs[{place}].", fields.mistakes)
    own.text("job", 64)
    own.integer("epoch")
    own.integer("offset")
    text, coded = one.get("text"), one.get("b64")
    if isinstance(coded, str):
        try:
            return cast(LogChunk, one), b64decode(coded, validate=True)
        except (Base64Error, ValueError):
            own.refuse_if("b64", True, "it is not base64")
            return cast(LogChunk, one), b""
    own.refuse_if("text", not isinstance(text, str), "write text or b64")
    return cast(LogChunk, one), text.encode() if isinstance(text, str) else b""


def _is_hex(text: str) -> bool:
    return not set(text) - set("0123456789abcdef")


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/workers/{worker}/report",
        Need.CREDENTIAL,
        report,
        "What happened since the last one; also the heartbeat. The same `seq` again gets the same answer",
        body=Report,
        reply=Reported,
        max_body=16 * MIB,
        vital=True,
    ),
    Endpoint(
        "POST",
        "/v1/workers/{worker}/poll",
        Need.CREDENTIAL,
        poll,
        "Waits until there is something to do",
        body=Poll,
        reply=Polled,
        max_body=65_536,
        vital=True,
    ),
    Endpoint(
        "POST",
        "/v1/workers",
        Need.JOIN,
        register,
        "A worker comes. An identical repeat gets the same answer",
        body=Register,
        reply=Registered,
        status=201,
        vital=True,
    ),
)
