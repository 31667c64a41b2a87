"""AWS Batch passes the suite: real HTTP to a stand-in whose jobs are processes of this machine."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backends import registry
from backends.aws_batch import CAPABILITIES
from backends.base import Backend, Context
from tests.conformance.adopter import Adopter, Behaviour
from tests.conformance.adopter import Fault as Wanted
from tests.conformance.suite import Conformance
from tests.stand_ins.aws import Answer, CutAfter, CutBefore, Fault, Garbage, Hang, What
from tests.stand_ins.aws_batch import BatchStandIn, Fate
from worker_manager.clock import SystemClock

QUEUE = "workers"
_NAME = "conformance-worker"
_FOR_EVER = 10**6

# $1 what it says, $2 its exit status or nothing, $3 deaf or nothing. It speaks when it is ready for a signal.
_SCRIPT = """
if [ "$3" = deaf ]; then trap '' TERM; else trap 'kill -KILL $!; exit 0' TERM; fi
[ -z "$1" ] || printf '%s\\n' "$1"
[ -z "$2" ] || exit "$2"
sleep 600 &
wait
"""

# No refusal for want of capacity: SubmitJob takes every job, and one that finds no machine waits in RUNNABLE.
ORDERS: Mapping[Wanted, tuple[str, What, int]] = {
    Wanted.THROTTLED: ("SubmitJob", Answer("TooManyRequestsException", 429, headers={"Retry-After": "3"}), 1),
    Wanted.DENIED: ("SubmitJob", Answer("AccessDeniedException", 403), 1),
    Wanted.OVER_QUOTA: (
        "SubmitJob",
        Answer("ClientException", 400, "You have reached the maximum number of jobs in SUBMITTED state"),
        1,
    ),
    Wanted.TIMED_OUT_BEFORE: ("SubmitJob", CutBefore(), 1),
    Wanted.TIMED_OUT_AFTER: ("SubmitJob", CutAfter(), 1),
    Wanted.LAUNCH_HANGS: ("SubmitJob", Hang(), 1),
    Wanted.LIST_HANGS: ("ListJobs", Hang(), _FOR_EVER),
    Wanted.END_HANGS: ("TerminateJob", Hang(), 1),
    Wanted.END_TIMED_OUT_AFTER: ("TerminateJob", CutAfter(), 1),
    Wanted.UNREADABLE: ("ListJobs", Answer("ServerException", 500), _FOR_EVER),
    Wanted.EXPIRED: ("ListJobs", Answer("ExpiredTokenException", 403), _FOR_EVER),
    Wanted.GARBAGE: ("ListJobs", Garbage(), _FOR_EVER),
}
FATES: Mapping[Wanted, Fate] = {
    Wanted.SLOW_BOOT: Fate(stays="RUNNABLE"),
    Wanted.DIES_AT_BOOT: Fate(dies="CannotPullContainerError: pull access denied for nonesuch"),
    Wanted.DIES_WITH_A_PAGE: Fate(dies="CannotPullContainerError: " + "no such image " * 10**6),
    Wanted.STRANGE_STATE: Fate(state="HIBERNATING"),
    Wanted.VANISHES: Fate(vanishes=True),
}


class AwsBatchAdopter(Adopter):
    def __init__(self, aws: BatchStandIn) -> None:
        ours = {Wanted.MISCONFIGURED, Wanted.PAGE_LOST}
        super().__init__(CAPABILITIES, frozenset({*ORDERS, *FATES, *ours}))
        self.aws = aws

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        kind = registry.load("aws-batch")
        values = kind.read({"endpoint-url": self.aws.url, "job-queue": QUEUE})
        timeout = max(call_timeout_s or 30.0, 4.0)  # the first call loads the SDK's models, on a busy machine
        return kind.create(values, Context(manager, pool, "", SystemClock().now_ms, timeout))

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        exits = "" if behaviour.exits is None else str(behaviour.exits)
        return ("/bin/sh", "-c", _SCRIPT, _NAME, behaviour.says, exits, "deaf" if behaviour.deaf else "")

    def inject(self, fault: Wanted) -> None:
        if fault in FATES:
            self.aws.next_job(FATES[fault])
        elif fault is Wanted.MISCONFIGURED:
            self.aws.client("batch").update_job_queue(jobQueue=QUEUE, state="DISABLED")
        elif fault is Wanted.PAGE_LOST:  # pages of two, and the second cannot be read, for as often as one call asks
            self.aws.page_with_filter = 2
            self.aws.order(Fault("batch", "ListJobs", Answer("ServerException", 500), 2, after=1))
        else:
            action, what, times = ORDERS[fault]
            self.aws.order(Fault("batch", action, what, times))

    def let_boot(self) -> None:
        self.aws.go_on()

    def close(self) -> None:
        pass  # the stand-in ends every process with itself

    # ------------------------------------------------ through /proc

    def alive(self, handle: str) -> bool:
        process = self.aws.jobs()[handle].process
        return process is not None and process.poll() is None

    def token(self, handle: str) -> str:
        environment = self.environment(handle)
        assert "WM_JOIN_TOKENS" not in environment
        path = Path(environment["WM_JOIN_TOKEN_FILE"])
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        return path.read_text()

    def environment(self, handle: str) -> Mapping[str, str]:
        words = self._proc(handle, "environ").decode().split("\0")
        return dict(word.split("=", 1) for word in words if word)

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(self._proc(handle, "cmdline").decode().split("\0")[:-1])

    def exposed(self, handle: str) -> str:
        """What is on the machine and in the definition. The job's own variables hold the tokens: Batch has nothing
        better for what differs from launch to launch, and docs/backends/aws-batch.md says who can read them."""
        definitions = self.aws.client("batch").describe_job_definitions()["jobDefinitions"]
        return repr(definitions) + repr(self.argv(handle)) + repr(self.environment(handle))

    def _proc(self, handle: str, name: str) -> bytes:
        """Of the worker itself, once the script has become it."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            process = self.aws.jobs()[handle].process
            assert process
            if Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[3:4] == [_NAME.encode()]:
                return Path(f"/proc/{process.pid}/{name}").read_bytes()
            self.pause()
        raise AssertionError(f"{handle} did not start")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchStandIn]:
    with BatchStandIn(tmp_path_factory.mktemp("aws")) as stand_in:
        yield stand_in


class TestAwsBatch(Conformance):
    @pytest.fixture
    def adopter(self, aws: BatchStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Adopter]:
        for name, value in BatchStandIn.credentials.items():
            monkeypatch.setenv(name, value)
        aws.make_queue(QUEUE)
        yield AwsBatchAdopter(aws)
        aws.forget()
