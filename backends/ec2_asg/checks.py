"""What `doctor` says of a group: whether it can serve its pool, and what mends it. Changes nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

from backends.aws import identity_finding
from backends.base import Context, Finding, Severity, clipped
from backends.ec2_asg import template
from backends.ec2_asg.cloud import Cloud, Unread
from backends.ec2_asg.group import MANAGER, POOL, Group
from backends.ec2_asg.notices import TERMINATING, Queue
from worker.protocol import Shape

MIB = 2**20
NEEDED = ("Launch", "Terminate")  # processes of the group that must not be suspended
OWN_ACCORD = ("AZRebalance", "ReplaceUnhealthy")  # that had better be


def findings(cloud: Cloud, queue: Queue, options: Mapping[str, Any], context: Context) -> tuple[Finding, ...]:
    who = identity_finding(cloud.account)
    if who.severity is Severity.ERROR:
        return (who,)
    try:
        group = cloud.group()
    except Unread as unread:
        return (who, Finding("group", Severity.ERROR, clipped(str(unread)), _make_or_tag(cloud.name, context)))
    found = [who, *of_size(group, context.max_workers), *of_settings(group)]
    found += [Looked(cloud, group).policies(), Looked(cloud, group).schedules()]
    found += Looked(cloud, group).queue(queue)
    found += Looked(cloud, group).template(options["launch-template"], options["instance-role"], context.shape)
    return tuple(found)


def _make_or_tag(group: str, context: Context) -> str:
    tags = " ".join(
        f"ResourceId={group},ResourceType=auto-scaling-group,Key={key},Value={value},PropagateAtLaunch=true"
        for key, value in ((MANAGER, context.manager), (POOL, context.pool))
    )
    return (
        "make it from docs/backends/ec2-asg/worker-group.yaml, or, where it is there and nobody else uses it: "
        f"aws autoscaling create-or-update-tags --tags {tags}"
    )


# ------------------------------------------------ what the group itself shows: pure


def of_size(group: Group, max_workers: int | None) -> Iterable[Finding]:
    update = f"aws autoscaling update-auto-scaling-group --auto-scaling-group-name {group.name}"
    if group.smallest:
        text = f"MinSize is {group.smallest}: the last {group.smallest} workers cannot be ended without a new one"
        yield Finding("group size", Severity.ERROR, text, f"{update} --min-size 0")
    elif max_workers is not None and group.largest < max_workers:
        text = f"MaxSize is {group.largest}, and the pool may have {max_workers} workers"
        yield Finding("group size", Severity.WARNING, text, f"{update} --max-size {max_workers}")
    else:
        yield Finding("group size", Severity.OK, f"{group.desired} of 0 to {group.largest} instances")


def of_settings(group: Group) -> Iterable[Finding]:
    name = f"--auto-scaling-group-name {group.name}"
    if missing := {MANAGER, POOL} - group.passed_on:
        text = f"{' and '.join(sorted(missing))} not passed on to instances, so EC2 cannot be asked for them"
        yield Finding("group tags", Severity.ERROR, text, "set PropagateAtLaunch of these tags")
    if stopped := sorted(group.suspended.intersection(NEEDED)):
        mend = f"aws autoscaling resume-processes {name} --scaling-processes {' '.join(stopped)}"
        yield Finding("group processes", Severity.ERROR, f"{', '.join(stopped)} suspended", mend)
    if active := [process for process in OWN_ACCORD if process not in group.suspended]:
        text = f"{' and '.join(active)} active: the group may start instances that nobody asked for (they are ended)"
        mend = f"aws autoscaling suspend-processes {name} --scaling-processes {' '.join(active)}"
        yield Finding("group processes", Severity.WARNING, text, mend)
    if not group.protects:
        mend = f"aws autoscaling update-auto-scaling-group {name} --new-instances-protected-from-scale-in"
        yield Finding("scale-in protection", Severity.ERROR, "new instances are not protected from scale-in", mend)
    else:
        yield Finding("scale-in protection", Severity.OK, "new instances are protected from scale-in")
    if group.weighted:
        mend = "take WeightedCapacity out of the mixed instances policy"
        yield Finding("instance weights", Severity.ERROR, "instance types are weighed; a worker is one unit", mend)


def of_policies(group: str, names: Iterable[str], suspended: Iterable[str]) -> Finding:
    """Two who set the size of one group undo each other's work."""
    if not (names := sorted(names)):
        return Finding("scaling policies", Severity.OK, "none")
    if "AlarmNotification" in suspended:
        return Finding("scaling policies", Severity.OK, f"{', '.join(names)}: suspended")
    mend = (
        f"aws autoscaling suspend-processes --auto-scaling-group-name {group} --scaling-processes AlarmNotification"
        " (or delete them: aws autoscaling delete-policy)"
    )
    return Finding("scaling policies", Severity.ERROR, f"active, beside this manager: {', '.join(names)}", mend)


