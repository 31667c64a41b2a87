"""The backend for Auto Scaling groups passes the suite, by each of its two ways to ask for instances, which are real
processes here, started by the user data that the backend put into the launch template."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from backends.aws import Account
from backends.base import Backend, Context
from backends.ec2_asg import CAPABILITIES, OPTIONS, Ec2AsgBackend
from backends.options import complete
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.conformance.suite import Conformance
from tests.stand_ins import aws
from tests.stand_ins.ec2_asg import AsgStandIn, Fate
from worker_manager.clock import SystemClock

_NAME = "conformance-worker"

# $1 what it says, $2 its exit status or nothing, $3 deaf or nothing. It speaks when it is ready for a signal.
_SCRIPT = """
if [ "$3" = deaf ]; then trap '' TERM; else trap 'kill -KILL $!; exit 0' TERM; fi
[ -z "$1" ] || printf '%s\\n' "$1"
[ -z "$2" ] || exit "$2"
sleep 600 &
wait
"""

_LONG = "We currently do not have sufficient m5.large capacity. " * 200_000

_OF_LAUNCH = {
    Fault.THROTTLED: aws.Answer("Throttling", 400, "Rate exceeded"),
    Fault.DENIED: aws.Answer("AccessDenied", 403, "not authorized to perform that"),
    Fault.MISCONFIGURED: aws.Answer("ValidationError", 400, "You must use a valid fully-formed launch template."),
    Fault.TIMED_OUT_BEFORE: aws.CutBefore(),
    Fault.TIMED_OUT_AFTER: aws.CutAfter(),
    Fault.LAUNCH_HANGS: aws.Hang(),
}
_OF_LIST = {
    Fault.UNREADABLE: aws.Answer("InternalFailure", 500),
    Fault.EXPIRED: aws.Answer("ExpiredToken", 403, "The security token included in the request is expired"),
    Fault.GARBAGE: aws.Garbage(),
    Fault.LIST_HANGS: aws.Hang(),
}
_OF_ENDS = {Fault.END_HANGS: aws.Hang(), Fault.END_TIMED_OUT_AFTER: aws.CutAfter()}
_FATES = {
    Fault.SLOW_BOOT: Fate(stays="Pending"),
    Fault.STRANGE_STATE: Fate(stays="Meditating"),
    Fault.VANISHES: Fate(vanishes=True),
    Fault.DIES_WITH_A_PAGE: Fate(dies="the host is on fire; " * 500_000),
}
_UNREADABLE_QUEUE = aws.Fault("sqs", "ReceiveMessage", aws.Answer("InternalFailure", 500), times=2)
_BY_LAUNCH_INSTANCES = {Fault.REFUSED, Fault.LONG_REFUSAL}  # a desired capacity is never refused for want of machines


@cache
def account(url: str, timeout: float) -> Account:
    """Making the SDK's clients costs more than most tests."""
    return Account(complete(OPTIONS, {"endpoint-url": url, "group": "any"}), timeout / 2)


