"""The platform's answers as values: the group, its members, the instances, what went wrong with them. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backends.base import clipped
from backends.ec2_asg import states

PREFIX = "worker-manager:"
MANAGER, POOL = PREFIX + "manager", PREFIX + "pool"  # on the group, passed on to its instances
SUBMISSION, INDEX = PREFIX + "submission", PREFIX + "index"  # on an instance, since we know whose it is


@dataclass(frozen=True)
class Template:
    """The launch template that a group names."""

    id: str
    version: str  # "$Latest", "$Default" or a number


@dataclass(frozen=True)
class Member:
    id: str
    state: str
    zone: str = ""

    @property
    def in_store(self) -> bool:
        return self.state.startswith(states.IN_STORE)

    @property
    def counts(self) -> bool:
        """Whether it is one of the instances that the desired capacity asks for."""
        leaving = self.state.startswith("Terminating")
        return not self.in_store and not leaving and self.state not in states.NOT_COUNTED


@dataclass(frozen=True)
class Group:
    name: str
    account: str
    desired: int
    smallest: int
    largest: int
    members: tuple[Member, ...]
    tags: Mapping[str, str]
    passed_on: frozenset[str]  # the keys of tags that its instances get
    template: Template | None
    mixed: bool  # On-Demand and Spot
    weighted: bool
    protects: bool  # new instances are protected from scale-in
    warm_pool: bool
    suspended: frozenset[str]
    zones: tuple[str, ...]
    subnets: tuple[str, ...]
    types: tuple[str, ...]  # named by the mixed instances policy
    least: tuple[int, int] | None = None  # vCPUs and MiB that it asks of a type, where it names none

    @property
    def counted(self) -> int:
        return sum(member.counts for member in self.members)

    @property
    def outstanding(self) -> int:
        """Instances that were asked for and have not appeared."""
        return max(0, self.desired - self.counted)

    def emptiest_zone(self, short: Collection[str] = ()) -> str:
        """Where the next instance keeps the zones in balance, among those that are not short of machines unless all
        are; the first of the alphabet among equals."""
        held = dict.fromkeys(self.zones, 0)
        for member in self.members:
            if member.counts and member.zone in held:
                held[member.zone] += 1
        good = [zone for zone in self.zones if zone not in short] or self.zones
        return min(sorted(good), key=lambda zone: held[zone], default="")


@dataclass(frozen=True)
class Instance:
    """An instance as EC2 shows it."""

    id: str
    state: str
    launched_at: int  # UTC ms
    group: str = ""  # that launched it
    reason: str = ""
    profile: str = ""  # ARN of its instance profile
    submission: str = ""
    index: int | None = None


def read_group(answer: Mapping[str, Any]) -> Group:
    """One of DescribeAutoScalingGroups. Raises KeyError, TypeError or ValueError when it is none."""
    tags = answer.get("Tags") or ()
    mixed = answer.get("MixedInstancesPolicy") or {}
    overrides = (mixed.get("LaunchTemplate") or {}).get("Overrides") or ()
    return Group(
        name=answer["AutoScalingGroupName"],
        account=_account(answer["AutoScalingGroupARN"]),
        desired=int(answer["DesiredCapacity"]),
        smallest=int(answer["MinSize"]),
        largest=int(answer["MaxSize"]),
        members=tuple(
            Member(one["InstanceId"], one["LifecycleState"], one.get("AvailabilityZone") or "")
            for one in answer.get("Instances") or ()
        ),
        tags={tag["Key"]: tag.get("Value") or "" for tag in tags},
        passed_on=frozenset(tag["Key"] for tag in tags if tag.get("PropagateAtLaunch")),
        template=_template(answer, mixed),
        mixed=_both_kinds(mixed.get("InstancesDistribution") or {}) if mixed else False,
        weighted=any(one.get("WeightedCapacity") for one in overrides),
        protects=bool(answer.get("NewInstancesProtectedFromScaleIn")),
        warm_pool=bool(answer.get("WarmPoolConfiguration")),
        suspended=frozenset(one["ProcessName"] for one in answer.get("SuspendedProcesses") or ()),
        zones=tuple(answer.get("AvailabilityZones") or ()),
        subnets=tuple(filter(None, (answer.get("VPCZoneIdentifier") or "").split(","))),
        types=tuple(one["InstanceType"] for one in overrides if one.get("InstanceType")),
        least=_least([one["InstanceRequirements"] for one in overrides if one.get("InstanceRequirements")]),
    )


def read_instances(page: Mapping[str, Any]) -> Iterable[Instance]:
    """One page of DescribeInstances."""
    for reservation in page["Reservations"]:
        for one in reservation["Instances"]:
            tags = {tag["Key"]: tag.get("Value") or "" for tag in one.get("Tags") or ()}
            why = one.get("StateReason") or {}
            index = tags.get(INDEX, "")
            yield Instance(
                id=one["InstanceId"],
                state=(one.get("State") or {}).get("Name") or "",
                launched_at=milliseconds(one.get("LaunchTime")) or 0,
                group=tags.get("aws:autoscaling:groupName", ""),
                reason=clipped(f"{why.get('Code') or ''} {why.get('Message') or ''}"),
                profile=(one.get("IamInstanceProfile") or {}).get("Arn") or "",
                submission=tags.get(SUBMISSION, ""),
                index=int(index) if index.isascii() and index.isdecimal() and len(index) < 6 else None,
            )


@dataclass(frozen=True)
class Trouble:
    """Why instances that were asked for do not come."""

    at: int
    text: str


def read_trouble(answer: Mapping[str, Any]) -> Trouble | None:
    """The newest word of DescribeScalingActivities, if it is one of failure. A launch that worked since says that it
    is over."""
    for activity in answer.get("Activities") or ():
        if not str(activity.get("Description") or "").startswith("Launching"):
            continue
        if activity.get("StatusCode") == "Successful":
            return None
        if text := clipped(str(activity.get("StatusMessage") or "")):
            return Trouble(milliseconds(activity.get("StartTime")) or 0, text)
    return None


def milliseconds(at: Any) -> int | None:
    if not isinstance(at, datetime):
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _account(arn: str) -> str:
    """`arn:aws:autoscaling:REGION:ACCOUNT:autoScalingGroup:…`"""
    return arn.split(":")[4]


def _template(answer: Mapping[str, Any], mixed: Mapping[str, Any]) -> Template | None:
    given = answer.get("LaunchTemplate") or (mixed.get("LaunchTemplate") or {}).get("LaunchTemplateSpecification")
    if not given:
        return None
    return Template(given.get("LaunchTemplateId") or "", str(given.get("Version") or "$Default"))


def _least(requirements: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    if not requirements:
        return None
    smallest = [
        min(int((one.get(name) or {}).get("Min") or 0) for one in requirements) for name in ("VCpuCount", "MemoryMiB")
    ]
    return smallest[0], smallest[1]


def _both_kinds(distribution: Mapping[str, Any]) -> bool:
    base = int(distribution.get("OnDemandBaseCapacity") or 0)
    percent = distribution.get("OnDemandPercentageAboveBaseCapacity")
    percent = 100 if percent is None else int(percent)
    return percent != 100 and (base > 0 or percent > 0)
