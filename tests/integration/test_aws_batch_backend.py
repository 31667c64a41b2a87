"""The backend against its stand-in, over real HTTP: how many calls it makes, what it never does twice, what it says of
a queue that cannot work; and the defects of CodaLab's manager for AWS Batch, each shown not to be here."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.aws_batch import AwsBatchBackend, recipe
from backends.base import (
    Accepted,
    Context,
    Finding,
    ListFailed,
    RefusalKind,
    Refused,
    Severity,
    Submission,
    Unknown,
    WorkerPhase,
)
from tests.place import until
from tests.stand_ins.aws import Answer, CutAfter, Fault, Garbage, Hang
from tests.stand_ins.aws_batch import BatchStandIn, Fate
from worker.protocol import Shape
from worker_manager.clock import ManualClock, SystemClock

QUEUE = "workers"
WAITS = Fate(stays="RUNNABLE")
SMALL = Shape(cpus=1000, memory=2**30)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchStandIn]:
    with BatchStandIn(tmp_path_factory.mktemp("aws")) as made:
        yield made


@pytest.fixture
def aws(stand_in: BatchStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchStandIn]:
    for name, value in stand_in.credentials.items():
        monkeypatch.setenv(name, value)
    stand_in.make_queue(QUEUE)
    stand_in.calls.clear()
    yield stand_in
    stand_in.forget()


def backend(
    aws: BatchStandIn,
    manager: str = "main",
    pool: str = "gpu",
    *,
    now_ms: Callable[[], int] | None = None,
    shape: Shape | None = SMALL,
    most: int | None = None,
    timeout_s: float = 30.0,
    state_dir: str = "",
    **given: Any,
) -> AwsBatchBackend:
    kind = registry.load("aws-batch")
    values = kind.read({"endpoint-url": aws.url, "job-queue": QUEUE, **given})
    context = Context(manager, pool, state_dir, now_ms or SystemClock().now_ms, timeout_s, shape, most)
    made = kind.create(values, context)
    assert isinstance(made, AwsBatchBackend)
    return made


def submission(number: int = 1, count: int = 1, **more: Any) -> Submission:
    made = Submission(
        id=f"main-{number:06d}",
        count=count,
        pool="gpu",
        manager="main",
        shape=SMALL,
        command=("/bin/sh", "-c", "sleep 600"),
        environment={},
        join_tokens=tuple(f"{'t' * 36}-{index:06d}" for index in range(count)),
    )
    return replace(made, **more)


def launched(one: AwsBatchBackend, what: Submission) -> Accepted:
    outcome = one.launch(what)
    assert isinstance(outcome, Accepted), outcome
    return outcome


def requests(aws: BatchStandIn, action: str) -> list[dict[str, Any]]:
    return [json.loads(body) for service, name, body in aws.bodies if (service, name) == ("batch", action)]


# ---------------------------------------------------------------- how many calls


def test_a_thousand_workers_cost_a_handful_of_calls(aws: BatchStandIn) -> None:
    aws.fate_of_all = WAITS
    mine = backend(aws)
    handles: list[str] = []
    for number in range(0, 1000, recipe.MAX_BATCH):
        count = min(recipe.MAX_BATCH, 1000 - number)
        handles += launched(mine, submission(number, count)).handles.values()
    assert aws.calls["batch", "submitjob"] == 7
    assert (aws.calls["batch", "describejobdefinitions"], aws.calls["batch", "registerjobdefinition"]) == (1, 1)
    assert aws.count("batch") == 9
    until(lambda: all(job.status == "RUNNABLE" for job in aws.jobs().values() if not job.is_array), "the queue")
    aws.calls.clear()
    listing = mine.list()
    assert listing.complete
    assert sorted(one.handle for one in listing.seen) == sorted(handles)
    assert aws.calls["batch", "listjobs"] == 1
    assert aws.calls["batch", "describejobs"] == 10, "a hundred to a call, which is the most that Batch takes"
    aws.calls.clear()
    assert mine.list() == listing
    assert dict(aws.calls) == {("batch", "listjobs"): 1}, "nothing has moved, so nothing is described again"
    aws.calls.clear()
    for handle in handles[:50]:
        assert mine.terminate(handle, force=False) == Accepted()
    assert aws.count("batch") == 50


def test_more_than_a_thousand_plain_jobs_are_all_found(aws: BatchStandIn) -> None:
    """CodaLab's manager never followed nextToken."""
    aws.fate_of_all = WAITS
    mine = backend(aws)
    launched(mine, submission(0))
    aws.submit_many(QUEUE, [recipe.job_name("main", "gpu", f"main-{number:06d}") for number in range(1, 1101)])
    until(lambda: all(job.status == "RUNNABLE" for job in aws.jobs().values()), "the queue")
    aws.calls.clear()
    listing = mine.list()
    assert listing.complete
    assert {one.submission for one in listing.seen} == {f"main-{number:06d}" for number in range(1101)}
    assert aws.calls["batch", "listjobs"] == 8, "two pages by name, and then by state a thousand to a page"