class AsgAdopter(Adopter):
    def __init__(self, root: Path, api: str, stand_in: AsgStandIn) -> None:
        faults = {*_OF_LAUNCH, *_OF_LIST, *_OF_ENDS, *_FATES, Fault.OVER_QUOTA, Fault.DIES_AT_BOOT}
        faults |= {Fault.NOTICE, Fault.NOTICES_UNREADABLE}
        faults |= _BY_LAUNCH_INSTANCES if api == "launch-instances" else set()
        super().__init__(CAPABILITIES, frozenset(faults))
        self.root = root
        self.api = api
        self.aws = stand_in
        self.groups: set[str] = set()
        self.dies = False

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        group = f"{manager}-{pool}"
        if group not in self.groups:
            self.aws.make_group(group, manager, pool)
            self.groups.add(group)
        folder = self.root / manager / pool
        folder.mkdir(parents=True, exist_ok=True)
        # A call to this stand-in takes more than 0.2 s when the machine is busy.
        timeout = max(call_timeout_s, 10.0) if call_timeout_s else 30.0
        context = Context(manager, pool, str(folder), SystemClock().now_ms, timeout)
        options = {
            "group": group,
            "endpoint-url": self.aws.url,
            "launch-api": self.api,
            "queue-url": self.aws.queues[group],
        }
        return Ec2AsgBackend(complete(OPTIONS, options), context, account(self.aws.url, timeout))

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        exits = "9" if self.dies else "" if behaviour.exits is None else str(behaviour.exits)
        self.dies = False
        return ("/bin/sh", "-c", _SCRIPT, _NAME, behaviour.says, exits, "deaf" if behaviour.deaf else "")

    def inject(self, fault: Fault) -> None:
        self.dies |= fault is Fault.DIES_AT_BOOT
        if fault in _FATES:
            self.aws.give(_FATES[fault])
        elif fault in _OF_LAUNCH:
            action = "LaunchInstances" if self.api == "launch-instances" else "SetDesiredCapacity"
            self.aws.order(aws.Fault("autoscaling", action, _OF_LAUNCH[fault]))
        elif fault in _OF_LIST:  # a question is asked twice
            self.aws.order(aws.Fault("autoscaling", "DescribeAutoScalingGroups", _OF_LIST[fault], times=2))
        elif fault in _OF_ENDS:
            self.aws.order(aws.Fault("autoscaling", "TerminateInstanceInAutoScalingGroup", _OF_ENDS[fault]))
        elif fault is Fault.OVER_QUOTA:
            for group in self.groups:
                self.aws.asg.autoscaling_groups[group].max_size = 0
        elif fault is Fault.NOTICE:
            self.aws.take_away(list(self.aws.machines)[-1])
        elif fault is Fault.NOTICES_UNREADABLE:
            self.aws.order(replace(_UNREADABLE_QUEUE))
        elif fault in _BY_LAUNCH_INSTANCES:
            text = _LONG if fault is Fault.LONG_REFUSAL else "no m5.large here"
            self.aws.no_capacity = f"InsufficientInstanceCapacity|{text}"

    def let_boot(self) -> None:
        self.aws.go_on()

    def pause(self) -> None:
        time.sleep(0.05)

    def close(self) -> None:
        pass

    # ------------------------------------------------ through /proc

    def alive(self, handle: str) -> bool:
        return bool(self.aws.machines[handle].pids())

    def environment(self, handle: str) -> Mapping[str, str]:
        words = _proc(self._worker(handle), "environ").decode().split("\0")
        return dict(word.split("=", 1) for word in words if word)

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(_proc(self._worker(handle), "cmdline").decode().split("\0")[:-1])

    def exposed(self, handle: str) -> str:
        machine = self.aws.machines[handle]
        shown = "".join((_proc(pid, "cmdline") + _proc(pid, "environ")).decode() for pid in machine.pids())
        template = self.aws.asg.autoscaling_groups[machine.group].ec2_launch_template
        return shown + "".join(str(version.data) for version in template.versions)

    def _worker(self, handle: str) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for pid in self.aws.machines[handle].pids():
                if _proc(pid, "cmdline").split(b"\0")[3:4] == [_NAME.encode()]:
                    return pid
            time.sleep(0.05)
        raise AssertionError(f"{handle} did not start: {self.aws.machines[handle].console.read_text()}")


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgStandIn]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AsgStandIn.credentials.items():
            patch.setenv(name, value)
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # it would read them anew for each test
        with AsgStandIn(tmp_path_factory.mktemp("asg") / "machines") as running:
            yield running


class Asg(Conformance):
    api = ""

    @pytest.fixture
    def adopter(self, tmp_path: Path, stand_in: AsgStandIn) -> Iterator[Adopter]:
        yield AsgAdopter(tmp_path, self.api, stand_in)
        stand_in.clear()


class TestLaunchInstances(Asg):
    api = "launch-instances"
