"""The calls to AWS, one method each: what is sent, and what a failure of it means. Decides nothing."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from backends.aws import Account, error_code, refused_or_unknown
from backends.base import ListFailed, RefusalKind, Refused, Unknown, clipped
from backends.ec2_asg import template
from backends.ec2_asg.group import (
    MANAGER,
    POOL,
    Group,
    Instance,
    Trouble,
    read_group,
    read_instances,
    read_trouble,
)

PAGE = 1_000  # of DescribeInstances, the most there is
TAGGED_AT_ONCE = 500

# https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html
AUTOSCALING_CODES: Mapping[str, RefusalKind] = {
    "ScalingActivityInProgress": RefusalKind.THROTTLED,
    "ScalingActivityInProgressFault": RefusalKind.THROTTLED,
    "ResourceContention": RefusalKind.THROTTLED,
    "ResourceContentionFault": RefusalKind.THROTTLED,
    "ValidationError": RefusalKind.CONFIG,
}

T = TypeVar("T")


class Unread(Exception):
    """A question got no usable answer. Nothing was changed by it."""

    def __init__(self, kind: RefusalKind | None, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.kind = kind  # None: there was no answer, or one that makes no sense
        self.retry_after_s = retry_after_s


class Cloud:
    """One group of one account, as the manager and pool that it belongs to."""

    def __init__(self, account: Account, group: str, owner: tuple[str, str], page: int = PAGE) -> None:
        self.account = account
        # The SDK's own, and what it falls over when an answer is none.
        self.errors: tuple[type[Exception], ...] = (*account.errors, KeyError, TypeError, AttributeError)
        self.name = group
        self._owner = owner
        self._page = page

    # ------------------------------------------------ questions

    def group(self) -> Group:
        """Raises Unread, also when there is no such group or it belongs to somebody else."""
        answer = self._ask(
            lambda: self._reading("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])
        )
        found = self._sense(lambda: [read_group(one) for one in answer["AutoScalingGroups"]])
        if len(found) != 1:
            raise Unread(RefusalKind.CONFIG, f"there is no Auto Scaling group {self.name!r} in {self.account.region}")
        if problem := self.not_ours(found[0]):
            raise Unread(RefusalKind.CONFIG, problem)
        return found[0]

    def not_ours(self, group: Group) -> str:
        """A group serves one pool of one manager, and says so by its tags."""
        owner = (group.tags.get(MANAGER, ""), group.tags.get(POOL, ""))
        if owner == self._owner:
            return ""
        whose = f"is tagged for pool {owner[1]!r} of manager {owner[0]!r}" if any(owner) else "is not tagged as ours"
        return (
            f"the group {self.name} {whose}; this is pool {self._owner[1]!r} of {self._owner[0]!r}: give it the tags "
            f"{MANAGER} and {POOL}, passed on at launch"
        )

    def instances(self) -> list[Instance]:
        """Every instance that bears the pool's tags, ended ones too while EC2 shows them. All pages, or Unread."""
        filters = [{"Name": f"tag:{key}", "Values": [self._owner[at]]} for at, key in enumerate((MANAGER, POOL))]
        found: list[Instance] = []
        more: dict[str, str] = {}
        while True:
            page = self._ask(
                lambda: self._reading("ec2").describe_instances(Filters=filters, MaxResults=self._page, **more)  # noqa: B023
            )
            found += self._sense(lambda: list(read_instances(page)))  # noqa: B023
            if not page.get("NextToken"):
                return found
            more = {"NextToken": page["NextToken"]}

    def trouble(self) -> Trouble | None:
        """Why instances do not come, if the group says so. A list is whole without it, so it never fails."""
        asking = self._reading("autoscaling")
        try:
            return read_trouble(asking.describe_scaling_activities(AutoScalingGroupName=self.name, MaxRecords=20))
        except self.errors:
            return None

    def launched_with(self, group: Group) -> template.Version:
        if group.template is None:
            raise Unread(RefusalKind.CONFIG, f"the group {self.name} has no launch template")
        of = group.template
        return self._sense(lambda: self._ask(lambda: template.current(self._reading("ec2"), of)))

    def role(self, profile: str) -> str:
        """The role whose credentials the instances of this profile get."""
        name = profile.rpartition("/")[2]
        answer = self._ask(lambda: self._reading("iam").get_instance_profile(InstanceProfileName=name))
        return self._sense(lambda: str(answer["InstanceProfile"]["Roles"][0]["RoleName"]))

    def console(self, instance: str) -> str:
        """The end of what the machine wrote to its console; '' where there is none."""
        ec2 = self._reading("ec2")
        for latest in ({"Latest": True}, {}):  # only machines on Nitro show it as it is written
            try:
                return str(ec2.get_console_output(InstanceId=instance, **latest).get("Output") or "")
            except self.errors:
                continue
        return ""

    # ------------------------------------------------ orders: one attempt each, the SDK's errors pass

    def want(self, desired: int) -> None:
        self.account.once("autoscaling").set_desired_capacity(
            AutoScalingGroupName=self.name, DesiredCapacity=desired, HonorCooldown=False
        )

    def launch(self, submission: str, count: int, zone: str) -> Mapping[str, Any]:
        where = {"AvailabilityZones": [zone]} if zone else {}
        answer: Mapping[str, Any] = self.account.once("autoscaling").launch_instances(
            AutoScalingGroupName=self.name,
            RequestedCapacity=count,
            ClientToken=submission,
            RetryStrategy="none",
            **where,
        )
        return answer

    def end(self, instance: str, fewer: bool) -> None:
        self.account.once("autoscaling").terminate_instance_in_auto_scaling_group(
            InstanceId=instance, ShouldDecrementDesiredCapacity=fewer
        )

    def kill(self, instance: str) -> None:
        self.account.once("ec2").terminate_instances(InstanceIds=[instance], SkipOsShutdown=True)

    def tag(self, instances: list[str], tags: Mapping[str, str]) -> None:
        given = [{"Key": key, "Value": value} for key, value in tags.items()]
        for begin in range(0, len(instances), TAGGED_AT_ONCE):
            self.account.once("ec2").create_tags(Resources=instances[begin : begin + TAGGED_AT_ONCE], Tags=given)

    # ------------------------------------------------

    def failed(self, error: Exception) -> Refused | Unknown:
        """What an error of an order says of it."""
        return refused_or_unknown(error, AUTOSCALING_CODES)

    def _reading(self, service: str) -> Any:
        return self.account.reading(service)

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except self.errors as error:
            meant = self.failed(error)
            if isinstance(meant, Refused):
                raise Unread(meant.kind, meant.text, meant.retry_after_s) from error
            raise Unread(None, meant.text) from error

    @staticmethod
    def _sense(read: Callable[[], T]) -> T:
        try:
            return read()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise Unread(None, clipped(f"an answer that makes no sense: {type(error).__name__} {error}")) from error


def list_failed(unread: Unread) -> ListFailed:
    return ListFailed(clipped(str(unread)) or "no answer")


def is_validation(error: Exception, *words: str) -> bool:
    """A ValidationError whose text holds one of these: the service has one code for everything."""
    text = str(error).lower()
    return error_code(error) in ("ValidationError", "ValidationException") and any(word in text for word in words)
