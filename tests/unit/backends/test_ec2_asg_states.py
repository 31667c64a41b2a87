"""What the platform says, as values: states, reasons, the group, its activities."""

from datetime import UTC, datetime
from typing import Any

import pytest

from backends.base import RefusalKind, Severity, WorkerPhase
from backends.ec2_asg import states
from backends.ec2_asg.checks import of_requirements
from backends.ec2_asg.group import Member, read_group, read_instances, read_trouble
from worker.protocol import Shape


def test_every_state_that_the_api_knows_is_in_a_table_or_in_store() -> None:
    session = pytest.importorskip("botocore.session").get_session()
    known = session.get_service_model("autoscaling").shape_for("LifecycleState").enum
    assert len(known) > 25
    missing = {state for state in known if state not in states.LIFECYCLE and not state.startswith(states.IN_STORE)}
    assert missing == {"Quarantined"}, "nobody says what that means, so it is unknown"
    instance = session.get_service_model("ec2").shape_for("InstanceStateName").enum
    assert set(instance) == set(states.INSTANCE)


@pytest.mark.parametrize("state", ["", "Quarantined", "inservice", "Meditating", "Pending "])
def test_a_state_in_no_table_is_unknown(state: str) -> None:
    assert states.lifecycle_phase(state) is WorkerPhase.UNKNOWN
    assert states.instance_phase(state) is WorkerPhase.UNKNOWN


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("We currently do not have sufficient p4d.24xlarge capacity in the Availability Zone", RefusalKind.CAPACITY),
        ("Could not launch On-Demand Instances. InsufficientInstanceCapacity - …", RefusalKind.CAPACITY),
        ("There is no Spot capacity available that matches your request.", RefusalKind.CAPACITY),
        ("MaxSpotInstanceCountExceeded: Max spot instance count exceeded", RefusalKind.QUOTA),
        ("You have requested more vCPU capacity than your current vCPU limit of 32 allows", RefusalKind.QUOTA),
        ("Server.SpotInstanceTermination: instance termination due to spot capacity", RefusalKind.CAPACITY),
        ("You are not authorized to use launch template: lt-1", RefusalKind.AUTH),
        ("Client.InvalidKMSKey.InvalidState: The KMS key is disabled", RefusalKind.AUTH),
        ("The security group 'sg-1' does not exist", RefusalKind.CONFIG),
        ("Your requested instance type is not supported in your requested zone", RefusalKind.CONFIG),
        ("Request limit exceeded: RequestLimitExceeded", RefusalKind.THROTTLED),
        ("Client.UserInitiatedShutdown: User initiated shutdown", None),
        ("", None),
        ("x" * 10_000_000, None),
    ],
)
def test_the_platforms_words_have_a_kind(text: str, kind: RefusalKind | None) -> None:
    assert states.reason_kind(text) is kind


def answer(**more: Any) -> dict[str, Any]:
    return {
        "AutoScalingGroupName": "g",
        "AutoScalingGroupARN": "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:x:autoScalingGroupName/g",
        "DesiredCapacity": 2,
        "MinSize": 0,
        "MaxSize": 5,
        **more,
    }


def instance(id: str, state: str, zone: str = "a") -> dict[str, str]:
    return {"InstanceId": id, "LifecycleState": state, "AvailabilityZone": zone}


def test_what_still_has_to_come_is_counted_without_what_leaves() -> None:
    members = [instance("i-1", "InService"), instance("i-2", "Terminating:Wait"), instance("i-3", "Warmed:Stopped")]
    group = read_group(answer(Instances=members, DesiredCapacity=3))
    assert (group.account, group.counted, group.outstanding) == ("123456789012", 1, 2)
    assert read_group(answer(Instances=members, DesiredCapacity=0)).outstanding == 0


def test_the_emptiest_zone_is_counted_and_ties_are_broken_by_name() -> None:
    zones = ["c", "a", "b"]
    assert read_group(answer(AvailabilityZones=zones)).emptiest_zone() == "a"
    members = [instance("i-1", "InService", "a"), instance("i-2", "InService", "b")]
    assert read_group(answer(AvailabilityZones=zones, Instances=members)).emptiest_zone() == "c"
    assert read_group(answer(AvailabilityZones=zones, Instances=members)).emptiest_zone(["c"]) == "a"
    assert read_group(answer(AvailabilityZones=zones)).emptiest_zone(zones) == "a"
    assert read_group(answer()).emptiest_zone() == ""


