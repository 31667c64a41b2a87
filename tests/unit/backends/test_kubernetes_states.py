"""Job, pod and event → what is seen of a worker: every state in the table, and those that are in none."""

from typing import Any

import pytest

from backends.base import RefusalKind, Seen, WorkerPhase
from backends.kubernetes import states

LABELS = {"worker-manager/submission": "m-7", "worker-manager/index": "3"}
STARTED = "2026-11-20T15:00:00Z"
STARTED_MS = 1795186800000


def job(status: dict[str, Any] | None = None, uid: str = "u-job", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "m-7-3", "uid": uid, "labels": LABELS, **metadata}, "status": status or {}}


def pod(status: dict[str, Any], node: str = "", owner: str = "u-job", **metadata: Any) -> dict[str, Any]:
    owners = [{"kind": "Job", "uid": owner}]
    named = {"name": "m-7-3-x", "uid": "u-pod", "labels": LABELS, "ownerReferences": owners, **metadata}
    return {"metadata": named, "spec": {"nodeName": node} if node else {}, "status": status}


def container(name: str = "worker", **state: Any) -> list[dict[str, Any]]:
    return [{"name": name, "state": state}]


def one(job: dict[str, Any] | None, pod: dict[str, Any] | None, event: str = "") -> Seen:
    events = {"u-job": event} if event else {}
    [seen] = states.workers([job] if job else [], [pod] if pod else [], events)
    return seen


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


NO_ROOM = "0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint."


def test_a_pod_that_no_node_has_room_for_waits_with_the_schedulers_words() -> None:
    waiting = {"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable", NO_ROOM)]}
    seen = one(job(), pod(waiting))
    assert (seen.phase, seen.refusal) == (WorkerPhase.PENDING, RefusalKind.CAPACITY)
    assert "Insufficient nvidia.com/gpu" in seen.detail
    assert seen.started_at is None


@pytest.mark.parametrize(
    "reason",
    ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "RunContainerError"],
)
@pytest.mark.parametrize("where", ["containerStatuses", "initContainerStatuses"])
def test_a_container_that_cannot_be_made_is_a_matter_of_configuration(reason: str, where: str) -> None:
    waiting = {"phase": "Pending", where: container(waiting={"reason": reason, "message": "pull access denied"})}
    seen = one(job(), pod(waiting, node="n1"))
    assert (seen.phase, seen.refusal) == (WorkerPhase.STARTING, RefusalKind.CONFIG)
    assert seen.detail == f"{reason}: pull access denied"


def test_a_pod_that_is_being_set_up_is_starting() -> None:
    waiting = {"phase": "Pending", "containerStatuses": container(waiting={"reason": "ContainerCreating"})}
    seen = one(job(), pod(waiting, node="n1"))
    assert (seen.phase, seen.refusal, seen.detail) == (WorkerPhase.STARTING, None, "node n1")


def test_a_running_pod_says_since_when_and_where() -> None:
    running = {"phase": "Running", "containerStatuses": container(running={"startedAt": STARTED})}
    seen = one(job(), pod(running, node="n1"))
    assert seen == Seen("m-7", 3, "m-7-3/u-job", WorkerPhase.RUNNING, started_at=STARTED_MS, detail="node n1")


@pytest.mark.parametrize("code", [0, 7])
def test_a_pod_that_is_over_has_the_status_of_the_worker_not_of_what_ran_beside_it(code: int) -> None:
    ended = {"exitCode": code, "reason": "Error", "startedAt": STARTED}
    both = [*container("sidecar", terminated={"exitCode": 99}), *container(terminated=ended)]
    seen = one(job(), pod({"phase": "Failed" if code else "Succeeded", "containerStatuses": both}))
    assert (seen.phase, seen.exit_code, seen.refusal) == (WorkerPhase.ENDED, code, None)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            RefusalKind.CAPACITY,
            "Evicted: The node was low",
        ),
        (
            {"containerStatuses": container(terminated={"exitCode": 137, "reason": "OOMKilled"})},
            RefusalKind.CONFIG,
            "OOMKilled",
        ),
        (
            {"containerStatuses": container(terminated={"exitCode": 128, "reason": "StartError", "message": "no sh"})},
            RefusalKind.CONFIG,
            "StartError: no sh",
        ),
        ({"reason": "OutOfcpu", "message": "Node didn't have enough"}, RefusalKind.CAPACITY, "OutOfcpu"),
        ({"reason": "NodeShutdown"}, RefusalKind.CAPACITY, "NodeShutdown"),
        (
            {
                "conditions": [condition("DisruptionTarget", "True", "PreemptionByScheduler", "preempted by x")],
                "containerStatuses": container(terminated={"exitCode": 143, "reason": "Error"}),
            },
            RefusalKind.CAPACITY,
            "PreemptionByScheduler: preempted by x",
        ),
        ({"reason": "DeadlineExceeded", "message": "was active too long"}, None, "DeadlineExceeded: was active"),
    ],
)
def test_why_a_pod_has_ended_is_typed(status: dict[str, Any], kind: RefusalKind | None, words: str) -> None:
    seen = one(job(), pod({"phase": "Failed", **status}))
    assert (seen.phase, seen.refusal) == (WorkerPhase.ENDED, kind)
    assert words in seen.detail


def test_a_node_that_is_silent_leaves_the_worker_unknown() -> None:
    seen = one(job(), pod({"phase": "Unknown", "reason": "NodeLost", "message": "Node n1 is unresponsive"}))
    assert (seen.phase, seen.refusal) == (WorkerPhase.UNKNOWN, RefusalKind.CAPACITY)
    assert seen.detail == "NodeLost: Node n1 is unresponsive"


