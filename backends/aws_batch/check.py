"""What `doctor` says of AWS Batch. Reads only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backends.aws import Account, error_code, identity_finding
from backends.aws_batch import fargate, recipe
from backends.aws_batch.logs import DEFAULT_GROUP
from backends.aws_batch.queue import Environment, NoSuchQueue, Queue, read, troubles
from backends.aws_batch.settings import Settings
from backends.base import Context, Finding, Severity, clipped
from worker.protocol import Shape

POLICY = "give it docs/backends/aws-batch/manager-policy.json"
_FOR_THE_SYSTEM = 0.93  # of a machine's memory; the rest is kept by its system and by the agent of ECS


def findings(account: Account, settings: Settings, context: Context) -> Iterator[Finding]:
    who = identity_finding(account)
    yield who
    if who.severity is Severity.ERROR:
        return
    yield from _rights(account, settings, context)
    try:
        queue = read(account, settings.queue)
    except NoSuchQueue:
        text = f"there is no such queue in {account.region}"
        mend = "aws batch describe-job-queues, or make one from docs/backends/aws-batch/stack.yaml; then set job-queue"
        yield Finding(f"job queue {settings.queue}", Severity.ERROR, text, mend)
        return
    except account.errors as failed:
        yield Finding(f"job queue {settings.queue}", Severity.ERROR, clipped(str(failed)), POLICY)
        return
    yield from _queue(queue)
    yield from _platform(queue, settings)
    if context.shape:
        yield from _shape(account, queue, settings, context.shape, context.max_workers)
    yield from _image(settings)
    yield from _log_group(account, settings)
    if settings.job_filter:
        yield Finding("job-filter", Severity.WARNING, "has no effect: workers are found by their names", "leave it out")


# ---------------------------------------------------------------- rights


def _rights(account: Account, settings: Settings, context: Context) -> Iterator[Finding]:
    """Those that only read can be tried. What changes something cannot: Batch has no dry run."""
    batch = account.reading("batch")
    name = {"name": "JOB_NAME", "values": [recipe.prefix(context.manager, context.pool) + "*"]}
    tries: Sequence[tuple[str, Any, Mapping[str, Any]]] = (
        ("batch:ListJobs", batch.list_jobs, {"jobQueue": settings.queue, "filters": [name], "maxResults": 1}),
        ("batch:DescribeJobs", batch.describe_jobs, {"jobs": ["00000000-0000-0000-0000-000000000000"]}),
        (
            "batch:DescribeJobDefinitions",
            batch.describe_job_definitions,
            {"jobDefinitionName": settings.prefix, "maxResults": 1},
        ),
    )
    denied = []
    for right, call, arguments in tries:
        try:
            call(**arguments)
        except account.errors as failed:
            if error_code(failed) != "ClientException":  # a queue that is not there is said below
                denied.append(f"{right}: {failed}")
    if denied:
        yield Finding("rights", Severity.ERROR, clipped("; ".join(denied)), POLICY)
    else:
        text = "it may list and describe; whether it may submit and terminate shows only when it does"
        yield Finding("rights", Severity.OK, text)


# ---------------------------------------------------------------- queue


def _queue(queue: Queue) -> Iterator[Finding]:
    found = list(troubles(queue))
    usable = [environment for environment in queue.environments if environment.usable]
    for trouble in found:
        minor = trouble.subject.startswith("compute environment") and usable
        full = trouble.text.startswith("every environment is at its maximum")
        severity = Severity.WARNING if minor or full else Severity.ERROR
        yield Finding(trouble.subject, severity, trouble.text, trouble.mend)
    if not found:
        names = ", ".join(f"{one.name} ({one.kind}, at most {one.most_vcpus} vCPUs)" for one in queue.environments)
        yield Finding(f"job queue {queue.name}", Severity.OK, f"enabled and valid; {names}")


def _platform(queue: Queue, settings: Settings) -> Iterator[Finding]:
    wrong = [one.name for one in queue.environments if one.fargate != settings.fargate]
    if wrong:
        right = "ec2" if settings.fargate else "fargate"
        text = f"{', '.join(wrong)} is not for jobs of the platform {'fargate' if settings.fargate else 'ec2'}"
        yield Finding("platform", Severity.ERROR, text, f"set platform: {right}, or name another queue")
    if eks := [one.name for one in queue.environments if one.kind == "EKS"]:
        text = f"{', '.join(eks)} runs on Kubernetes, and takes other jobs than ours"
        yield Finding("platform", Severity.ERROR, text, "name a queue on EC2 or Fargate, or use the backend kubernetes")
    if queue.fair_share and not settings.share:
        text = "the queue shares its machines by a policy, and takes only jobs that name their share"
        yield Finding("share-identifier", Severity.ERROR, text, "set share-identifier to one of the policy's")
    if settings.share and not queue.fair_share:
        text = "the queue has no policy of shares, and refuses jobs that name one"
        yield Finding("share-identifier", Severity.ERROR, text, "leave it out")


# ---------------------------------------------------------------- shape


def _shape(
    account: Account, queue: Queue, settings: Settings, shape: Shape, max_workers: int | None
) -> Iterator[Finding]:
    cpus, mib = recipe.size(shape.cpus, shape.memory, settings.fargate)
    asked = f"{cpus / 1000:g} vCPUs, {mib} MiB" + (f", {shape.gpus} GPUs" if shape.gpus else "")
    most = queue.most_vcpus
    if problem := recipe.shape_problem(shape, settings):
        sizes = "; ".join(f"{size / 1000:g}" for size in fargate.SIZES)
        yield Finding("shape", Severity.ERROR, problem, f"choose a size of Fargate ({sizes} vCPUs), or platform: ec2")
    elif most is not None and most * 1000 < cpus:
        text = f"a worker takes {asked}, and the queue has at most {most} vCPUs"
        yield Finding("shape", Severity.ERROR, text, "raise maxvCpus of the compute environment, or ask for less")
    else:
        yield from _largest(account, queue, cpus, mib, shape.gpus, asked)
        if most is not None and max_workers and max_workers * cpus > most * 1000:
            text = f"{max_workers} workers of {asked} are more than the {most} vCPUs of the queue: some will wait"
            yield Finding("max-workers", Severity.WARNING, text, "raise maxvCpus, or lower max-workers")


def _largest(account: Account, queue: Queue, cpus: int, mib: int, gpus: int, asked: str) -> Iterator[Finding]:
    named = [one for one in queue.environments if one.usable and not one.fargate]
    machines = _machines(account, named) if named else None
    if not machines:
        fargate_only = all(one.fargate for one in queue.environments)
        why = "a size of Fargate" if fargate_only else "its machines cannot be told from here"
        yield Finding("shape", Severity.OK, f"a worker takes {asked} ({why})")
    elif any(one[0] * 1000 >= cpus and one[1] * _FOR_THE_SYSTEM >= mib and one[2] >= gpus for one in machines.values()):
        yield Finding("shape", Severity.OK, f"a worker takes {asked}, which fits the queue's machines")
    else:
        name, (vcpus, memory, has) = max(machines.items(), key=lambda item: (item[1][2], item[1][0], item[1][1]))
        text = f"a worker takes {asked}, and the largest machine ({name}) has {vcpus} vCPUs, {memory} MiB, {has} GPUs"
        yield Finding("shape", Severity.ERROR, text, "add larger instance types to the environment, or ask for less")


def _machines(account: Account, environments: Sequence[Environment]) -> Mapping[str, tuple[int, int, int]] | None:
    """Instance type → (vCPUs, MiB, GPUs). None when an environment leaves the choice to Batch, or nobody tells."""
    wanted = [name for environment in environments for name in environment.instance_types]
    if not wanted or [name for name in wanted if name.startswith(("optimal", "default"))]:
        return None
    patterns = [name if "." in name else f"{name}.*" for name in wanted]
    found: dict[str, tuple[int, int, int]] = {}
    try:
        pages = account.reading("ec2").get_paginator("describe_instance_types")
        for page in pages.paginate(Filters=[{"Name": "instance-type", "Values": patterns}]):
            for one in page["InstanceTypes"]:
                gpus = sum(gpu.get("Count", 0) for gpu in one.get("GpuInfo", {}).get("Gpus", []))
                found[one["InstanceType"]] = (one["VCpuInfo"]["DefaultVCpus"], one["MemoryInfo"]["SizeInMiB"], gpus)
    except account.errors_and(KeyError, TypeError):
        return None
    return found


# ---------------------------------------------------------------- image, logs


def _image(settings: Settings) -> Iterator[Finding]:
    """Whether it can be pulled shows only on a machine; what usually stands in the way can be said before."""
    registry = settings.image.split("/")[0]
    private = ".dkr.ecr." in registry
    if private and settings.fargate is False and not settings.execution_role:
        hint = "the machines' own role must be allowed to pull it (AmazonEC2ContainerServiceforEC2Role)"
    elif private:
        hint = "the execution role must be allowed to pull it (AmazonECSTaskExecutionRolePolicy)"
    elif settings.fargate and not settings.public_ip:
        hint = "without public-ip the subnets need a NAT gateway to reach a public registry, and the hub"
    else:
        hint = "the machines must reach its registry, and the hub"
    yield Finding("image", Severity.OK, f"{settings.image}: {hint}")


def _log_group(account: Account, settings: Settings) -> Iterator[Finding]:
    name = settings.log_group or DEFAULT_GROUP
    subject = f"log group {name}"
    try:
        groups = account.reading("logs").describe_log_groups(logGroupNamePrefix=name, limit=50).get("logGroups") or []
    except account.errors as failed:
        yield Finding(subject, Severity.WARNING, clipped(f"workers' logs cannot be read: {failed}"), POLICY)
        return
    if any(group.get("logGroupName") == name for group in groups):
        yield Finding(subject, Severity.OK, "is there")
    elif settings.log_group:
        text = "is not there, and no worker starts without it"
        yield Finding(subject, Severity.ERROR, text, f"aws logs create-log-group --log-group-name {name}")
    else:
        yield Finding(subject, Severity.OK, "is made by Batch with the first job")
