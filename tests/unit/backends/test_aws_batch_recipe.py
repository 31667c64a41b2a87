"""A submission as the requests of AWS Batch: held against botocore's model of them, run by a real shell."""

import json
import subprocess
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from backends.aws_batch import recipe
from backends.aws_batch.fargate import SIZES, smallest
from backends.aws_batch.settings import OPTIONS, Settings, settings
from backends.base import AGENT, AgentFile, Submission
from backends.options import read
from tests.conformance.of_contents import HOSTILE
from worker.protocol import Shape

TOKEN = "t" * 43  # as long as the manager's
ROLE = "arn:aws:iam::123456789012:role/execution"


def chosen(**given: Any) -> Settings:
    return settings(read(OPTIONS, given))


def fargate(**given: Any) -> Settings:
    return chosen(platform="fargate", **{"execution-role-arn": ROLE, **given})


def submission(count: int = 1, **more: Any) -> Submission:
    made = Submission(
        id="main-00mfabcdefgh12345",
        count=count,
        pool="gpu",
        manager="main",
        shape=Shape(cpus=2000, memory=4 * 2**30),
        command=(AGENT, "--server", "https://hub.example:8443", "--worker-id", "{worker}"),
        environment={},
        join_tokens=(TOKEN,) * count,
        agent=AgentFile("https://hub.example:8443/v1/worker/" + "0" * 64 + ".pyz", "0" * 64, "/nowhere"),
    )
    return replace(made, **more)


@cache
def model() -> Any:
    import botocore.session

    return botocore.session.Session().get_service_model("batch")


def complaints(operation: str, request: dict[str, Any]) -> str:
    """What the SDK would say against a request, without sending it."""
    from botocore.validate import ParamValidator

    return str(ParamValidator().validate(request, model().operation_model(operation).input_shape).generate_report())


def container(one: Submission, chosen: Settings) -> dict[str, Any]:
    return dict(recipe.definition(one, chosen)["containerProperties"])


# ---------------------------------------------------------------- both requests


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"work-dir-volume": "fs-0123456789abcdef0/work", "volume": ["/data:/data:ro", "fs-0123456789abcdef0:/all"]},
        {"secret": ["KEY=arn:aws:ssm:us-east-1:1:parameter/x"], "execution-role-arn": ROLE},
        {"tag": ["team=a b", "cost=7"], "log-group": "/mine", "shared-memory": "1GiB", "privileged": "true"},
        {"share-identifier": "research", "scheduling-priority": "7", "job-role-arn": ROLE},
        {"platform": "fargate", "execution-role-arn": ROLE, "public-ip": "yes"},
    ],
)
@pytest.mark.parametrize("count", [1, 2, recipe.MAX_BATCH])
def test_the_requests_are_what_the_api_takes(given: dict[str, Any], count: int) -> None:
    one = submission(count, work_dir="/shared", shape=Shape(cpus=2000, memory=2**32, walltime=3_600_000))
    made = recipe.definition(one, chosen(**given))
    assert not recipe.problem(one, chosen(**given))
    assert not complaints("RegisterJobDefinition", made)
    assert not complaints("SubmitJob", recipe.job(one, chosen(**given), f"{made['jobDefinitionName']}:1"))


def test_the_same_content_has_the_same_definition_whatever_the_launch() -> None:
    one, two = submission(), replace(submission(5), id="main-00mfzzzzzzzz99999", join_tokens=("another",) * 5)
    assert recipe.definition(one, chosen()) == recipe.definition(two, chosen())


@pytest.mark.parametrize(
    "other",
    [
        submission(command=(AGENT, "--other")),
        submission(environment={"A": "b"}),
        submission(setup=("module load x",)),
        submission(shape=Shape(cpus=4000, memory=2**32)),
        submission(manager="second"),
        submission(pool="other"),
        submission(work_dir="/shared"),
    ],
)
def test_other_content_has_another_definition(other: Submission) -> None:
    assert recipe.definition(other, chosen())["jobDefinitionName"] != name_of(submission())