def test_what_is_over_costs_nothing_and_hides_nothing(aws: BatchStandIn) -> None:
    """An old worker that lives is found behind hundreds of younger ones that are over."""
    mine = backend(aws)
    old = launched(mine, submission(1)).handles[0]
    until(lambda: aws.jobs()[old].status == "RUNNING", "it to run")
    aws.fate_of_all = Fate(dies="no")
    aws.submit_many(QUEUE, [recipe.job_name("main", "gpu", f"main-{number:06d}") for number in range(2, 302)])
    until(lambda: len([j for j in aws.jobs().values() if j.status == "FAILED"]) == 300, "the others to be over")
    aws.calls.clear()
    listing = mine.list()
    assert listing.complete
    assert [one.handle for one in listing.seen if one.phase is WorkerPhase.RUNNING] == [old]
    assert aws.calls["batch", "listjobs"] == 7
    later = ManualClock(SystemClock().now_ms() + 2 * 3_600_000)
    assert [one.handle for one in backend(aws, now_ms=later.now_ms).list().seen] == [old], "after an hour"


def test_an_array_that_is_over_is_described_once(aws: BatchStandIn) -> None:
    mine = backend(aws)
    launched(mine, submission(1, 3, command=("/bin/sh", "-c", "exit 4")))
    until(lambda: all(one.phase is WorkerPhase.ENDED for one in mine.list().seen), "their end")
    first = mine.list()
    aws.calls.clear()
    assert mine.list() == first
    assert [one.exit_code for one in first.seen] == [4, 4, 4]
    assert dict(aws.calls) == {("batch", "listjobs"): 1}


def test_jobs_of_others_in_the_queue_are_not_ours(aws: BatchStandIn) -> None:
    aws.fate_of_all = WAITS
    launched(backend(aws, pool="gpu-2"), submission(1, pool="gpu-2"))
    launched(backend(aws, "main-2"), submission(2, manager="main-2"))
    batch = aws.client("batch")
    definition = batch.describe_job_definitions()["jobDefinitions"][0]["jobDefinitionArn"]
    for name in ("main__gpu__", "MAIN__GPU__main-9", "main__gpu__not_a_label", "other"):
        batch.submit_job(jobName=name, jobQueue=QUEUE, jobDefinition=definition)
    assert backend(aws).list().seen == ()
    assert [one.submission for one in backend(aws, pool="gpu-2").list().seen] == ["main-000001"]


# ---------------------------------------------------------------- definitions


def test_a_definition_is_registered_once_for_its_content(aws: BatchStandIn) -> None:
    """CodaLab's manager made a new revision for every launch, and never removed one."""
    mine = backend(aws)
    for number in range(5):
        launched(mine, submission(number))
    launched(backend(aws), submission(6))  # after a restart it is looked up
    assert aws.calls["batch", "registerjobdefinition"] == 1
    assert len({job["jobDefinition"] for job in requests(aws, "submitjob")}) == 1
    launched(mine, submission(7, environment={"A": "b"}))
    assert aws.calls["batch", "registerjobdefinition"] == 2


def test_managers_that_race_each_start_what_they_asked_for(aws: BatchStandIn) -> None:
    """CodaLab's manager submitted by the bare name: whoever registered last decided for both."""
    aws.fate_of_all = WAITS
    ones = [submission(number, environment={"WHO": f"number {number % 2}"}) for number in range(8)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda one: launched(backend(aws), one), ones))
    for job in aws.jobs().values():
        who = int(job.job_name[-1]) % 2
        assert f"export WHO='number {who}'" in job.job_definition.container_properties["command"][-1]
    assert all(":" in job["jobDefinition"] for job in requests(aws, "submitjob")), "never by the bare name"


