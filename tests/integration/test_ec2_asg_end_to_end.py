"""A manager with workers in an Auto Scaling group: a real hub, machines that boot their user data, the real agent that
joins by the identity of its instance, and a job that runs."""

import base64
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.place import Place, a_place, until
from tests.stand_ins.aws_identity import FakeSts
from tests.stand_ins.ec2_asg import AsgStandIn

GROUP = "worker-manager-group"


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[AsgStandIn]:
    with AsgStandIn(tmp_path / "machines") as stand_in:
        stand_in.make_group(GROUP, "main", "asg", largest=4)
        stand_in.always_holds = True
        yield stand_in


@pytest.fixture
def place(tmp_path: Path, aws: AsgStandIn) -> Iterator[Place]:
    for place in a_place(tmp_path):
        place.environment = dict(aws.credentials)
        yield place


@pytest.fixture
def config(place: Place, aws: AsgStandIn) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with FakeSts(aws.people) as sts:
        yield place.pools(f"""
version: 1
hub: {{advertise-url: "{url}", sts-url: "{sts.url}"}}
pools:
  - name: asg
    backend: ec2-asg
    shape: {{cpus: 1, memory: 64MiB}}
    min-workers: 0
    max-workers: 3
    limits: {{stabilise: 0s, idle: 60s}}
    options: {{group: {GROUP}, endpoint-url: "{aws.url}", queue-url: "{aws.queues[GROUP]}"}}
""")


def user_data(aws: AsgStandIn) -> str:
    template = aws.asg.autoscaling_groups[GROUP].ec2_launch_template
    return base64.b64decode(template.latest_version().data["UserData"].as_bytes()).decode()


def test_a_job_runs_on_an_instance_and_the_instance_lets_itself_go(place: Place, aws: AsgStandIn, config: str) -> None:
    manager = place.manage("run", "-c", config)
    job = place.submit("--shell", "echo on an instance")
    worker = place.reaches(job, "succeeded", seconds=180)["worker"]
    (instance,) = aws.members(GROUP)
    assert aws.calls["autoscaling", "launchinstances"] == 1
    assert aws.tags_of(instance)["worker-manager:submission"] == worker.rpartition("-")[0]
    assert worker not in user_data(aws)
    assert "wmj_" not in user_data(aws)
    assert "--join-identity" in user_data(aws)
    place.run("drain", worker)
    until(lambda: not aws.members(GROUP), "the instance to be gone", 180)
    assert aws.desired(GROUP) == 0
    until(lambda: place.ask(f"/v1/workers/{worker}").get("state") == "gone", "the hub to know", 180)
    assert place.end(manager) == 143
    place.run("down")


def test_a_busy_worker_that_is_deleted_by_force_gives_its_job_back(place: Place, aws: AsgStandIn, config: str) -> None:
    manager = place.manage("run", "-c", config)
    job = place.submit("--shell", "sleep 600")
    worker = place.reaches(job, "running", seconds=180)["worker"]
    (instance,) = aws.members(GROUP)
    place.run("freeze", "pool", "asg", "--for", "1h")
    place.run("delete", "worker", worker, "--force", "--grace-period", "1s")
    until(lambda: place.job(job)["state"] == "queued", "its job to go back", 180)
    until(lambda: not aws.machines[instance].pids(), "its processes to be gone", 180)
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_the_lifecycle_hook_is_answered_when_the_worker_has_gone(place: Place, aws: AsgStandIn, config: str) -> None:
    manager = place.manage("run", "-c", config)
    job = place.submit("--shell", "echo quickly done")
    worker = place.reaches(job, "succeeded", seconds=180)["worker"]
    (instance,) = aws.members(GROUP)
    aws.take_away(instance)
    until(lambda: aws.completed == [instance], "the answer to the hook", 180)
    until(lambda: not aws.members(GROUP), "the instance to be gone", 180)
    until(lambda: place.ask(f"/v1/workers/{worker}").get("state") == "gone", "the hub to know", 180)
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_that_there_are_no_machines_is_explained_in_the_words_of_aws(
    place: Place, aws: AsgStandIn, config: str
) -> None:
    words = "We currently do not have sufficient m5.large capacity in the Availability Zone you requested"
    aws.no_capacity = f"InsufficientInstanceCapacity|{words}"
    manager = place.manage("run", "-c", config)
    job = place.submit("--", "true")
    until(lambda: words in place.run("explain", "job", job), "the words of AWS", 180)
    assert not aws.members(GROUP)
    assert aws.desired(GROUP) == 0
    assert place.end(manager) == 143
    place.run("down", "--now")
