"""The files of docs/backends/aws-batch: they can be applied, and say neither too little nor too much."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import Accepted, Backend, Context, Severity, Submission
from tests.place import until
from tests.stand_ins.aws_batch import BatchStandIn
from worker.protocol import Shape
from worker_manager.clock import SystemClock

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "backends" / "aws-batch"
STACK = FOLDER / "stack.yaml"
SHAPE = Shape(cpus=1000, memory=2 * 2**30)


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchStandIn]:
    for name, value in BatchStandIn.credentials.items():
        monkeypatch.setenv(name, value)
    with BatchStandIn(tmp_path) as stand_in:
        yield stand_in


def deployed(aws: BatchStandIn, **parameters: str) -> dict[str, str]:
    """The outputs of the stack, in an account that has a network."""
    ec2, formation = aws.client("ec2"), aws.client("cloudformation")
    subnet = ec2.describe_subnets()["Subnets"][0]
    role = aws.client("iam").create_role(RoleName="batch-service", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    chosen = {"Vpc": subnet["VpcId"], "Subnets": subnet["SubnetId"], "ServiceRoleArn": role, **parameters}
    chosen.setdefault("InstanceTypes", "c5.large,m5.large")  # moto takes a list of one for a text
    formation.create_stack(
        StackName="workers",
        TemplateBody=STACK.read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in chosen.items()],
    )
    (stack,) = formation.describe_stacks(StackName="workers")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def backend(aws: BatchStandIn, made: dict[str, str], **more: Any) -> Backend:
    kind = registry.load("aws-batch")
    given = {
        "endpoint-url": aws.url,
        "job-queue": made["JobQueue"],
        "log-group": made["LogGroup"],
        "execution-role-arn": made["ExecutionRoleArn"],
        "job-role-arn": made["JobRoleArn"],
        **more,
    }
    return kind.create(kind.read(given), Context("main", "p", "", SystemClock().now_ms, shape=SHAPE, max_workers=4))


def a_whole_life(one: Backend) -> None:
    submission = Submission("main-1", 2, "p", "main", SHAPE, ("/bin/sh", "-c", "echo here; sleep 600"), {}, ("a", "b"))
    outcome = one.launch(submission)
    assert isinstance(outcome, Accepted)
    until(lambda: "here" in one.logs(outcome.handles[0], 100), "its words")
    assert len(one.list().seen) == 2
    for handle in outcome.handles.values():
        assert one.terminate(handle, force=True) == Accepted()


def test_the_template_has_no_faults() -> None:
    from cfnlint.api import lint_file

    assert [str(fault) for fault in lint_file(STACK)] == []


@pytest.mark.parametrize("kind", ["EC2", "FARGATE"])
def test_what_the_template_makes_is_a_queue_that_doctor_finds_good(aws: BatchStandIn, kind: str) -> None:
    made = deployed(aws, Kind=kind)
    one = backend(aws, made, platform="fargate" if kind == "FARGATE" else "ec2")
    assert [finding for finding in one.check() if finding.severity is not Severity.OK] == []
    a_whole_life(one)


def test_machines_answer_metadata_version_two_alone(aws: BatchStandIn) -> None:
    deployed(aws, Kind="SPOT")
    (template,) = aws.client("ec2").describe_launch_template_versions(LaunchTemplateName="worker-manager-batch")[
        "LaunchTemplateVersions"
    ]
    assert template["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"] == "required"


# ---------------------------------------------------------------- rights


def statements(name: str) -> list[dict[str, Any]]:
    return list(json.loads((FOLDER / name).read_text())["Statement"])


def actions(name: str) -> set[str]:
    return {action for statement in statements(name) for action in statement["Action"]}


def test_the_managers_policy_allows_what_it_does_and_nothing_else(aws: BatchStandIn) -> None:
    made = deployed(aws)
    aws.calls.clear()
    one = backend(aws, made)
    one.check()
    a_whole_life(one)
    one.list()
    done = {f"{service}:{action}" for service, action in aws.calls} - {"sts:getcalleridentity"}  # needs no right
    implied = {"batch:tagresource", "iam:passrole"}  # by tags and roles in the requests
    assert {action.lower() for action in actions("manager-policy.json")} == done | implied


@pytest.mark.parametrize("name", ["manager-policy.json", "job-role-policy.json"])
def test_no_policy_has_a_wildcard_for_an_action(name: str) -> None:
    assert not [action for action in actions(name) if "*" in action]
    changing = [statement for statement in statements(name) if statement["Resource"] == "*"]
    verbs = {action.partition(":")[2] for statement in changing for action in statement["Action"]}
    assert all(verb.startswith(("Describe", "List", "Get")) for verb in verbs), "everywhere, it may only look"


def test_the_names_that_the_policy_speaks_of_are_those_that_are_made(aws: BatchStandIn) -> None:
    made = deployed(aws)
    a_whole_life(backend(aws, made))
    allowed = {resource for one in statements("manager-policy.json") for resource in _list(one["Resource"])}
    definition = aws.client("batch").describe_job_definitions()["jobDefinitions"][0]["jobDefinitionArn"]
    stream = f"arn:aws:logs:us-east-1:1:log-group:{made['LogGroup']}:log-stream:x"
    for arn in (definition, stream, made["JobRoleArn"], made["ExecutionRoleArn"]):
        assert any(fnmatchcase(arn, pattern) for pattern in allowed - {"*"}), arn


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def test_the_actions_are_those_that_aws_knows() -> None:
    import botocore.session

    session = botocore.session.Session()
    named = {"elasticfilesystem": ()}  # the client actions of EFS are of the mount, not of its API
    for name in ("manager-policy.json", "job-role-policy.json"):
        for action in actions(name) - {"iam:PassRole"}:
            service, _, operation = action.partition(":")
            if service not in named:
                assert operation in session.get_service_model(service).operation_names, action
