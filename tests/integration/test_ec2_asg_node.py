"""What stands in the user data as a program, run by a plain Python against a metadata service."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.ec2_asg import on_node
from tests.place import until
from tests.stand_ins.aws import Answer, Fault
from tests.stand_ins.aws_identity import Cloud, FakeMetadata
from tests.stand_ins.ec2_asg import AsgStandIn

PROGRAM = str(Path(on_node.__file__))


class Metadata(FakeMetadata):
    def __init__(self, instance: str = "i-0123456789abcdef0") -> None:
        self.more: dict[str, str] = {}
        super().__init__(Cloud().instance(instance), "us-east-1")

    def _tree(self) -> dict[str, str]:
        return super()._tree() | {f"/latest/meta-data/{path}": text for path, text in self.more.items()}


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata() as running:
        yield running


def start(metadata: Metadata, *words: str, **environment: str) -> subprocess.Popen[str]:
    given = {"PATH": os.environ["PATH"], "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url, **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-I", PROGRAM, *words], env=given, stdout=pipe, stderr=pipe, text=True)


def test_a_machine_in_store_waits_until_it_is_meant_to_work(metadata: Metadata) -> None:
    state = "autoscaling/target-lifecycle-state"
    metadata.more[state] = "Warmed:Stopped"
    waits = start(metadata, "await-service")
    with pytest.raises(subprocess.TimeoutExpired):
        waits.wait(1.0)
    metadata.more[state] = "InService"
    assert waits.wait(60) == 0


def test_a_machine_of_a_group_without_a_store_does_not_wait(metadata: Metadata) -> None:
    assert start(metadata, "await-service").wait(60) == 0


def test_who_it_is_is_told_by_its_tags_once_they_are_there(metadata: Metadata) -> None:
    metadata.more["tags/instance/worker-manager:submission"] = "main-1"
    asks = start(metadata, "worker", "60")
    with pytest.raises(subprocess.TimeoutExpired):
        asks.wait(0.5)
    metadata.more["tags/instance/worker-manager:index"] = "3"
    out, _ = asks.communicate(timeout=60)
    assert (out, asks.returncode) == ("main-1-3\n", 0)


def test_who_is_never_told_gives_up_and_says_so(metadata: Metadata) -> None:
    asks = start(metadata, "worker", "0.5")
    _, err = asks.communicate(timeout=60)
    assert asks.returncode == 1
    assert "wm-node:" in err


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[AsgStandIn]:
    with AsgStandIn(tmp_path / "machines", boots=False) as stand_in:
        stand_in.make_group("workers", "m", "p")
        yield stand_in


def test_it_ends_itself_and_has_the_group_want_one_fewer(aws: AsgStandIn) -> None:
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName="workers", DesiredCapacity=2)
    first, second = aws.members("workers")
    aws.order(Fault("autoscaling", "TerminateInstanceInAutoScalingGroup", Answer("Throttling", 400)))
    with Metadata(first) as metadata:
        leaves = start(metadata, "leave", "workers", AWS_ENDPOINT_URL=aws.url)
        _, err = leaves.communicate(timeout=60)
        assert (leaves.returncode, err) == (0, "")
    until(lambda: list(aws.members("workers")) == [second], "its end")
    assert aws.desired("workers") == 1


def test_where_it_may_not_its_manager_has_to(aws: AsgStandIn) -> None:
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName="workers", DesiredCapacity=1)
    (only,) = aws.members("workers")
    aws.order(Fault("autoscaling", "TerminateInstanceInAutoScalingGroup", Answer("AccessDenied", 403, "not you")))
    with Metadata(only) as metadata:
        leaves = start(metadata, "leave", "workers", AWS_ENDPOINT_URL=aws.url)
        _, err = leaves.communicate(timeout=60)
    assert leaves.returncode == 0
    assert "its manager has to" in err
    assert "not you" in err
    assert list(aws.members("workers")) == [only]