@pytest.mark.parametrize(
    ("base", "percent", "mixed"), [(0, 100, False), (0, 0, False), (0, 50, True), (1, 0, True), (None, None, False)]
)
def test_a_group_of_both_kinds_is_known(base: int | None, percent: int | None, mixed: bool) -> None:
    distribution = {"OnDemandBaseCapacity": base, "OnDemandPercentageAboveBaseCapacity": percent}
    policy = {"InstancesDistribution": {name: value for name, value in distribution.items() if value is not None}}
    assert read_group(answer(MixedInstancesPolicy=policy)).mixed is mixed


def test_what_is_asked_of_types_is_held_against_the_shape() -> None:
    asked = {"VCpuCount": {"Min": 4, "Max": 8}, "MemoryMiB": {"Min": 16384}}
    policy = {"LaunchTemplate": {"Overrides": [{"InstanceRequirements": asked}]}}
    least = read_group(answer(MixedInstancesPolicy=policy)).least
    assert least == (4, 16384)
    assert of_requirements(Shape(4000, 2**34), least).severity is Severity.OK
    for large in (Shape(4001, 2**30), Shape(1000, 2**34 + 1)):
        assert of_requirements(large, least).severity is Severity.ERROR
    assert read_group(answer()).least is None


def test_the_template_is_found_with_and_without_a_policy() -> None:
    named = {"LaunchTemplateId": "lt-1", "Version": "$Latest"}
    found = read_group(answer(LaunchTemplate=named)).template
    policy = {"LaunchTemplate": {"LaunchTemplateSpecification": named, "Overrides": [{"WeightedCapacity": "2"}]}}
    assert found == read_group(answer(MixedInstancesPolicy=policy)).template
    assert read_group(answer(MixedInstancesPolicy=policy)).weighted
    assert read_group(answer()).template is None


@pytest.mark.parametrize("nonsense", [{}, {"AutoScalingGroupName": "g"}, answer(DesiredCapacity="many")])
def test_an_answer_that_is_none_is_an_error(nonsense: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        read_group(nonsense)


def test_an_instance_carries_its_tags_and_why_it_ended() -> None:
    tags = {
        "worker-manager:submission": "s1",
        "worker-manager:index": "7",
        "aws:autoscaling:groupName": "g",
    }
    one = {
        "InstanceId": "i-1",
        "State": {"Name": "terminated"},
        "LaunchTime": datetime(2026, 1, 1, tzinfo=UTC),
        "StateReason": {"Code": "Server.SpotInstanceTermination", "Message": "gone"},
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    (read,) = read_instances({"Reservations": [{"Instances": [one]}]})
    assert (read.submission, read.index, read.group, read.launched_at) == ("s1", 7, "g", 1767225600000)
    assert "Server.SpotInstanceTermination" in read.reason


@pytest.mark.parametrize("index", ["", "-1", "x", "1e3", "²", "9" * 50])
def test_a_number_that_is_none_is_no_number(index: str) -> None:
    one = {"InstanceId": "i-1", "Tags": [{"Key": "worker-manager:index", "Value": index}]}
    (read,) = read_instances({"Reservations": [{"Instances": [one]}]})
    assert read.index is None


def activity(status: str, text: str = "", description: str = "Launching a new EC2 instance") -> dict[str, Any]:
    return {"StatusCode": status, "StatusMessage": text, "Description": description}


def test_trouble_is_the_newest_word_of_failure_since_the_last_success() -> None:
    failed = activity("Failed", "no capacity")
    found = read_trouble({"Activities": [activity("InProgress"), failed, activity("Successful")]})
    assert found
    assert found.text == "no capacity"
    assert read_trouble({"Activities": [activity("Successful"), failed]}) is None
    ended = activity("Failed", "could not be ended", "Terminating EC2 instance: i-1")
    assert read_trouble({"Activities": [ended]}) is None
    assert read_trouble({}) is None
    long = read_trouble({"Activities": [activity("Failed", "x" * 10_000_000)]})
    assert long
    assert len(long.text) <= 2000


@pytest.mark.parametrize(
    ("state", "counts"),
    [("Pending", True), ("InService", True), ("Standby", False), ("Terminating", False), ("Warmed:Running", False)],
)
def test_what_counts_towards_the_size(state: str, counts: bool) -> None:
    assert Member("i-1", state).counts is counts