def of_template(group: Group, version: template.Version, whose: str) -> Iterable[Finding]:
    named = group.template
    if named and whose == "managed" and named.version not in template.NAMED:
        text = f"the group launches version {named.version}; what workers are started with cannot be kept up to date"
        yield Finding(
            "launch template", Severity.ERROR, text, "have the group name $Latest, or set launch-template: fixed"
        )
    elif whose == "fixed" and not version.user_data:
        mend = "worker-manager render shows the user data that it needs"
        yield Finding("launch template", Severity.ERROR, "it has no user data, so no worker is started", mend)
    else:
        yield Finding("launch template", Severity.OK, f"version {version.number}")
    if version.metadata.get("HttpTokens") != "required":
        mend = "set MetadataOptions.HttpTokens to required in the launch template"
        yield Finding("instance metadata", Severity.ERROR, "IMDSv1 is allowed", mend)
    else:
        yield Finding("instance metadata", Severity.OK, "IMDSv2 only")
    if not version.profile:
        mend = "give the launch template an instance profile; its role needs no right to prove who an instance is"
        yield Finding("instance profile", Severity.ERROR, "none: workers cannot show who they are", mend)
    else:
        yield Finding("instance profile", Severity.OK, version.profile)


def of_types(shape: Shape, types: Iterable[Mapping[str, Any]]) -> Finding:
    """Whether the smallest type holds a worker."""
    small = []
    for one in types:
        cpus = int((one.get("VCpuInfo") or {}).get("DefaultVCpus") or 0) * 1000
        memory = int((one.get("MemoryInfo") or {}).get("SizeInMiB") or 0) * MIB
        gpus = sum(int(gpu.get("Count") or 0) for gpu in (one.get("GpuInfo") or {}).get("Gpus") or ())
        if shape.cpus > cpus or (shape.memory or 0) > memory or (shape.gpus or 0) > gpus:
            small.append(f"{one.get('InstanceType')} ({cpus // 1000} vCPUs, {memory // MIB} MiB, {gpus} GPUs)")
    if small:
        mend = "ask for less in the pool's shape, or take larger instance types"
        return Finding("shape", Severity.ERROR, f"a worker does not fit {', '.join(sorted(small))}", mend)
    return Finding("shape", Severity.OK, "a worker fits the instance types of the group")


def of_requirements(shape: Shape, least: tuple[int, int]) -> Finding:
    """The same where the group chooses among all types that have enough."""
    cpus, memory = least
    if shape.cpus > cpus * 1000 or (shape.memory or 0) > memory * MIB:
        text = f"the group may choose types with {cpus} vCPUs and {memory} MiB, which a worker does not fit"
        mend = "raise MinVCpus and MinMemoryMiB of the stack, or ask for less in the pool's shape"
        return Finding("shape", Severity.ERROR, text, mend)
    return Finding("shape", Severity.OK, f"a worker fits {cpus} vCPUs and {memory} MiB")


# ------------------------------------------------ what has to be asked for


