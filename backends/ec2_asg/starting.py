"""Asking a group for instances: by LaunchInstances with the submission's id as client token where that is offered, else
by an absolute desired capacity that is computed from what is there."""

from dataclasses import dataclass

from backends.aws import error_code
from backends.base import Accepted, Context, RefusalKind, Refused, Submission, Unknown, clipped
from backends.ec2_asg import template
from backends.ec2_asg.cloud import Cloud, is_validation
from backends.ec2_asg.group import Group
from backends.ec2_asg.recipe import Asked, read_launched
from backends.ec2_asg.roster import Order
from backends.ec2_asg.userdata import Machine, packed, user_data

SHORT_MS = 600_000  # for how long a zone without machines is avoided
TEMPLATE_GOOD_MS = 300_000  # for how long a launch template that was looked at counts as unchanged
_NOT_OFFERED = ("InvalidAction", "UnsupportedOperation", "UnknownOperationException", "AccessDenied")


class Stopped(Exception):
    """A launch that ends before anything was asked for."""

    def __init__(self, outcome: Refused) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


@dataclass(frozen=True)
class Ready:
    """A group that can take the submission."""

    submission: Submission
    group: Group
    at: int

    @property
    def desired(self) -> int:
        """Where somebody wants fewer than there are, those that are too many are counted first."""
        return max(self.group.desired, self.group.counted) + self.submission.count

    def order(self) -> Order:
        return Order(self.submission.id, self.submission.count, self.at)


class Starting:
    def __init__(self, cloud: Cloud, machine: Machine, context: Context, api: str, whose_template: str) -> None:
        self._cloud = cloud
        self._machine = machine
        self._context = context
        self._api = api
        self._managed = whose_template == "managed"
        self._offered = True  # LaunchInstances, as far as we know
        self._short: dict[str, int] = {}  # zones without machines, until
        self._good: tuple[str, int] = ("", 0)  # the user data that the template had, and when

    def prepare(self, submission: Submission) -> Ready:
        """Raises Stopped and Unread: then nothing was asked for."""
        group = self._cloud.group()
        if group.weighted:
            raise Stopped(Refused(RefusalKind.CONFIG, f"{group.name} weighs its instance types: a worker is one unit"))
        ready = Ready(submission, group, self._context.now_ms())
        if ready.desired > group.largest:
            text = f"the group {group.name} has {group.desired} and may have {group.largest} instances (MaxSize)"
            raise Stopped(Refused(RefusalKind.QUOTA, text))
        if self._managed:
            self._bring_template_up_to_date(submission, group)
        return ready

    def _bring_template_up_to_date(self, submission: Submission, group: Group) -> None:
        ec2 = self._cloud.account.once("ec2")
        try:
            wanted = packed(user_data(submission, group.name, self._cloud.account.region, self._machine))
        except ValueError as too_long:
            raise Stopped(Refused(RefusalKind.CONFIG, str(too_long))) from too_long
        now = self._context.now_ms()
        if self._good[0] == wanted and now - self._good[1] < TEMPLATE_GOOD_MS:
            return
        version = self._cloud.launched_with(group)
        if group.template is None:
            return
        description = f"worker-manager {submission.manager}/{submission.pool}"
        try:
            template.bring_up_to_date(ec2, group.template, version, wanted, description)
        except template.Fixed as fixed:
            raise Stopped(Refused(RefusalKind.CONFIG, str(fixed))) from fixed
        except self._cloud.errors as error:
            meant = self._cloud.failed(error)
            kind = meant.kind if isinstance(meant, Refused) else RefusalKind.THROTTLED
            text = clipped(f"the launch template could not be brought up to date: {meant.text}")
            raise Stopped(Refused(kind, text)) from error
        self._good = (wanted, now)

    # ------------------------------------------------ ask

    def ask(self, ready: Ready) -> Asked:
        if self._by_launch(ready.group):
            asked = self._launch(ready)
            if asked is not None:
                return asked
        return self._want(ready)

    def _by_launch(self, group: Group) -> bool:
        """A warm pool is drawn on by the desired capacity alone, and a group of both kinds is not launched into."""
        if self._api != "auto":
            return self._api == "launch-instances"
        return self._offered and not (group.mixed or group.warm_pool or group.template is None)

    def _launch(self, ready: Ready) -> Asked | None:
        """None where it turns out not to be offered, which certainly did nothing."""
        zone = self._zone(ready.group)
        submission = ready.submission
        try:
            answer = self._cloud.launch(submission.id, submission.count, zone)
        except self._cloud.errors as error:
            if self._api == "auto" and error_code(error) in _NOT_OFFERED:
                self._offered = False
                return None
            return Asked(self._meant(error))
        try:
            asked = read_launched(answer, submission.count)
            if self._api == "auto" and isinstance(asked.outcome, Refused) and asked.outcome.kind is RefusalKind.AUTH:
                self._offered = False  # it acts in our name, the group itself in its own
                return None
            self._note_zone(zone, asked)
            return asked
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return Asked(Unknown(f"an answer that makes no sense: {type(error).__name__} {error}"))

    def _zone(self, group: Group) -> str:
        """A group in one zone needs none."""
        now = self._context.now_ms()
        self._short = {zone: until for zone, until in self._short.items() if until > now}
        return group.emptiest_zone(self._short) if len(group.zones) > 1 else ""

    def _note_zone(self, zone: str, asked: Asked) -> None:
        """One that has no machines now is left alone for a while: it stays the emptiest, and others may have some."""
        why = asked.outcome if isinstance(asked.outcome, Refused) else asked.missing
        if zone and why is not None and why.kind is RefusalKind.CAPACITY:
            self._short[zone] = self._context.now_ms() + SHORT_MS

    def _want(self, ready: Ready) -> Asked:
        try:
            self._cloud.want(ready.desired)
        except self._cloud.errors as error:
            return Asked(self._meant(error))
        return Asked(Accepted())

    def _meant(self, error: Exception) -> Refused | Unknown:
        """That the size is limited is said by the same code as a mistake."""
        if is_validation(error, "above max", "max value", "maxsize", "max size"):
            return Refused(RefusalKind.QUOTA, clipped(str(error)))
        return self._cloud.failed(error)