def name_of(one: Submission, **given: Any) -> str:
    return str(recipe.definition(one, chosen(**given))["jobDefinitionName"])


def test_the_name_begins_as_was_asked() -> None:
    assert name_of(submission(), **{"job-definition-name": "codalab-worker"}).startswith("codalab-worker-")
    assert name_of(submission()).startswith("worker-manager-")


def test_a_definition_holds_nothing_of_one_launch() -> None:
    text = json.dumps(recipe.definition(submission(3), chosen()))
    assert TOKEN not in text
    assert submission().id not in text


def test_a_worker_is_tried_once_and_its_tags_reach_the_container() -> None:
    made = recipe.definition(submission(), chosen(tag=["team=a"]))
    assert made["retryStrategy"] == {"attempts": 1}
    assert made["propagateTags"] is True
    assert made["tags"] == {"team": "a", "wm-manager": "main", "wm-pool": "gpu"}
    asked = recipe.job(submission(), chosen(tag=["team=a"]), "d:1")
    assert asked["tags"]["wm-submission"] == submission().id
    assert asked["tags"]["team"] == "a"


def test_several_workers_are_one_array_and_a_single_one_is_a_plain_job() -> None:
    assert "arrayProperties" not in recipe.job(submission(1), chosen(), "d:1")
    assert recipe.job(submission(2), chosen(), "d:1")["arrayProperties"] == {"size": 2}


def test_the_time_limit_is_that_of_the_shape() -> None:
    assert "timeout" not in recipe.definition(submission(), chosen())
    for walltime, seconds in ((3_600_000, 3600), (90_001, 91), (1000, 60)):
        made = recipe.definition(submission(shape=Shape(walltime=walltime)), chosen())
        assert made["timeout"] == {"attemptDurationSeconds": seconds}


# ---------------------------------------------------------------- sizes


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    whole = submission(recipe.MAX_BATCH)
    assert not recipe.problem(whole, chosen())
    size = len(json.dumps(recipe.overrides(whole)))
    assert size + recipe.KEPT_FOR_BATCH <= recipe.MOST_OVERRIDE_BYTES
    assert recipe.problem(submission(recipe.MAX_BATCH + 1), chosen())


def test_tokens_that_are_too_long_together_are_refused_before_aws_sees_them() -> None:
    long = submission(recipe.MAX_BATCH, join_tokens=("t" * 60,) * recipe.MAX_BATCH)
    assert "too much for one job" in recipe.problem(long, chosen())


def test_a_definition_that_is_too_long_is_refused_before_aws_sees_it() -> None:
    assert "24576 are possible" in recipe.problem(submission(setup=("x" * 25_000,)), chosen())
    assert len(json.dumps(recipe.definition(submission(), chosen()))) < 6000, "there is room for much"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"id": "Not_A_Label"}, "name"),
        ({"count": 0, "join_tokens": ()}, "workers"),
        ({"join_tokens": ()}, ""),
        ({"join_tokens": ("a", "b")}, "join tokens"),
        ({"join_tokens": ("a b",)}, "characters"),
        ({"join_tokens": ("a,b",)}, "characters"),
        ({"join_tokens": ("*",)}, "characters"),
        ({"environment": {"A B": "c"}}, "environment variable"),
        ({"command": ("a\0b",)}, "NUL"),
        ({"command": ()}, "no command"),
    ],
)
def test_what_can_never_be_launched_is_said(changes: dict[str, Any], word: str) -> None:
    assert word in recipe.problem(submission(**changes), chosen())
    assert bool(word) == bool(recipe.problem(submission(**changes), chosen()))


# ---------------------------------------------------------------- resources


@pytest.mark.parametrize(
    ("shape", "resources"),
    [
        (Shape(cpus=1500, memory=2**30), {"VCPU": "2", "MEMORY": "1024"}),
        (Shape(cpus=100, memory=1), {"VCPU": "1", "MEMORY": "4"}),
        (Shape(cpus=1000), {"VCPU": "1", "MEMORY": "2048"}),
        (Shape(cpus=1000, memory=2**30 + 1, gpus=2), {"VCPU": "1", "MEMORY": "1025", "GPU": "2"}),
    ],
)
def test_a_shape_becomes_whole_vcpus_and_mebibytes(shape: Shape, resources: dict[str, str]) -> None:
    asked = container(submission(shape=shape), chosen())["resourceRequirements"]
    assert {one["type"]: one["value"] for one in asked} == resources


