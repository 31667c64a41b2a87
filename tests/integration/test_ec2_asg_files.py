"""The files of docs/backends/ec2-asg: they can be applied, and say neither too little nor too much."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import Accepted, Context, GivesNotice, Severity, Submission
from tests.place import until
from tests.stand_ins.ec2_asg import AsgStandIn
from worker.protocol import Shape
from worker_manager.clock import SystemClock

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "backends" / "ec2-asg"
STACK = FOLDER / "worker-group.yaml"
GROUP = "worker-manager-group"
SHAPE = Shape(cpus=1000, memory=2 * 2**30)


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AsgStandIn]:
    for name, value in AsgStandIn.credentials.items():
        monkeypatch.setenv(name, value)
    with AsgStandIn(tmp_path / "machines") as stand_in:
        yield stand_in


def deployed(aws: AsgStandIn, **parameters: str) -> dict[str, str]:
    """The outputs of the stack, in an account that has a network."""
    formation = aws.client("cloudformation")
    subnet = aws.client("ec2").describe_subnets()["Subnets"][0]
    chosen = {"Vpc": subnet["VpcId"], "Subnets": subnet["SubnetId"], "Pool": "p", **parameters}
    formation.create_stack(
        StackName="workers",
        TemplateBody=STACK.read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in chosen.items()],
    )
    (stack,) = formation.describe_stacks(StackName="workers")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def backend(aws: AsgStandIn, made: dict[str, str], folder: Path, **more: Any) -> GivesNotice:
    kind = registry.load("asg")
    given = {"endpoint-url": aws.url, "group": made["Group"], "queue-url": made["QueueUrl"], **more}
    context = Context("main", "p", str(folder), SystemClock().now_ms, shape=SHAPE, max_workers=4)
    return kind.create(kind.read(given), context)  # type: ignore[return-value]


def troubles(one: GivesNotice) -> dict[str, str]:
    return {finding.subject: finding.text for finding in one.check() if finding.severity is not Severity.OK}


def test_the_template_has_no_faults() -> None:
    from cfnlint.api import lint_file

    assert [str(fault) for fault in lint_file(STACK)] == []


def after_the_stack(aws: AsgStandIn) -> None:
    """What the page tells people to do by hand; and the hook, which moto does not make."""
    asg = aws.client("autoscaling")
    asg.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["AZRebalance", "ReplaceUnhealthy"])
    asg.put_lifecycle_hook(
        AutoScalingGroupName=GROUP,
        LifecycleHookName="worker-manager",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
    )


@pytest.mark.parametrize("choice", [{"InstanceType": "m5.large"}, {"InstanceType": "m5.large", "Spot": "yes"}])
def test_what_the_template_makes_is_a_group_that_doctor_finds_good(
    aws: AsgStandIn, tmp_path: Path, choice: dict[str, str]
) -> None:
    made = deployed(aws, **choice)
    one = backend(aws, made, tmp_path)
    assert set(troubles(one)) <= {"group processes", "lifecycle hook"}
    after_the_stack(aws)
    assert troubles(one) == {}


def test_by_capabilities_no_type_is_named_in_the_launch_template(aws: AsgStandIn, tmp_path: Path) -> None:
    made = deployed(aws, TmpVolumeGiB="20", DockerVolumeGiB="30", KeyName="mine")
    (group,) = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["NewInstancesProtectedFromScaleIn"]
    assert (group["MinSize"], group["DesiredCapacity"]) == (0, 0)
    template = aws.ec2.get_launch_template(made["LaunchTemplateId"]).latest_version().data
    assert "InstanceType" not in template
    assert template["MetadataOptions"]["HttpTokens"] == "required"
    devices = [device["DeviceName"] for device in template["BlockDeviceMappings"]]
    assert devices == ["/dev/xvda", "/dev/sdf", "/dev/sdg"]


def test_the_queue_takes_events_of_this_group_from_the_rules_alone(aws: AsgStandIn) -> None:
    deployed(aws)
    rules = {rule["Name"]: rule for rule in aws.client("events").list_rules()["Rules"]}
    assert json.loads(rules[f"{GROUP}-terminate"]["EventPattern"])["detail"] == {"AutoScalingGroupName": [GROUP]}
    assert set(rules) == {f"{GROUP}-terminate", f"{GROUP}-spot"}
    (statement,) = resources()["QueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    sources = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert [source["Fn::GetAtt"][0] for source in sources] == ["TerminateRule", "SpotRule"]


def resources() -> dict[str, Any]:
    """moto makes no queue policy."""
    from cfnlint.decode import decode

    return dict(decode(str(STACK))[0]["Resources"])


def test_the_instances_role_may_end_its_own_group_alone() -> None:
    text = STACK.read_text()
    assert text.count("Action: autoscaling:TerminateInstanceInAutoScalingGroup") == 1
    assert "autoScalingGroupName/${Name}" in text
    assert 'Action: "*"' not in text


# ---------------------------------------------------------------- rights


def statements() -> list[dict[str, Any]]:
    return list(json.loads((FOLDER / "manager-policy.json").read_text())["Statement"])


def actions() -> set[str]:
    return {action for statement in statements() for action in statement["Action"]}


def a_whole_life(aws: AsgStandIn, one: GivesNotice, id: str) -> None:
    submission = Submission(id, 2, "p", "main", SHAPE, ("/bin/sh", "-c", "echo here; sleep 600"), {}, ())
    assert one.launch(submission) == Accepted()
    until(lambda: len([seen for seen in one.list().seen if seen.submission == id]) == 2, "both workers")
    first, second = (seen.handle for seen in one.list().seen if seen.submission == id)
    until(lambda: "here" in one.logs(first, 100), "its words")
    assert one.terminate(first, force=True) == Accepted()
    aws.take_away(second)
    until(lambda: bool(one.notices()), "the notice")
    (notice,) = one.notices()
    assert one.hold(notice) == Accepted()
    assert one.release(notice) == Accepted()


def test_the_managers_policy_allows_what_it_does_and_nothing_else(aws: AsgStandIn, tmp_path: Path) -> None:
    aws.make_group(GROUP, "main", "p", version="$Default")
    made = {"Group": GROUP, "QueueUrl": aws.queues[GROUP]}
    aws.calls.clear()
    for api in ("launch-instances", "desired-capacity"):
        one = backend(aws, made, tmp_path, **{"launch-api": api})
        one.check()
        a_whole_life(aws, one, f"main-{api}")
        aws.no_capacity = "we have none|"
        waiting = Submission(f"main-x-{api}", 1, "p", "main", SHAPE, ("/bin/true",), {}, ())
        one.launch(waiting)
        one.list()
        aws.come()
    done = {f"{service}:{action}" for service, action in aws.calls} - {
        "sts:getcalleridentity",  # needs no right
        *("autoscaling:describeinstancerefreshes", "sqs:sendmessage"),  # the stand-in's own
    }
    implied = {"ec2:createfleet"}  # LaunchInstances does it in the caller's name
    assert {action.lower() for action in actions()} == done | implied


def test_what_changes_something_is_limited_to_what_is_ours() -> None:
    assert not [action for action in actions() if "*" in action]
    for statement in statements():
        changing = [name for name in statement["Action"] if not name.partition(":")[2].startswith("Describe")]
        if changing and changing != ["ec2:CreateFleet"]:
            assert "worker-manager" in json.dumps(statement), changing
