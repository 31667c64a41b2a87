"""A manager with workers on AWS Batch: a real hub, the real agent brought by its script, and a job that runs."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.place import Place, a_place, until
from tests.stand_ins.aws import Answer, Fault
from tests.stand_ins.aws_batch import BatchStandIn, Fate

QUEUE = "workers"
QUICK = ("--min-workers", "0", "--max-workers", "2", "--min-seconds-between-workers", "0", "--stabilise-seconds", "0")


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[BatchStandIn]:
    folder = tmp_path / "aws"
    folder.mkdir()
    with BatchStandIn(folder) as stand_in:
        stand_in.make_queue(QUEUE)
        yield stand_in


@pytest.fixture
def place(tmp_path: Path, aws: BatchStandIn) -> Iterator[Place]:
    for place in a_place(tmp_path):
        place.environment = dict(aws.credentials)
        yield place


def batch(aws: BatchStandIn, *more: str) -> tuple[str, ...]:
    return ("aws-batch", "--endpoint-url", aws.url, "--job-queue", QUEUE, "--cpus", "1", "--memory-mb", "64", *more)


def elsewhere(place: Place) -> tuple[str, ...]:
    """A hub that workers reach; plain HTTP is enough on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return ("--advertise-url", f"http://127.0.0.1:{listening.getsockname()[1]}")


def test_a_job_runs_on_a_worker_of_batch_and_the_worker_is_ended(place: Place, aws: BatchStandIn) -> None:
    manager = place.manage(*elsewhere(place), *QUICK, "--worker-idle-seconds", "60", *batch(aws))
    job = place.submit("--shell", 'echo "on batch: $AWS_BATCH_JOB_ID"')
    worker = place.reaches(job, "succeeded", seconds=120)["worker"]
    assert aws.calls["batch", "submitjob"] == 1
    (id, ran) = next(iter(aws.jobs().items()))
    assert ran.job_name == f"main__aws-batch__{worker.rpartition('-')[0]}"
    requests = b"".join(body for service, _, body in aws.bodies if service == "batch")
    assert b"WM_JOIN_TOKENS" in requests
    definition = ran.job_definition.container_properties
    assert "wmj_" not in json.dumps(definition)
    assert "WM_JOIN_TOKENS" not in json.dumps(definition["environment"])
    place.run("drain", worker)
    until(lambda: aws.jobs()[id].status == "SUCCEEDED", "the worker to end by itself")
    until(lambda: place.ask(f"/v1/workers/{worker}").get("state") == "gone", "the hub to know")
    assert place.end(manager) == 143
    place.run("down")


def test_workers_that_start_together_are_one_array_and_each_is_let_in_by_its_own_token(
    place: Place, aws: BatchStandIn
) -> None:
    words = ("--min-workers", "3", "--max-workers", "3", "--min-seconds-between-workers", "0")
    manager = place.manage(*elsewhere(place), *words, *batch(aws))
    until(lambda: len(place.workers("ready")) == 3, "three workers", 120)
    assert aws.calls["batch", "submitjob"] == 1
    assert sorted(worker["id"].rpartition("-")[2] for worker in place.workers("ready")) == ["0", "1", "2"]
    assert len({id.partition(":")[0] for id in aws.jobs()}) == 1
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_an_image_that_cannot_be_pulled_is_explained(place: Place, aws: BatchStandIn) -> None:
    words = "CannotPullContainerError: pull access denied for python, repository does not exist"
    aws.next_job(Fate(dies=words))
    manager = place.manage(*elsewhere(place), *QUICK, *batch(aws))
    job = place.submit("--", "true")
    until(lambda: words in place.run("explain", "job", job), "the reason to be shown")
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_a_busy_worker_that_is_deleted_by_force_is_terminated_on_batch(place: Place, aws: BatchStandIn) -> None:
    manager = place.manage(*elsewhere(place), *QUICK, *batch(aws))
    job = place.submit("--shell", "sleep 600")
    worker = place.reaches(job, "running", seconds=120)["worker"]
    (id,) = aws.jobs()
    place.run("freeze", "pool", "aws-batch", "--for", "1h")
    place.run("delete", "worker", worker, "--force", "--grace-period", "1s")
    until(lambda: aws.jobs()[id].status in ("SUCCEEDED", "FAILED"), "the job of Batch to be over")
    until(lambda: place.job(job)["state"] == "queued", "its job to go back")
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_a_refusal_of_aws_is_explained_in_its_own_words(place: Place, aws: BatchStandIn) -> None:
    words = "User: x is not authorized to perform: batch:SubmitJob on resource: y"
    aws.order(Fault("batch", "SubmitJob", Answer("AccessDeniedException", 403, words), times=1000))
    manager = place.manage(*elsewhere(place), *QUICK, *batch(aws))
    job = place.submit("--", "true")
    until(lambda: words in place.run("explain", "job", job), "the words of AWS")
    assert not aws.jobs()
    assert place.end(manager) == 143
    place.run("down", "--now")