@pytest.mark.parametrize(
    ("cpus", "mib", "size"),
    [
        (250, 512, (250, 512)),
        (100, 513, (250, 1024)),
        (250, 2049, (500, 3072)),
        (1000, 512, (1000, 2048)),
        (3000, 8193, (4000, 9216)),
        (8000, 20000, (8000, 20480)),
        (16000, 122880, (16000, 122880)),
        (17000, 1, (32000, 61440)),
        (32000, 249856, (32000, 249856)),
        (32001, 1, None),
        (1, 249857, None),
    ],
)
def test_on_fargate_the_smallest_size_that_holds_it(cpus: int, mib: int, size: tuple[int, int] | None) -> None:
    assert smallest(cpus, mib) == size
    assert size is None or size[1] in SIZES[size[0]]


def test_fargate_gets_its_own_properties_and_ec2_none_of_them() -> None:
    made = container(submission(shape=Shape(cpus=250, memory=2**29, disk=50 * 2**30)), fargate())
    assert {one["type"]: one["value"] for one in made["resourceRequirements"]} == {"VCPU": "0.25", "MEMORY": "512"}
    assert made["networkConfiguration"] == {"assignPublicIp": "DISABLED"}
    assert made["ephemeralStorage"] == {"sizeInGiB": 50}
    own = {"networkConfiguration", "ephemeralStorage", "fargatePlatformConfiguration"}
    assert not own & set(container(submission(), chosen()))
    assert recipe.definition(submission(), fargate())["platformCapabilities"] == ["FARGATE"]


@pytest.mark.parametrize(
    "shape", [Shape(gpus=1), Shape(cpus=64_000), Shape(memory=2**40), Shape(disk=300 * 2**30)], ids=str
)
def test_what_fargate_does_not_have_is_refused(shape: Shape) -> None:
    assert "Fargate" in recipe.problem(submission(shape=shape), fargate())


# ---------------------------------------------------------------- mounts


def test_the_shared_work_dir_is_the_hosts_folder_of_the_same_path_on_ec2() -> None:
    made = container(submission(work_dir="/shared"), chosen())
    assert made["volumes"] == [{"name": "v0", "host": {"sourcePath": "/shared"}}]
    assert made["mountPoints"] == [{"sourceVolume": "v0", "containerPath": "/shared", "readOnly": False}]


def test_the_shared_work_dir_may_be_efs() -> None:
    made = container(submission(work_dir="/shared"), fargate(**{"work-dir-volume": "fs-0123456789abcdef0/a/b"}))
    (volume,) = made["volumes"]
    assert volume["efsVolumeConfiguration"] == {
        "fileSystemId": "fs-0123456789abcdef0",
        "rootDirectory": "/a/b",
        "transitEncryption": "ENABLED",
    }
    assert made["mountPoints"][0]["containerPath"] == "/shared"


def test_an_access_point_brings_its_own_root() -> None:
    given = {"volume": ["fs-0123456789abcdef0:/data:ro"], "efs-access-point": "fsap-01234567"}
    made = container(submission(), chosen(**given))
    configuration = made["volumes"][0]["efsVolumeConfiguration"]
    assert configuration["authorizationConfig"] == {"accessPointId": "fsap-01234567", "iam": "ENABLED"}
    assert "rootDirectory" not in configuration
    assert made["mountPoints"][0]["readOnly"] is True


def test_without_a_work_dir_or_on_fargate_without_a_volume_nothing_is_mounted() -> None:
    assert "volumes" not in container(submission(), chosen(**{"work-dir-volume": "/x"}))
    assert "volumes" not in container(submission(work_dir="/shared"), fargate())


# ---------------------------------------------------------------- the script