def test_what_somebody_else_registers_under_our_name_is_never_started(aws: BatchStandIn) -> None:
    mine = backend(aws)
    launched(mine, submission(1))
    (good,) = requests(aws, "registerjobdefinition")
    other = good | {"containerProperties": good["containerProperties"] | {"command": ["rm", "-rf", "/"]}}
    aws.client("batch").register_job_definition(**other)
    launched(mine, submission(2))
    launched(backend(aws), submission(3))
    assert {job["jobDefinition"] for job in requests(aws, "submitjob")} == {f"{good['jobDefinitionName']}:1"}


def test_a_definition_that_somebody_deregistered_is_registered_again(aws: BatchStandIn) -> None:
    mine = backend(aws)
    launched(mine, submission(1))
    batch = aws.client("batch")
    for definition in batch.describe_job_definitions()["jobDefinitions"]:
        batch.deregister_job_definition(jobDefinition=definition["jobDefinitionArn"])
    refused = mine.launch(submission(2))
    assert isinstance(refused, Refused)
    assert refused.kind is RefusalKind.CONFIG
    assert "not ACTIVE" in refused.text
    launched(mine, submission(3))


def test_a_registration_whose_answer_was_lost_is_a_refusal_because_no_worker_was_asked_for(aws: BatchStandIn) -> None:
    aws.order(Fault("batch", "RegisterJobDefinition", CutAfter()))
    mine = backend(aws)
    refused = mine.launch(submission(1))
    assert isinstance(refused, Refused)
    assert refused.kind is RefusalKind.THROTTLED
    assert not aws.jobs()
    launched(mine, submission(2))
    assert aws.calls["batch", "registerjobdefinition"] == 1, "the one that was lost is found"


@pytest.mark.parametrize("action", ["DescribeJobDefinitions", "RegisterJobDefinition"])
def test_a_definition_that_takes_the_whole_time_leaves_none_for_the_job(aws: BatchStandIn, action: str) -> None:
    """A job that is submitted after its call's deadline could be one that nobody waits for any more."""
    aws.order(Fault("batch", action, Hang(), times=10))
    begun = time.monotonic()
    refused = backend(aws, timeout_s=3.0).launch(submission(1))
    assert isinstance(refused, Refused)
    assert refused.kind is RefusalKind.THROTTLED
    assert time.monotonic() - begun < 15
    assert aws.calls["batch", "submitjob"] == 0


# ---------------------------------------------------------------- one attempt


@pytest.mark.parametrize("what", [CutAfter(), Answer("ServerException", 500), Garbage()], ids=repr)
def test_a_launch_that_may_have_happened_is_not_tried_again(
    aws: BatchStandIn, monkeypatch: pytest.MonkeyPatch, what: Any
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    aws.order(Fault("batch", "SubmitJob", what, times=5))
    mine = backend(aws)
    assert isinstance(mine.launch(submission(1)), Unknown)
    assert aws.calls["batch", "submitjob"] == 1
    aws.relent()
    expected = 1 if isinstance(what, CutAfter) else 0
    assert len(mine.list().seen) == expected


def test_a_read_is_tried_again(aws: BatchStandIn) -> None:
    aws.order(Fault("batch", "ListJobs", Answer("ServerException", 503)))
    assert backend(aws).list().complete
    assert aws.calls["batch", "listjobs"] == 2


def test_a_storm_of_throttling_is_refused_with_its_pause_and_a_listing_fails(aws: BatchStandIn) -> None:
    slow = Answer("TooManyRequestsException", 429, "Too Many Requests", {"Retry-After": "7"})
    aws.order(Fault("batch", "SubmitJob", slow, times=1000))
    aws.order(Fault("batch", "ListJobs", slow, times=1000))
    mine = backend(aws)
    refused = mine.launch(submission(1))
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.retry_after_s) == (RefusalKind.THROTTLED, 7.0)
    with pytest.raises(ListFailed, match="Too Many Requests"):
        mine.list()


