"""What is wrong with a queue: every trouble by itself, and which of several explains why a job waits."""

from typing import Any

import pytest

from backends.aws_batch.queue import Environment, Queue, queue_in, troubles, worst
from backends.base import RefusalKind

GOOD = Environment("good", "EC2", "ENABLED", "VALID", most_vcpus=16, wanted_vcpus=4)
FULL = Environment("full", "SPOT", "ENABLED", "VALID", most_vcpus=16, wanted_vcpus=16)
BROKEN = Environment("broken", "EC2", "ENABLED", "INVALID", "CLIENT_ERROR - no role")
OFF = Environment("off", "EC2", "DISABLED", "VALID", most_vcpus=8)
NEW = Environment("new", "FARGATE", "ENABLED", "CREATING", most_vcpus=8)


def queue(*environments: Environment, state: str = "ENABLED", status: str = "VALID", reason: str = "") -> Queue:
    return Queue("q", state, status, reason, environments)


@pytest.mark.parametrize(
    ("one", "kind", "words"),
    [
        (queue(GOOD), None, ""),
        (queue(NEW), None, ""),
        (queue(GOOD, status="UPDATING"), None, ""),
        (queue(GOOD, BROKEN), None, ""),
        (queue(GOOD, FULL), None, ""),
        (queue(OFF, NEW), None, ""),
        (queue(FULL), RefusalKind.QUOTA, "full (16 of 16 vCPUs)"),
        (queue(FULL, BROKEN), RefusalKind.QUOTA, "full (16 of 16 vCPUs)"),
        (queue(BROKEN), RefusalKind.CONFIG, "is INVALID: CLIENT_ERROR - no role"),
        (queue(OFF), RefusalKind.CONFIG, "is DISABLED"),
        (queue(), RefusalKind.CONFIG, "has no compute environment"),
        (queue(GOOD, state="DISABLED"), RefusalKind.CONFIG, "is DISABLED"),
        (queue(GOOD, status="INVALID", reason="gone"), RefusalKind.CONFIG, "is INVALID: gone"),
        (queue(FULL, state="DISABLED"), RefusalKind.CONFIG, "is DISABLED"),
    ],
)
def test_the_one_that_explains_it(one: Queue, kind: RefusalKind | None, words: str) -> None:
    found = worst(one)
    assert (found.kind if found else None) is kind
    assert words in (found.text if found else "")


def test_a_person_is_told_of_every_trouble_and_what_mends_it() -> None:
    found = list(troubles(queue(GOOD, BROKEN, OFF, state="DISABLED")))
    assert [one.subject for one in found] == ["job queue q", "compute environment broken", "compute environment off"]
    assert all(one.mend for one in found)


def test_vcpus_are_those_that_can_be_used() -> None:
    assert queue(GOOD, FULL, OFF).most_vcpus == 32
    assert queue(OFF).most_vcpus is None
    assert queue(GOOD, Environment("theirs", "UNMANAGED", "ENABLED", "VALID")).most_vcpus is None


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"computeResources": {"type": "SPOT"}}, "SPOT"),
        ({"computeResources": {"type": "EC2"}, "eksConfiguration": {"eksClusterArn": "a"}}, "EKS"),
        ({"type": "UNMANAGED"}, "UNMANAGED"),
        ({}, ""),
    ],
)
def test_what_an_environment_is_made_of(row: dict[str, Any], kind: str) -> None:
    assert queue_in({"jobQueueName": "q"}, [row]).environments[0].kind == kind


def test_an_answer_with_nothing_in_it_is_no_reason_to_fail() -> None:
    assert [one.kind for one in troubles(queue_in({}, [{}]))] == [RefusalKind.CONFIG] * 4