class Looked:
    """A question that fails is a warning: it is a right that only `doctor` needs."""

    def __init__(self, cloud: Cloud, group: Group) -> None:
        self._cloud = cloud
        self._group = group
        self._errors = cloud.errors

    def policies(self) -> Finding:
        asking = self._cloud.account.reading("autoscaling")
        try:
            answer = asking.describe_policies(AutoScalingGroupName=self._group.name)
        except self._errors as error:
            return _unread("scaling policies", error)
        active = [one["PolicyName"] for one in answer["ScalingPolicies"] if one.get("Enabled", True)]
        return of_policies(self._group.name, active, self._group.suspended)

    def schedules(self) -> Finding:
        asking = self._cloud.account.reading("autoscaling")
        try:
            answer = asking.describe_scheduled_actions(AutoScalingGroupName=self._group.name)
        except self._errors as error:
            return _unread("scheduled actions", error)
        names = [one["ScheduledActionName"] for one in answer.get("ScheduledUpdateGroupActions") or ()]
        if names and "ScheduledActions" not in self._group.suspended:
            mend = (
                f"aws autoscaling suspend-processes --auto-scaling-group-name {self._group.name} "
                "--scaling-processes ScheduledActions"
            )
            return Finding("scheduled actions", Severity.ERROR, f"active: {', '.join(names)}", mend)
        return Finding("scheduled actions", Severity.OK, "none that acts")

    def queue(self, queue: Queue) -> Iterable[Finding]:
        hook_missing = "add a lifecycle hook for autoscaling:EC2_INSTANCE_TERMINATING, as in worker-group.yaml"
        try:
            answer = self._cloud.account.reading("autoscaling").describe_lifecycle_hooks(
                AutoScalingGroupName=self._group.name
            )
        except self._errors as error:
            yield _unread("lifecycle hook", error)
            return
        hooks = [one for one in answer["LifecycleHooks"] if one.get("LifecycleTransition") == TERMINATING]
        if not queue.url:
            severity = Severity.ERROR if hooks else Severity.WARNING
            text = "no queue-url is set" + (", so nobody answers the lifecycle hook" if hooks else "")
            yield Finding("notices", severity, text, "set queue-url to the output QueueUrl of the stack")
            return
        if hooks:
            yield Finding("lifecycle hook", Severity.OK, ", ".join(one["LifecycleHookName"] for one in hooks))
        else:
            yield Finding("lifecycle hook", Severity.WARNING, "none: machines go without a word", hook_missing)
        try:
            self._cloud.account.reading("sqs").get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])
        except self._errors as error:
            mend = "set queue-url to the output QueueUrl of the stack, and give the manager its policy"
            yield Finding("queue", Severity.ERROR, clipped(str(error)), mend)
        else:
            yield Finding("queue", Severity.OK, queue.url)

    def role(self, profile: str) -> Finding:
        try:
            role = self._cloud.role(profile)
        except Unread as unread:
            text = clipped(f"it cannot be found out ({unread}), so any role of the account may stand for a worker's")
            return Finding(
                "instance role", Severity.WARNING, text, "allow iam:GetInstanceProfile, or set instance-role"
            )
        return Finding("instance role", Severity.OK, role)

    def template(self, whose: str, role: str, shape: Shape | None) -> Iterable[Finding]:
        try:
            version = self._cloud.launched_with(self._group)
        except Unread as unread:
            mend = "give the group a launch template (launch configurations are not supported)"
            yield Finding("launch template", Severity.ERROR, clipped(str(unread)), mend)
            return
        yield from of_template(self._group, version, whose)
        if version.profile and not role:
            yield self.role(version.profile)
        own = (version.data.get("InstanceType"),) if version.data.get("InstanceType") else ()
        if shape is not None and self._group.least is not None:
            yield of_requirements(shape, self._group.least)
        if shape is None or not (types := self._group.types or own):
            return
        try:
            answer = self._cloud.account.reading("ec2").describe_instance_types(InstanceTypes=list(types)[:100])
        except self._errors as error:
            yield _unread("shape", error)
        else:
            yield of_types(shape, answer["InstanceTypes"])


def _unread(subject: str, error: Exception) -> Finding:
    mend = "give the manager the policy that docs/backends/ec2-asg.md names"
    return Finding(subject, Severity.WARNING, clipped(f"cannot be read: {error}"), mend)