@pytest.mark.parametrize("phase", ["Hibernating", "", None])
def test_a_phase_that_is_in_no_table_is_unknown(phase: str | None) -> None:
    assert one(job(), pod({"phase": phase})).phase is WorkerPhase.UNKNOWN
    assert one(None, pod({})).phase is WorkerPhase.UNKNOWN


# ---------------------------------------------------------------- ends


def test_what_is_being_deleted_is_ending_until_it_is_gone() -> None:
    running = {"phase": "Running", "containerStatuses": container(running={"startedAt": STARTED})}
    assert one(job(), pod(running, deletionTimestamp=STARTED)).phase is WorkerPhase.ENDING
    assert one(job(deletionTimestamp=STARTED), pod(running)).phase is WorkerPhase.ENDING
    assert one(job(deletionTimestamp=STARTED), None).phase is WorkerPhase.ENDING
    over = {"phase": "Failed", "containerStatuses": container(terminated={"exitCode": 0})}
    assert one(job(deletionTimestamp=STARTED), pod(over)).phase is WorkerPhase.ENDED


def test_a_pod_whose_job_is_gone_still_counts() -> None:
    running = {"phase": "Running", "containerStatuses": container(running={"startedAt": STARTED})}
    seen = one(None, pod(running, deletionTimestamp=STARTED))
    assert (seen.phase, seen.handle) == (WorkerPhase.ENDING, "m-7-3/u-job")


def test_a_worker_whose_pod_goes_on_without_it_is_not_over_yet() -> None:
    beside = [*container("sidecar", running={"startedAt": STARTED}), *container(terminated={"exitCode": 0})]
    seen = one(job(), pod({"phase": "Running", "containerStatuses": beside}))
    assert (seen.phase, seen.exit_code) == (WorkerPhase.ENDING, 0)
    assert "runs on" in seen.detail


# ---------------------------------------------------------------- Jobs without a pod


@pytest.mark.parametrize(
    ("status", "phase", "refusal"),
    [
        ({}, WorkerPhase.PENDING, None),
        ({"active": 1, "ready": 0}, WorkerPhase.STARTING, None),
        ({"active": 1, "ready": 1}, WorkerPhase.RUNNING, None),
        ({"conditions": [condition("Complete", "True")]}, WorkerPhase.ENDED, None),
        ({"conditions": [condition("Failed", "True", "BackoffLimitExceeded")]}, WorkerPhase.ENDED, None),
        ({"conditions": [condition("Failed", "False")]}, WorkerPhase.PENDING, None),
        ({"conditions": [condition("Suspended", "True")]}, WorkerPhase.PENDING, RefusalKind.QUOTA),
    ],
)
def test_a_job_without_a_pod_counts_by_its_own_status(
    status: dict[str, Any], phase: WorkerPhase, refusal: RefusalKind | None
) -> None:
    seen = one(job(status), None)
    assert (seen.phase, seen.refusal) == (phase, refusal)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('Error creating: pods "m-7-3-" is forbidden: exceeded quota: gpu, requested: 1', RefusalKind.QUOTA),
        ('Error creating: pods "m" is forbidden: violates PodSecurity "restricted:latest"', RefusalKind.CONFIG),
        ('Error creating: pods "m" is forbidden: error looking up service account x', RefusalKind.CONFIG),
    ],
)
def test_why_a_job_gets_no_pod_is_typed(text: str, kind: RefusalKind) -> None:
    seen = one(job(), None, text)
    assert (seen.phase, seen.refusal, seen.detail) == (WorkerPhase.PENDING, kind, text)


def test_only_jobs_that_wait_for_a_pod_are_asked_about() -> None:
    waiting, has, over = job(uid="a"), job(uid="b"), job({"conditions": [condition("Complete", "True")]}, uid="c")
    assert states.without_pod([waiting, has, over], [pod({"phase": "Running"}, owner="b")]) == (waiting,)


# ---------------------------------------------------------------- all of them


def test_of_two_pods_of_a_job_the_one_that_lives_counts() -> None:
    over = pod({"phase": "Failed"}, creationTimestamp="2026-11-20T15:00:05Z")
    lives = pod({"phase": "Running"}, creationTimestamp="2026-11-20T15:00:00Z")
    [seen] = states.workers([job()], [over, lives], {})
    assert seen.phase is WorkerPhase.RUNNING


def test_two_jobs_of_a_name_one_after_the_other_are_two_workers() -> None:
    seen = states.workers([job(uid="new")], [pod({"phase": "Running"}, owner="old")], {})
    assert [one.handle for one in seen] == ["m-7-3/new", "m-7-3/old"]


def test_the_order_of_a_listing_does_not_depend_on_the_order_of_the_answers() -> None:
    jobs = [job(uid=uid) for uid in "cab"]
    assert states.workers(jobs, [], {}) == states.workers(jobs[::-1], [], {})


@pytest.mark.parametrize(
    "labels", [{}, None, {"worker-manager/submission": "m-7"}, {**LABELS, "worker-manager/index": "x"}]
)
def test_what_no_launch_of_ours_made_is_no_worker(labels: dict[str, str] | None) -> None:
    assert states.workers([{"metadata": {"name": "x", "uid": "u", "labels": labels}}], [], {}) == ()


def test_a_reason_of_megabytes_is_clipped() -> None:
    seen = one(job(), pod({"phase": "Failed", "reason": "Evicted", "message": "x" * 10**7}))
    assert len(seen.detail) <= 2000
    assert seen.detail.startswith("Evicted: x")


def test_broken_objects_do_not_break_a_listing() -> None:
    odd = pod({"phase": "Running", "containerStatuses": [{"name": "worker", "state": None}], "conditions": None})
    assert one(job({"conditions": None}), odd).phase is WorkerPhase.RUNNING
    assert states.milliseconds("yesterday") is None
    assert states.milliseconds(None) is None