def test_a_reason_of_ten_megabytes_is_clipped(aws: BatchStandIn) -> None:
    aws.order(Fault("batch", "SubmitJob", Answer("ClientException", 400, "x" * 10**7)))
    refused = backend(aws).launch(submission(1))
    assert isinstance(refused, Refused)
    assert len(refused.text) <= 2000


def test_a_refusal_that_repeats_the_request_carries_no_token(aws: BatchStandIn) -> None:
    one = submission(1, 2)
    aws.order(Fault("batch", "SubmitJob", Answer("ClientException", 400, f"bad: {one.join_tokens}")))
    refused = backend(aws).launch(one)
    assert isinstance(refused, Refused)
    assert "bad: " in refused.text
    assert not any(token in refused.text for token in one.join_tokens)


def test_an_expired_session_is_said_by_every_method(aws: BatchStandIn) -> None:
    expired = Answer("ExpiredTokenException", 403, "The security token included in the request is expired")
    for action in ("SubmitJob", "ListJobs", "TerminateJob", "DescribeJobDefinitions"):
        aws.order(Fault("batch", action, expired, times=1000))
    mine = backend(aws)
    for outcome in (mine.launch(submission(1)), mine.terminate("0" * 8 + "-0000" * 3 + "-" + "0" * 12, force=False)):
        assert isinstance(outcome, Refused)
        assert outcome.kind is RefusalKind.AUTH
    with pytest.raises(ListFailed, match="expired"):
        mine.list()


