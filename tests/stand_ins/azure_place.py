"""A Batch account of the stand-in, managers that use it, and the words in which its tests are written."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends import registry
from backends.azure_batch import AzureBatchBackend
from backends.azure_batch.settings import read
from backends.base import Context, Finding, Seen, Severity, Submission
from tests.stand_ins.azure_batch import FakeBatch
from worker.protocol import Shape
from worker_manager.clock import SystemClock

JOB = "workers"
RUNS = ("/bin/sleep", "600")


class Place:
    """A Batch account, and managers that use it."""

    def __init__(self, root: Path, **fake: Any) -> None:
        self.fake = FakeBatch(root, **fake)
        self.count = 0
        self.clock: Any = SystemClock()

    def backend(
        self, manager: str = "m", credential: Any = None, shape: Shape | None = None, **more: Any
    ) -> AzureBatchBackend:
        named = {name.replace("_", "-"): value for name, value in more.items()}
        given = {"service-url": self.fake.url, "job-id": JOB, **named}
        if credential is None:
            given = {"account-name": self.fake.account, "account-key": "env:KEY", **given}
        values = registry.load("azure-batch").read(given, {"KEY": self.fake.key, "WRONG": "d3Jvbmc=", "SAS": self.sas})
        context = Context(manager, "p", "", self.clock.now_ms, 10.0, shape=shape, max_workers=8)
        return AzureBatchBackend(read(values), context, credential)

    sas = "sv=1&sp=rwcl&sig=none"

    def submission(self, count: int = 1, command: tuple[str, ...] = RUNS, id: str = "", **more: Any) -> Submission:
        self.count += 1
        tokens = tuple(f"wmj_canary_{index}" for index in range(count))
        return Submission(id or f"m-{self.count}", count, "p", "m", Shape(cpus=100), command, {}, tokens, **more)

    def tasks(self) -> set[str]:
        return set(self.fake.tasks[JOB])


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def seen(backend: AzureBatchBackend, handle: str) -> Seen:
    return next(one for one in backend.list().seen if one.handle == handle)


def bad(findings: tuple[Finding, ...]) -> Mapping[str, Finding]:
    return {one.subject: one for one in findings if one.severity is not Severity.OK}
