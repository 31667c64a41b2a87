"""What Batch shows and says, and what it means: every cell of the table, and rows made to do harm."""

from typing import Any

import pytest

from backends.aws_batch.jobs import Job, Unreadable, job_in, seen
from backends.aws_batch.states import ENDED, LIVE, PHASES, kind_of, phase_of
from backends.base import RefusalKind, WorkerPhase

ID = "12345678-1234-1234-1234-123456789012"


def row(**more: Any) -> dict[str, Any]:
    return {"jobId": ID, "jobName": "main__p__main-1", "status": "RUNNING", "createdAt": 1, "startedAt": 5, **more}


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("SUBMITTED", WorkerPhase.PENDING),
        ("PENDING", WorkerPhase.PENDING),
        ("RUNNABLE", WorkerPhase.PENDING),
        ("STARTING", WorkerPhase.STARTING),
        ("RUNNING", WorkerPhase.RUNNING),
        ("SUCCEEDED", WorkerPhase.ENDED),
        ("FAILED", WorkerPhase.ENDED),
        ("HIBERNATING", WorkerPhase.UNKNOWN),
        ("", WorkerPhase.UNKNOWN),
        ("running", WorkerPhase.UNKNOWN),
    ],
)
def test_every_state(status: str, phase: WorkerPhase) -> None:
    assert phase_of(status) is phase
    ends_later = phase not in (WorkerPhase.ENDED, WorkerPhase.UNKNOWN)
    assert phase_of(status, ending=True) is (WorkerPhase.ENDING if ends_later else phase)


def test_the_table_is_that_of_the_sdk() -> None:
    import botocore.session

    known = botocore.session.Session().get_service_model("batch").shape_for("JobStatus").enum
    assert set(PHASES) == set(known) == {*LIVE, *ENDED}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("", None),
        ("Essential container in task exited", None),
        ("Job attempt duration exceeded timeout", None),
        ("ended by the worker manager main, pool gpu", None),
        ("OutOfMemoryError: Container killed due to memory usage", None),
        ("Host EC2 (instance i-0123456789abcdef0) terminated.", RefusalKind.CAPACITY),
        ("CannotPullContainerError: manifest unknown", RefusalKind.CONFIG),
        ("CannotPullContainerError: pull access denied for x, repository does not exist", RefusalKind.AUTH),
        ("CannotPullContainerError: no basic auth credentials", RefusalKind.AUTH),
        ("CannotPullContainerError: toomanyrequests: You have reached your pull rate limit", RefusalKind.THROTTLED),
        ("CannotStartContainerError: exec: sh: executable file not found in $PATH", RefusalKind.CONFIG),
        (
            "ResourceInitializationError: unable to pull secrets: AccessDeniedException: not authorized",
            RefusalKind.AUTH,
        ),
        ("ResourceInitializationError: failed to invoke EFS utils commands", RefusalKind.CONFIG),
        (
            "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested",
            RefusalKind.CAPACITY,
        ),
        (
            "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue cannot meet the "
            "CPU requirement of the job.",
            RefusalKind.CONFIG,
        ),
        ("ACTION_REQUIRED - CE(s) associated with the job queue are invalid.", RefusalKind.CONFIG),
        ("You have reached the maximum number of jobs in SUBMITTED state", RefusalKind.QUOTA),
        (
            "Canceled by JobStateTimeLimit action due to reason: CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
            RefusalKind.CAPACITY,
        ),
        ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement", RefusalKind.CONFIG),
        ("MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS - Batch service role has a permission issue", RefusalKind.AUTH),
        ("User: x is not authorized to perform: iam:PassRole on resource: y", RefusalKind.AUTH),
        ("Job queue x does not exist", RefusalKind.CONFIG),
    ],
)
def test_reasons(reason: str, kind: RefusalKind | None) -> None:
    assert kind_of(reason) is (None if reason.startswith("Job queue") else kind)


def test_a_reason_of_ten_megabytes_is_read_at_once_and_clipped() -> None:
    one = seen(job_in(row(status="FAILED", statusReason="limit " * 2_000_000)), "main-1", 0)
    assert len(one.detail) <= 2000


def test_a_row_becomes_what_is_seen() -> None:
    one = seen(job_in(row(status="FAILED", statusReason="a", container={"exitCode": 7, "reason": "b"})), "main-1", 0)
    assert (one.handle, one.phase, one.exit_code, one.detail) == (ID, WorkerPhase.ENDED, 7, "a; b")
    assert one.started_at == 5


def test_what_waits_has_not_started_whatever_is_said() -> None:
    assert seen(job_in(row(status="RUNNABLE")), "main-1", 0).started_at is None
    assert seen(job_in(row(startedAt=0)), "main-1", 0).started_at is None


def test_what_was_asked_to_end_ends_and_is_no_refusal() -> None:
    one = seen(job_in(row(isTerminated=True, statusReason="limit exceeded")), "main-1", 0)
    assert (one.phase, one.refusal) == (WorkerPhase.ENDING, None)


def test_a_child_is_no_array() -> None:
    assert job_in(row(jobId=f"{ID}:3", arrayProperties={"size": 4, "index": 3})).size == 0
    assert job_in(row(arrayProperties={"size": 4})).size == 4


@pytest.mark.parametrize(
    "strange",
    [
        None,
        7,
        "x",
        [],
        {},
        {"jobId": ID},
        {"jobName": "x"},
        row(jobId=None),
        row(container=7),
        row(arrayProperties={"size": "4"}),
        row(arrayProperties={"size": 10**9}),
        row(jobName=["x"]),
        row(status=7),
        row(startedAt="now"),
        row(container={"exitCode": "0"}),
        row(attempts=7),
        row(arrayProperties={"statusSummary": {"RUNNING": "1"}}),
    ],
    ids=repr,
)
def test_a_row_that_is_none_is_unreadable(strange: Any) -> None:
    with pytest.raises(Unreadable):
        job_in(strange)


def test_fields_that_are_not_there_are_no_reason_to_fail() -> None:
    made = job_in({"jobId": ID, "jobName": "n", "status": None, "container": None, "attempts": [None]})
    assert made == Job(ID, "n", "", 0, "", 0, None, None, None, False, {})