def test_without_credentials_nothing_is_sent(aws: BatchStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    mine = backend(aws)
    refused = mine.launch(submission(1))
    assert isinstance(refused, Refused)
    assert refused.kind is RefusalKind.AUTH
    with pytest.raises(ListFailed, match="credentials"):
        mine.list()
    (finding,) = mine.check()
    assert finding.severity is Severity.ERROR
    assert "aws configure" in finding.mend
    assert not aws.calls


def test_a_role_is_assumed_for_every_call(aws: BatchStandIn) -> None:
    mine = backend(aws, **{"role-arn": "arn:aws:iam::123456789012:role/manager"})
    launched(mine, submission(1))
    mine.list()
    assert aws.calls["sts", "assumerole"] == 1
    assert "assumed-role/manager" in mine.check()[0].text


# ---------------------------------------------------------------- listing, piece by piece


def test_workers_in_the_queue_that_a_pool_had_before_are_seen_until_they_are_over(
    aws: BatchStandIn, tmp_path: Path
) -> None:
    aws.make_queue("better")
    folder = str(tmp_path)
    old = launched(backend(aws, state_dir=folder), submission(1)).handles[0]
    changed = backend(aws, state_dir=folder, **{"job-queue": "better"})
    new = launched(changed, submission(2)).handles[0]
    assert {one.handle for one in changed.list().seen} == {old, new}
    aws.order(
        Fault("batch", "ListJobs", Answer("ServerException", 500), times=2, only=lambda body: b"better" not in body)
    )
    assert not changed.list().complete, "what the old queue holds is unknown, and unknown is not none"
    clock = ManualClock(SystemClock().now_ms())
    restarted = backend(aws, state_dir=folder, now_ms=clock.now_ms, **{"job-queue": "better"})
    assert restarted.terminate(old, force=False) == Accepted()
    until(lambda: [one for one in restarted.list().seen if one.phase is WorkerPhase.ENDED], "its end")
    assert len(restarted.list().seen) == 2, "not at once: a launch may have been on its way"
    clock.advance(181_000)
    restarted.list()
    aws.calls.clear()
    assert {one.handle for one in restarted.list().seen} == {new}
    assert dict(aws.calls) == {("batch", "listjobs"): 1}, "the old queue is asked no more"


def test_a_former_queue_that_was_removed_holds_nothing(aws: BatchStandIn, tmp_path: Path) -> None:
    backend(aws, state_dir=str(tmp_path), **{"job-queue": "removed"})
    mine = backend(aws, state_dir=str(tmp_path))
    assert mine.list().complete
    with pytest.raises(ListFailed, match="does not exist"):
        backend(aws, **{"job-queue": "removed"}).list()


def test_an_array_that_is_not_opened_yet_has_all_its_workers(aws: BatchStandIn) -> None:
    aws.fate_of_all = Fate(stays="SUBMITTED")
    mine = backend(aws)
    handles = launched(mine, submission(1, 4)).handles
    aws.calls.clear()
    assert {one.index: one.handle for one in mine.list().seen} == handles
    assert {one.phase for one in mine.list().seen} == {WorkerPhase.PENDING}
    assert aws.calls["batch", "describejobs"] == 0
    aws.order(Fault("batch", "TerminateJob", Answer("ClientException", 400, "Job not found"), times=1))
    assert isinstance(mine.terminate(handles[0], force=False), Unknown), "a child that is not there yet is not gone"


def test_children_that_cannot_be_described_make_a_listing_incomplete(aws: BatchStandIn) -> None:
    mine = backend(aws)
    launched(mine, submission(1))
    launched(mine, submission(2, 2))
    until(lambda: {one.phase for one in mine.list().seen} == {WorkerPhase.RUNNING}, "all to run")
    aws.order(Fault("batch", "DescribeJobs", Garbage(), times=1))
    listing = backend(aws).list()
    assert not listing.complete
    assert [one.submission for one in listing.seen] == ["main-000001"]


def test_a_job_that_is_asked_to_end_is_ending_until_it_is_over(aws: BatchStandIn) -> None:
    mine = backend(aws)
    deaf = ("/bin/sh", "-c", "trap '' TERM; echo ready; sleep 600")
    handle = launched(mine, submission(1, command=deaf)).handles[0]
    until(lambda: "ready" in mine.logs(handle, 100), "it to be deaf")
    mine.terminate(handle, force=False)
    assert [one.phase for one in mine.list().seen] == [WorkerPhase.ENDING]
    until(lambda: mine.list().seen[0].phase is WorkerPhase.ENDED, "the end of its grace")
    (over,) = mine.list().seen
    assert over.exit_code == 137
    assert over.detail.startswith("ended by the worker manager main, pool gpu")


def test_what_batch_says_of_a_waiting_job_is_shown(aws: BatchStandIn) -> None:
    words = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for p4d.24xlarge"
    aws.fate_of_all = Fate(stays="RUNNABLE", reason=words)
    mine = backend(aws)
    launched(mine, submission(1))
    until(lambda: mine.list().seen[0].detail == words, "the reason")
    assert mine.list().seen[0].refusal is RefusalKind.CAPACITY


@pytest.mark.parametrize(
    ("queue", "machines", "kind", "words"),
    [
        ({"state": "DISABLED"}, {}, RefusalKind.CONFIG, "job queue workers is DISABLED"),
        ({"status": "INVALID", "statusReason": "no such role"}, {}, RefusalKind.CONFIG, "is INVALID: no such role"),
        ({}, {"state": "DISABLED"}, RefusalKind.CONFIG, "compute environment workers-machines is DISABLED"),
        ({}, {"status": "INVALID", "statusReason": "CLIENT_ERROR - x"}, RefusalKind.CONFIG, "INVALID: CLIENT_ERROR"),
        ({}, {"computeResources": {"type": "EC2", "maxvCpus": 8, "desiredvCpus": 8}}, RefusalKind.QUOTA, "8 of 8"),
        ({"computeEnvironmentOrder": []}, {}, RefusalKind.CONFIG, "has no compute environment"),
    ],
)
def test_a_job_that_waits_long_without_a_reason_is_explained_by_its_queue(
    aws: BatchStandIn, queue: dict[str, Any], machines: dict[str, Any], kind: RefusalKind, words: str
) -> None:
    aws.fate_of_all = WAITS
    clock = ManualClock(SystemClock().now_ms())
    mine = backend(aws, now_ms=clock.now_ms)
    launched(mine, submission(1, 2))
    aws.queue_facts[QUEUE] = queue
    aws.environment_facts[f"{QUEUE}-machines"] = machines
    assert [one.detail for one in mine.list().seen] == ["", ""], "machines take a while to come"
    clock.advance(61_000)
    for one in mine.list().seen:
        assert one.refusal is kind
        assert words in one.detail
    mine.list()
    assert aws.calls["batch", "describejobqueues"] == 1, "not again within a minute"


def test_a_queue_that_cannot_be_read_explains_nothing_and_spoils_nothing(aws: BatchStandIn) -> None:
    aws.fate_of_all = WAITS
    clock = ManualClock(SystemClock().now_ms())
    mine = backend(aws, now_ms=clock.now_ms)
    launched(mine, submission(1))
    mine.list()
    clock.advance(61_000)
    aws.order(Fault("batch", "DescribeJobQueues", Answer("AccessDeniedException", 403), times=10))
    assert [one.detail for one in mine.list().seen] == [""]


# ---------------------------------------------------------------- secrets, work dir, logs


def test_a_job_holds_no_lasting_secret(aws: BatchStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """CodaLab's manager put the user's name and password into every job, in the clear."""
    canary = "canary-of-the-manager"
    for name in ("CODALAB_USERNAME", "CODALAB_PASSWORD", "AWS_SESSION_TOKEN", "WM_TOKEN"):
        monkeypatch.setenv(name, canary)
    one = submission(1, 2)
    launched(backend(aws), one)
    (job,) = requests(aws, "submitjob")
    assert canary.encode() not in b"".join(body for _, _, body in aws.bodies)
    assert {v["name"] for v in job["containerOverrides"]["environment"]} == {"WM_SUBMISSION", "WM_JOIN_TOKENS"}
    (definition,) = requests(aws, "registerjobdefinition")
    assert not any(token in json.dumps(definition) for token in one.join_tokens)


def test_workers_share_one_work_dir(aws: BatchStandIn) -> None:
    """With CodaLab's manager each worker had its own, and so no cache was shared."""
    mine = backend(aws, **{"work-dir-volume": "fs-0123abcd/cache"})
    for number in range(3):
        launched(mine, submission(number, work_dir="/shared"))
    mounts = [
        (job.job_definition.container_properties["volumes"], job.job_definition.container_properties["mountPoints"])
        for job in aws.jobs().values()
    ]
    assert mounts.count(mounts[0]) == 3
    assert mounts[0][1] == [{"sourceVolume": "v0", "containerPath": "/shared", "readOnly": False}]


def test_the_end_of_long_logs_in_a_group_of_ones_own(aws: BatchStandIn) -> None:
    mine = backend(aws, **{"log-group": "/lab/workers"})
    talks = ("/bin/sh", "-c", 'i=0; while [ $i -lt 25000 ]; do echo "line $i"; i=$((i+1)); done; echo last ✓')
    handle = launched(mine, submission(1, command=talks)).handles[0]
    until(lambda: "last ✓" in mine.logs(handle, 100), "its last words")
    tail = mine.logs(handle, 200_000)
    assert len(tail.encode()) <= 200_000
    assert tail.endswith("line 24998\nline 24999\nlast ✓\n")
    assert "line 10500\n" in tail, "more than one page of CloudWatch"
    assert backend(aws, pool="other").logs(handle, 1000) == "", "not for another pool"
    aws.order(Fault("logs", "GetLogEvents", Answer("AccessDeniedException", 400), times=10))
    assert mine.logs(handle, 1000) == ""


# ---------------------------------------------------------------- check


def worst(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {one.subject: one.text for one in findings if one.severity is not Severity.OK}


def test_a_good_queue_is_found_good_and_nothing_is_changed(aws: BatchStandIn) -> None:
    findings = backend(aws, most=10).check()
    assert worst(findings) == {}
    assert {"AWS credentials", "rights", f"job queue {QUEUE}", "shape", "image"} <= {one.subject for one in findings}
    changing = [call for call in aws.calls if not call[1].startswith(("describe", "list", "get"))]
    assert not changing


def test_a_queue_that_is_not_there(aws: BatchStandIn) -> None:
    (text,) = worst(backend(aws, **{"job-queue": "nonesuch"}).check()).values()
    assert "no such queue in us-east-1" in text


@pytest.mark.parametrize(
    ("given", "queue", "machines", "subject"),
    [
        ({}, {"state": "DISABLED"}, {}, f"job queue {QUEUE}"),
        ({}, {}, {"status": "INVALID"}, f"compute environment {QUEUE}-machines"),
        ({}, {}, {"computeResources": {"type": "FARGATE", "maxvCpus": 9}}, "platform"),
        ({"shape": Shape(cpus=300_000)}, {}, {}, "shape"),
        ({"most": 257}, {}, {}, "max-workers"),
        ({"job-filter": "x"}, {}, {}, "job-filter"),
        ({"log-group": "/nonesuch"}, {}, {}, "log group /nonesuch"),
        ({}, {}, {"eksConfiguration": {"eksClusterArn": "a"}}, "platform"),
        ({}, {"schedulingPolicyArn": "arn:aws:batch:policy"}, {}, "share-identifier"),
        ({"share-identifier": "lab"}, {"schedulingPolicyArn": None}, {}, "share-identifier"),
    ],
)
def test_what_is_wrong_is_named_with_what_mends_it(
    aws: BatchStandIn, given: dict[str, Any], queue: dict[str, Any], machines: dict[str, Any], subject: str
) -> None:
    aws.queue_facts[QUEUE] = queue
    aws.environment_facts[f"{QUEUE}-machines"] = machines
    findings = backend(aws, **given).check()
    assert set(worst(findings)) == {subject}
    assert all(one.mend for one in findings if one.severity is not Severity.OK)


def test_a_shape_larger_than_the_largest_machine(aws: BatchStandIn) -> None:
    aws.make_queue("small", types=("c5.large", "m5.xlarge"))
    fits = Shape(cpus=4000, memory=14 * 2**30)
    assert worst(backend(aws, shape=fits, **{"job-queue": "small"}).check()) == {}
    for shape in (replace(fits, cpus=5000), replace(fits, memory=16 * 2**30), replace(fits, gpus=1)):
        found = worst(backend(aws, shape=shape, **{"job-queue": "small"}).check())
        assert "the largest machine (m5.xlarge) has 4 vCPUs, 16384 MiB, 0 GPUs" in found["shape"]


def test_on_fargate_the_size_is_that_of_fargate(aws: BatchStandIn) -> None:
    aws.make_queue("tasks", kind="FARGATE")
    given = {"platform": "fargate", "execution-role-arn": "arn:x", "job-queue": "tasks"}
    findings = backend(aws, shape=Shape(cpus=300, memory=2**30), **given).check()
    assert worst(findings) == {}
    assert "0.5 vCPUs, 1024 MiB (a size of Fargate)" in next(one.text for one in findings if one.subject == "shape")
    assert "Fargate has no GPUs" in worst(backend(aws, shape=Shape(gpus=1), **given).check())["shape"]


def test_rights_that_are_missing_are_named(aws: BatchStandIn) -> None:
    no = "User x is not authorized to perform: batch:DescribeJobs"
    aws.order(Fault("batch", "DescribeJobs", Answer("AccessDeniedException", 403, no), times=10))
    aws.order(Fault("batch", "DescribeJobQueues", Answer("AccessDeniedException", 403), times=10))
    found = worst(backend(aws).check())
    assert no in found["rights"]
    assert f"job queue {QUEUE}" in found


# ---------------------------------------------------------------- answers that are none

NONSENSE = (
    b"",
    b"[]",
    b"7",
    b"null",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b"{}",
    b'{"jobSummaryList": null, "jobId": null, "jobs": null, "jobDefinitions": null}',
    b'{"jobSummaryList": 7, "jobId": 7, "jobs": 7, "jobDefinitions": 7}',
    b'{"jobSummaryList": [7], "jobId": [], "jobs": [7], "jobDefinitions": [7]}',
    b'{"jobSummaryList": [{}], "jobId": "x", "jobs": [{}], "jobDefinitions": [{}]}',
    b'{"jobSummaryList": [{"jobId": "a", "jobName": {}}], "jobId": {}, "jobs": [null], "jobDefinitions": [null]}',
    b"[" * 100_000,
)


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: repr(body[:40]))
def test_nonsense_is_never_taken_for_an_answer(aws: BatchStandIn, body: bytes) -> None:
    mine = backend(aws)
    handle = launched(mine, submission(1, 2)).handles[0]
    for action, times in (("ListJobs", 2), ("SubmitJob", 1), ("DescribeJobs", 1), ("DescribeJobDefinitions", 2)):
        aws.order(Fault("batch", action, Garbage(body), times))
    with pytest.raises(ListFailed):
        mine.list()
    assert isinstance(mine.launch(submission(2)), Unknown)
    assert mine.logs(handle, 1000) == ""
    assert isinstance(backend(aws).launch(submission(3)), Accepted | Refused)
    aws.relent()
    assert {one.submission for one in mine.list().seen} >= {"main-000001"}