def ran(one: Submission, chosen: Settings, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The definition's command with the job's variables, as a container would run it."""
    variables = {v["name"]: v["value"] for v in recipe.overrides(one)["environment"]}
    return subprocess.run(
        container(one, chosen)["command"],
        env={"PATH": "/usr/bin:/bin", **variables, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


SHOW = (
    "python3",
    "-c",
    "import os,sys; print(repr((sys.argv[1:], dict(os.environ), open(os.environ['WM_JOIN_TOKEN_FILE']).read())))",
)


@pytest.mark.parametrize("index", [0, 1, 149])
def test_each_child_keeps_its_own_token_and_loses_the_others(index: int, tmp_path: Any) -> None:
    tokens = tuple(f"token-{number}" for number in range(150))
    one = submission(150, command=(*SHOW, "{worker}"), join_tokens=tokens, agent=None)
    done = ran(one, chosen(), AWS_BATCH_JOB_ARRAY_INDEX=str(index), TMPDIR=str(tmp_path))
    argv, environment, token = eval(done.stdout)  # noqa: S307 -- our own repr
    assert token == f"token-{index}"
    assert argv == [f"{one.id}-{index}"]
    assert not [name for name, value in environment.items() if "token-" in value]


def test_a_plain_job_is_number_zero(tmp_path: Any) -> None:
    one = submission(1, command=(*SHOW, "{worker}"), agent=None)
    argv, _, token = eval(ran(one, chosen(), TMPDIR=str(tmp_path)).stdout)  # noqa: S307
    assert (argv, token) == ([f"{one.id}-0"], TOKEN)


@pytest.mark.parametrize("setup", [(), ("X='Ref::in setup'", 'export X="$X"')])
def test_what_looks_like_a_parameter_of_batch_is_none(setup: tuple[str, ...], tmp_path: Any) -> None:
    words = ("Ref::name", "a Ref::b 'c'", "Ref::Ref::x", *HOSTILE)
    one = submission(command=(*SHOW, *words), environment={"Y": "Ref::y z"}, setup=setup, agent=None)
    assert not [word for word in container(one, chosen())["command"] if "Ref::" in word]
    argv, environment, _ = eval(ran(one, chosen(), TMPDIR=str(tmp_path)).stdout)  # noqa: S307
    assert argv == [one.filled(word, 0) for word in words]
    assert environment["Y"] == "Ref::y z"
    assert not setup or environment["X"] == "Ref::in setup"


def test_a_place_where_no_token_can_be_kept_ends_the_start() -> None:
    done = ran(submission(command=SHOW, agent=None), chosen(), TMPDIR="/nonexistent")
    assert done.returncode != 0
    assert TOKEN not in done.stdout + done.stderr


# ---------------------------------------------------------------- names


def test_a_name_says_whose_it_is_and_nobody_elses() -> None:
    name = recipe.job_name("a", "b-c", "a-0001")
    assert recipe.submission_in(name, "a", "b-c") == "a-0001"
    for manager, pool in (("a", "b"), ("a-b", "c"), ("a", "b-c-d"), ("A", "b-c")):
        assert recipe.submission_in(name, manager, pool) is None
    assert len(recipe.job_name("m" * 20, "p" * 20, "s" * 36)) <= 128


@pytest.mark.parametrize("rest", ["", "Upper", "with_underscore", "-x", "a" * 37, "a\n"])
def test_a_name_with_no_submission_in_it_is_not_ours(rest: str) -> None:
    assert recipe.submission_in(f"a__b__{rest}", "a", "b") is None


def test_what_is_rendered_is_what_is_sent_without_the_tokens() -> None:
    one = submission(2, join_tokens=("secret-one", "secret-two"))
    text = recipe.rendered(one, chosen())
    assert "secret-" not in text
    first, second = (
        json.loads(part.partition("\n")[2]) for part in text.replace("\n# batch.SubmitJob", "\0").split("\0")
    )
    assert first == recipe.definition(one, chosen())
    sent = recipe.job(one, chosen(), first["jobDefinitionName"])
    assert {name: value for name, value in second.items() if name != "containerOverrides"} == {
        name: value for name, value in sent.items() if name != "containerOverrides"
    }
