"""What travels between a client and the stand-in for Azure Batch: requests, refusals, and what a body may hold."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.stand_ins.azure_blobs import answer

VERSION = "2025-06-01"
_IDENTITY = {"resourceId": str}
TASK = {
    "id": str,
    "displayName": str,
    "commandLine": str,
    "environmentSettings": [{"name": str, "value": str}],
    "constraints": {"maxTaskRetryCount": int, "maxWallClockTime": str, "retentionTime": str},
    "requiredSlots": int,
    "userIdentity": {"username": str, "autoUser": {"scope": str, "elevationLevel": str}},
    "containerSettings": {
        "imageName": str,
        "containerRunOptions": str,
        "workingDirectory": str,
        "registry": {"registryServer": str, "username": str, "password": str, "identityReference": _IDENTITY},
    },
    "outputFiles": [
        {
            "filePattern": str,
            "destination": {"container": {"path": str, "containerUrl": str, "identityReference": _IDENTITY}},
            "uploadOptions": {"uploadCondition": str},
        }
    ],
}
_METADATA = [{"name": str, "value": str}]
JOB = {
    "id": str,
    "displayName": str,
    "poolInfo": {"poolId": str},
    "constraints": {"maxTaskRetryCount": int},
    "onAllTasksComplete": str,
    "metadata": _METADATA,
}
POOL = {
    "id": str,
    "displayName": str,
    "vmSize": str,
    "virtualMachineConfiguration": dict,
    "taskSlotsPerNode": int,
    "taskSchedulingPolicy": dict,
    "targetDedicatedNodes": int,
    "targetLowPriorityNodes": int,
    "enableAutoScale": bool,
    "autoScaleFormula": str,
    "autoScaleEvaluationInterval": str,
    "startTask": dict,
    "mountConfiguration": list,
    "networkConfiguration": dict,
    "identity": dict,
    "metadata": _METADATA,
}


class Refusal(Exception):
    """An answer of the service that is no success."""

    def __init__(self, status: int, code: str, words: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.words, self.headers = status, code, words or code, dict(headers or {})

    def body(self) -> dict[str, Any]:
        text = f"{self.words}\nRequestId:0000\nTime:2026-11-20T14:00:00.0000000Z"
        return {"odata.metadata": "$metadata#error", "code": self.code, "message": {"lang": "en-US", "value": text}}


@dataclass
class Call:
    """One request, understood."""

    handler: BaseHTTPRequestHandler
    purpose: str
    path: tuple[str, ...]
    query: dict[str, str]
    body: Any
    run: Callable[[], tuple[int, Any, dict[str, str]]]

    def reply(self, status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json; odata=minimalmetadata"} if raw else {}
        answer(self.handler, status, raw, {"request-id": "1", **kind, **(headers or {})})

    def cut(self) -> None:
        self.handler.close_connection = True
        with suppress(OSError):
            self.handler.connection.shutdown(2)


@dataclass
class Fault:
    """What happens to the next call of this purpose: `does` runs instead of it, or around it."""

    purpose: str
    does: Callable[[Call], bool]  # True: it has answered


def check(given: Any, known: Any, where: str = "body") -> None:
    """Refuses what the service would refuse: a property that it does not know, or of another type."""
    if isinstance(known, list):
        if not isinstance(given, list):
            raise Refusal(400, "InvalidRequestBody", f"{where} is no list")
        for one in given:
            check(one, known[0], where)
    elif isinstance(known, dict):
        if not isinstance(given, dict):
            raise Refusal(400, "InvalidRequestBody", f"{where} is no object")
        for name, value in given.items():
            if name not in known:
                raise Refusal(400, "InvalidRequestBody", f"{where} has no property {name}")
            check(value, known[name], f"{where}.{name}")
    elif not isinstance(given, known) or (known is int and isinstance(given, bool)):
        raise Refusal(400, "InvalidPropertyValue", f"{where} is {given!r}")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def failure(code: str, words: str) -> dict[str, Any]:
    return {"category": "usererror", "code": code, "message": words}
