"""The state of a job queue and its compute environments, as Batch describes them → what is wrong with them. Pure.

https://docs.aws.amazon.com/batch/latest/APIReference/API_JobQueueDetail.html
https://docs.aws.amazon.com/batch/latest/APIReference/API_ComputeEnvironmentDetail.html
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.aws import Account
from backends.base import RefusalKind, clipped

_ON_THE_WAY = ("CREATING", "UPDATING")


class NoSuchQueue(Exception):
    """The account has no queue of that name in this region."""


@dataclass(frozen=True)
class Trouble:
    """Why nothing can start now."""

    subject: str
    kind: RefusalKind
    text: str
    mend: str


@dataclass(frozen=True)
class Environment:
    name: str
    kind: str  # EC2, SPOT, FARGATE, FARGATE_SPOT, EKS; UNMANAGED, where somebody else brings the machines
    state: str
    status: str
    reason: str = ""
    most_vcpus: int | None = None
    wanted_vcpus: int | None = None
    instance_types: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        return self.state == "ENABLED" and self.status in ("VALID", *_ON_THE_WAY)

    @property
    def full(self) -> bool:
        return bool(self.most_vcpus and self.wanted_vcpus is not None and self.wanted_vcpus >= self.most_vcpus)

    @property
    def fargate(self) -> bool:
        return self.kind.startswith("FARGATE")


@dataclass(frozen=True)
class Queue:
    name: str
    state: str
    status: str
    reason: str = ""
    environments: tuple[Environment, ...] = ()
    fair_share: bool = False  # it has a scheduling policy, so every job must name its share

    @property
    def most_vcpus(self) -> int | None:
        """Of all that can be used; None when there is none, or one does not tell."""
        each = [environment.most_vcpus for environment in self.environments if environment.usable]
        return sum(vcpus or 0 for vcpus in each) if each and all(each) else None


def read(account: Account, queue: str) -> Queue:
    """Two calls. Raises NoSuchQueue and the account's errors."""
    batch = account.reading("batch")
    rows = batch.describe_job_queues(jobQueues=[queue]).get("jobQueues") or []
    if not rows:
        raise NoSuchQueue(queue)
    order = [one["computeEnvironment"] for one in rows[0].get("computeEnvironmentOrder") or []]
    answer = batch.describe_compute_environments(computeEnvironments=order) if order else {}
    return queue_in(rows[0], answer.get("computeEnvironments") or [])


def queue_in(row: Mapping[str, Any], environments: Sequence[Mapping[str, Any]]) -> Queue:
    return Queue(
        name=row.get("jobQueueName") or "",
        state=row.get("state") or "",
        status=row.get("status") or "",
        reason=row.get("statusReason") or "",
        environments=tuple(map(_environment_in, environments)),
        fair_share=bool(row.get("schedulingPolicyArn")),
    )


def _environment_in(row: Mapping[str, Any]) -> Environment:
    resources = row.get("computeResources") or {}
    return Environment(
        name=row.get("computeEnvironmentName") or "",
        kind="EKS" if row.get("eksConfiguration") else resources.get("type") or row.get("type") or "",
        state=row.get("state") or "",
        status=row.get("status") or "",
        reason=row.get("statusReason") or "",
        most_vcpus=resources.get("maxvCpus"),
        wanted_vcpus=resources.get("desiredvCpus"),
        instance_types=tuple(resources.get("instanceTypes") or ()),
    )


def troubles(queue: Queue) -> Iterator[Trouble]:
    """What keeps every job of the queue from starting, worst first."""
    yield from _of_the_queue(queue)
    for environment in queue.environments:
        yield from _of_the_environment(environment)
    usable = [environment for environment in queue.environments if environment.usable]
    if not queue.environments:
        mend = (
            f"aws batch update-job-queue --job-queue {queue.name} "
            "--compute-environment-order order=1,computeEnvironment=NAME"
        )
        yield Trouble(f"job queue {queue.name}", RefusalKind.CONFIG, "has no compute environment", mend)
    if usable and all(environment.full for environment in usable):
        names = ", ".join(f"{one.name} ({one.wanted_vcpus} of {one.most_vcpus} vCPUs)" for one in usable)
        mend = f"aws batch update-compute-environment --compute-environment {usable[0].name} " + (
            "--compute-resources maxvCpus=N"
        )
        yield Trouble(
            f"job queue {queue.name}", RefusalKind.QUOTA, f"every environment is at its maximum: {names}", mend
        )


def worst(queue: Queue) -> Trouble | None:
    """The one that explains why a job waits: an environment that cannot be used matters only when no other can."""
    found = list(troubles(queue))
    if any(environment.usable for environment in queue.environments):
        names = {f"compute environment {environment.name}" for environment in queue.environments}
        found = [trouble for trouble in found if trouble.subject not in names]
    return found[0] if found else None


def _of_the_queue(queue: Queue) -> Iterator[Trouble]:
    subject = f"job queue {queue.name}"
    if queue.state != "ENABLED":
        mend = f"aws batch update-job-queue --job-queue {queue.name} --state ENABLED"
        yield Trouble(subject, RefusalKind.CONFIG, f"is {queue.state or 'in no state'}", mend)
    if queue.status not in ("VALID", *_ON_THE_WAY):
        mend = "mend its compute environments, or make the queue anew (docs/backends/aws-batch.md)"
        yield Trouble(subject, RefusalKind.CONFIG, clipped(f"is {queue.status}: {queue.reason}"), mend)


def _of_the_environment(environment: Environment) -> Iterator[Trouble]:
    subject = f"compute environment {environment.name}"
    update = f"aws batch update-compute-environment --compute-environment {environment.name}"
    if environment.state != "ENABLED":
        text = f"is {environment.state or 'in no state'}"
        yield Trouble(subject, RefusalKind.CONFIG, text, f"{update} --state ENABLED")
    if environment.status not in ("VALID", *_ON_THE_WAY):
        text = clipped(f"is {environment.status}: {environment.reason}")
        mend = f"mend what the reason names, then {update} --state DISABLED and --state ENABLED"
        yield Trouble(subject, RefusalKind.CONFIG, text, mend)
