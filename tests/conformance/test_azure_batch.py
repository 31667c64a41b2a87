"""The Azure Batch backend passes the suite, with the official client, against a stand-in that runs real processes."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from backends import registry
from backends.azure_batch import CAPABILITIES, AzureBatchBackend, recipe
from backends.azure_batch.settings import read
from backends.base import Backend, Context
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.conformance.suite import Conformance
from tests.stand_ins.azure_batch import FakeBatch
from tests.stand_ins.azure_wire import Refusal
from worker_manager.clock import SystemClock

JOB = "workers"
_NAME = "conformance-worker"

# $1 what it says, $2 its exit status or nothing, $3 deaf or nothing.
_SCRIPT = """
if [ "$3" = deaf ]; then trap '' TERM; else trap 'kill -KILL $!; exit 0' TERM; fi
[ -z "$1" ] || printf '%s\\n' "$1"
[ -z "$2" ] || exit "$2"
sleep 600 &
wait
"""

BUSY = Refusal(429, "TooManyRequests", "The account is rate limited.", {"Retry-After": "7"})
DENIED = Refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.")

ORDERS: Mapping[Fault, Callable[[FakeBatch], object]] = {
    Fault.THROTTLED: lambda fake: fake.refuse("add", BUSY),
    Fault.DENIED: lambda fake: fake.refuse("add", DENIED),
    Fault.OVER_QUOTA: lambda fake: fake.refuse("add", Refusal(409, "JobTaskQuotaReached", "no more tasks")),
    Fault.MISCONFIGURED: lambda fake: fake.refuse("add", Refusal(409, "JobDisabled", "The job is disabled.")),
    Fault.TIMED_OUT_BEFORE: lambda fake: fake.cut("add", after=False),
    Fault.TIMED_OUT_AFTER: lambda fake: fake.cut("add", after=True),
    Fault.LAUNCH_HANGS: lambda fake: fake.hang("add"),
    Fault.LIST_HANGS: lambda fake: fake.hang("list"),
    Fault.END_HANGS: lambda fake: fake.hang("terminate"),
    Fault.END_TIMED_OUT_AFTER: lambda fake: fake.cut("terminate", after=True),
    Fault.UNREADABLE: lambda fake: fake.refuse("list", Refusal(500, "InternalError", "x" * 10_000)),
    Fault.EXPIRED: lambda fake: fake.refuse("list", Refusal(401, "AuthenticationFailed", "expired")),
    Fault.GARBAGE: lambda fake: fake.garble("list"),
    Fault.PAGE_LOST: lambda fake: fake.lose_page(),
    Fault.SLOW_BOOT: lambda fake: setattr(fake, "hold_next", 1),
    Fault.DIES_AT_BOOT: lambda fake: setattr(fake, "die_next", 1),
    Fault.DIES_WITH_A_PAGE: lambda fake: (setattr(fake, "die_next", 1), setattr(fake, "die_words", "x" * 10**7)),
    Fault.STRANGE_STATE: lambda fake: setattr(fake, "strange_next", 1),
    Fault.VANISHES: lambda fake: setattr(fake, "vanish_next", 1),
}


class AzureBatchAdopter(Adopter):
    """Batch refuses no task for lack of machines, so that is not ordered: it queues it."""

    def __init__(self, root: Path) -> None:
        super().__init__(CAPABILITIES, frozenset(ORDERS))
        self.fake = FakeBatch(root, page=150)
        self.fake.make(JOB)

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        context = Context(manager, pool, "", SystemClock().now_ms, call_timeout_s or 30.0)
        given = {"service-url": self.fake.url, "job-id": JOB, "account-name": self.fake.account}
        kind = registry.load("azure-batch")
        values = kind.read({**given, "account-key": "env:KEY"}, {"KEY": self.fake.key})
        return AzureBatchBackend(read(values), context)

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        exits = "" if behaviour.exits is None else str(behaviour.exits)
        return ("/bin/sh", "-c", _SCRIPT, _NAME, behaviour.says, exits, "deaf" if behaviour.deaf else "")

    def inject(self, fault: Fault) -> None:
        ORDERS[fault](self.fake)

    def let_boot(self) -> None:
        self.fake.let_boot()

    def close(self) -> None:
        self.fake.close()
        assert self.fake.problems == []

    # ------------------------------------------------ what can be seen from outside

    def alive(self, handle: str) -> bool:
        return self.fake.alive(JOB, handle)

    def token(self, handle: str) -> str:
        path = Path(self.environment(handle)["WM_JOIN_TOKEN_FILE"])
        assert path.stat().st_mode & 0o777 == 0o600
        return path.read_text()

    def environment(self, handle: str) -> Mapping[str, str]:
        words = _proc(self._worker(handle), "environ").decode().split("\0")
        return dict(word.split("=", 1) for word in words if word)

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(_proc(self._worker(handle), "cmdline").decode().split("\0")[:-1])

    def exposed(self, handle: str) -> str:
        """The task without the one variable that carries the token (recipe.py says why), and the running processes."""
        task = self.fake.tasks[JOB].get(handle)
        if task is None:
            return ""
        variables = task.spec["environmentSettings"]
        others = [one["value"] for one in variables if one["name"] != recipe.TOKEN]
        spec = {name: value for name, value in task.spec.items() if name != "environmentSettings"}
        texts = [json.dumps(spec), recipe.unpacked(others[0])]
        if task.state == "running":
            worker = self._worker(handle)
            texts += [_proc(worker, "cmdline").decode(), _proc(worker, "environ").decode()]
        return "".join(texts)

    def _worker(self, handle: str) -> int:
        """Not the shell around it, which has the token until it becomes the worker."""
        deadline = time.monotonic() + 20
        starts = (b"WM_WORKER=", b"AZ_BATCH_TASK_DIR=" + os.fsencode(self.fake.root / JOB) + b"/")
        marks = [start + os.fsencode(handle) + b"\0" for start in starts]
        while time.monotonic() < deadline:
            for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
                environ, words = _proc(pid, "environ"), _proc(pid, "cmdline").split(b"\0")
                if words[3:4] == [_NAME.encode()] and all(mark in environ for mark in marks):
                    return pid
        raise AssertionError(f"{handle} did not start")


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


class TestAzureBatch(Conformance):
    @pytest.fixture
    def adopter(self, tmp_path: Path) -> Iterator[Adopter]:
        adopter = AzureBatchAdopter(tmp_path)
        yield adopter
        adopter.close()
