"""Workers as instances of an EC2 Auto Scaling group, one group for each pool.

A group gives no instance a name and starts all of them alike. So what was asked for is written down here, and joined
with the instances as they appear (`roster.py`); a worker shows the hub by a signed call of its instance who it is; and
what instances are started with is kept up to date in the launch template (`template.py`).
"""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends import aws
from backends.base import (
    Accepted,
    BackendUnusable,
    Capabilities,
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    ListFailed,
    Listing,
    Notice,
    Option,
    RefusalKind,
    Refused,
    Submission,
    Unknown,
    clipped,
)
from backends.ec2_asg import checks, recipe, view
from backends.ec2_asg.cloud import Cloud, Unread, list_failed
from backends.ec2_asg.ending import Ending, instance_of
from backends.ec2_asg.group import Group
from backends.ec2_asg.notices import Queue
from backends.ec2_asg.roster import Place, Record, Roster
from backends.ec2_asg.starting import Starting, Stopped
from backends.ec2_asg.userdata import BadMount, Machine, read_mount

OPTIONS = (
    *aws.COMMON_OPTIONS,
    Option("group", required=True, help="name of the Auto Scaling group, which serves this pool alone"),
    Option(
        "launch-api",
        default="auto",
        choices=("auto", "launch-instances", "desired-capacity"),
        help="how instances are asked for; auto: by LaunchInstances where the group and the rights allow it",
    ),
    Option(
        "launch-template",
        default="managed",
        choices=("managed", "fixed"),
        help="managed: a launch adds a version with the user data of its workers; fixed: you do (see render)",
    ),
    Option("queue-url", default="", help="SQS queue with the group's lifecycle, spot and rebalance messages"),
    Option("instance-role", default="", help="role of the instances; without it, found by their instance profile"),
    Option("tag-instances", "bool", True, "tag each instance with its worker's submission and number"),
    Option("boot", "list", (), "shell lines run once, as root, when an instance boots, before its worker"),
    Option("mount", "list", (), "network file systems: fs-ID:/FOLDER (EFS) or HOST:/EXPORT:/FOLDER (NFS)"),
    Option("tmp-device", default="", help="a volume of the launch template to be mounted on /tmp, such as /dev/sdf"),
    Option("docker-device", default="", help="one to be mounted on /var/lib/docker, such as /dev/sdg"),
    Option("swap", "bytes", 0, "size of a swap file on the root volume"),
    Option("stop-seconds", "int", 120, "how long a worker may take to hand back its jobs when its machine shuts down"),
    Option("self-end", "bool", True, "an instance whose worker has ended ends itself; else the manager does it"),
)

CAPABILITIES = Capabilities(
    max_batch=100,  # of LaunchInstances
    ids_at_launch=False,
    list_lag_s=30.0,
    secrets="none",
    elsewhere=True,
    notices=True,
)


class Ec2AsgBackend:
    def __init__(self, options: Mapping[str, Any], context: Context, account: aws.Account) -> None:
        self._context = context
        self._options = options
        self._cloud = Cloud(account, options["group"], (context.manager, context.pool))
        self._machine = _machine(options)
        self._starting = Starting(
            self._cloud, self._machine, context, options["launch-api"], options["launch-template"]
        )
        folder = Path(context.state_dir)
        self._record = Record(folder)
        self._queue = Queue(account, options["queue-url"], options["group"], folder, context.now_ms)
        self._role: str | None = options["instance-role"] or None
        self._may_tag: bool = options["tag-instances"]
        self._ending = Ending(self._cloud, self._record, context.now_ms)

    # ------------------------------------------------ launch

    def launch(self, submission: Submission) -> LaunchOutcome:
        """Three steps: look, write down, ask. What was written down before a kill -9 is joined with what appears."""
        if problem := recipe.problem(submission, CAPABILITIES.max_batch, (self._context.manager, self._context.pool)):
            return Refused(RefusalKind.CONFIG, problem)
        begun = time.monotonic()
        try:
            ready = self._starting.prepare(submission)
            with self._record.changing() as roster:
                self._settle_before(roster, ready.group)
                roster.orders[submission.id] = ready.order()
            if time.monotonic() - begun > self._context.call_timeout_s / 2:
                raise Stopped(Refused(RefusalKind.THROTTLED, "AWS answers too slowly to ask for instances in time"))
        except Stopped as stopped:
            return self._not_asked(submission, stopped.outcome)
        except Unread as unread:
            text = clipped(f"nothing was asked for: {unread}")
            return Refused(unread.kind or RefusalKind.THROTTLED, text, unread.retry_after_s)
        except (OSError, ValueError) as failed:
            return self._not_asked(submission, Refused(RefusalKind.CONFIG, clipped(f"the record: {failed}")))
        return self._note_outcome(submission, self._starting.ask(ready))

    def _not_asked(self, submission: Submission, outcome: Refused) -> Refused:
        try:
            with self._record.changing() as roster:
                roster.remove(submission.id)
        except (OSError, ValueError):
            pass  # a place that waits for nothing is given up by the next launch
        return outcome

    def _settle_before(self, roster: Roster, group: Group) -> None:
        """What is there now belongs to what was asked for before. Places that nothing is on its way to are given up:
        an earlier call was lost, or somebody wanted fewer."""
        roster.correlate(view.fresh(group, (), roster))
        backed = view.awaited(group, roster)
        lost = [place for place in roster.waiting() if place not in backed]
        roster.give_up(lost, "", "", self._context.now_ms())

    def _note_outcome(self, submission: Submission, asked: "recipe.Asked") -> LaunchOutcome:
        try:
            with self._record.changing() as roster:
                order = roster.orders.get(submission.id)
                if order is None or isinstance(asked.outcome, Refused):
                    roster.remove(submission.id)
                elif isinstance(asked.outcome, Accepted):
                    order.sure = True
                    self._note_instances(roster, submission, asked)
        except (OSError, ValueError) as failed:
            return asked.outcome if isinstance(asked.outcome, Refused) else Unknown(clipped(f"the record: {failed}"))
        return asked.outcome

    def _note_instances(self, roster: Roster, submission: Submission, asked: "recipe.Asked") -> None:
        """Those that the platform named at once, and why others will not come."""
        for index, instance in enumerate(asked.instances[: submission.count]):
            roster.put(Place(submission.id, index), instance)
        if asked.missing is not None:
            places = [Place(submission.id, index) for index in roster.orders[submission.id].waiting]
            roster.give_up(places, asked.missing.kind.value, asked.missing.text, self._context.now_ms())

    # ------------------------------------------------ list

    def list(self) -> Listing:
        try:
            group, instances = self._cloud.group(), self._cloud.instances()
            now = self._context.now_ms()
            with self._record.changing() as roster:
                roster.recover(instances)
                roster.correlate(view.fresh(group, instances, roster))
                looked = view.View(group, instances, roster, now)
                roster.prune(looked.shown, now)
            waits = bool(view.awaited(group, roster))
            if roster.orders or roster.strays:
                self._find_role(group, [one.profile for one in instances if one.profile])
            seen = looked.seen(self._cloud.trouble() if waits else None, self._role or "")
        except Unread as unread:
            raise list_failed(unread) from unread
        except (OSError, ValueError) as failed:
            raise ListFailed(clipped(f"the record: {failed}")) from failed
        self._tag(roster, looked.shown)
        return Listing(seen)

    def _find_role(self, group: Group, profiles: Sequence[str]) -> None:
        """Once. Where it may not be asked for, the account and the instance have to do."""
        if self._role is not None:
            return
        try:
            profile = profiles[0] if profiles else self._cloud.launched_with(group).profile
            self._role = self._cloud.role(profile) if profile else ""
        except Unread as unread:
            if unread.kind in (RefusalKind.AUTH, RefusalKind.CONFIG):
                self._role = ""

    def _tag(self, roster: Roster, shown: set[str]) -> None:
        """For people, and for the day when the record is lost. What fails is tried again with the next listing; what
        is not allowed is not asked for again."""
        due = view.tags_due(roster, shown) if self._may_tag else []
        failed: set[Place] = set()
        for tags, places in due:
            try:
                self._cloud.tag([roster.orders[place.submission].instances[place.index] for place in places], tags)
            except self._cloud.errors as error:
                failed.update(places)
                meant = self._cloud.failed(error)
                if isinstance(meant, Refused) and meant.kind is RefusalKind.AUTH:
                    self._may_tag = False
                    return
        done = {place for _, places in due for place in places} - failed
        if done:
            with self._record.changing() as kept:
                for place in done:
                    if place.submission in kept.orders:
                        kept.orders[place.submission].tagged.add(place.index)

    # ------------------------------------------------ terminate

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        return self._ending.terminate(handle, force)

    # ------------------------------------------------ notices

    def notices(self) -> tuple[Notice, ...]:
        try:
            return self._queue.open(self._record.read().place_of)
        except (OSError, ValueError) as failed:
            raise ListFailed(clipped(f"the record: {failed}")) from failed

    def hold(self, notice: Notice) -> EndOutcome:
        try:
            return self._queue.hold(notice)
        except OSError as failed:
            return Unknown(clipped(str(failed)))

    def release(self, notice: Notice) -> EndOutcome:
        try:
            return self._queue.release(notice)
        except OSError as failed:
            return Unknown(clipped(str(failed)))

    # ------------------------------------------------ for people

    def logs(self, handle: str, max_bytes: int) -> str:
        """The machine's console, to which user data and worker write: EC2 keeps its last 64 KiB."""
        try:
            roster = self._record.read()
        except (OSError, ValueError):
            return ""
        instance = instance_of(roster, handle)
        if not instance or not roster.knows(instance) or max_bytes <= 0:
            return ""
        return self._cloud.console(instance).encode()[-max_bytes:].decode(errors="ignore")

    def check(self) -> tuple[Finding, ...]:
        return checks.findings(self._cloud, self._queue, self._options, self._context)

    def render(self, submission: Submission) -> str:
        region = self._cloud.account.region
        return recipe.rendered(submission, self._cloud.name, region, self._machine, self._options["launch-api"])


def _machine(options: Mapping[str, Any]) -> Machine:
    for name in ("tmp-device", "docker-device"):
        if options[name] and not re.fullmatch(r"/dev/[a-z0-9]+", options[name]):
            raise BackendUnusable(f"{name}: {options[name]!r} is not the name of a device, such as /dev/sdf")
    try:
        mounts = tuple(map(read_mount, options["mount"]))
    except BadMount as bad:
        raise BackendUnusable(f"mount: {bad}") from bad
    return Machine(
        boot=tuple(options["boot"]),
        mounts=mounts,
        tmp_device=options["tmp-device"],
        docker_device=options["docker-device"],
        swap=options["swap"],
        leaves=options["self-end"],
        stop_seconds=options["stop-seconds"],
    )


def create(options: Mapping[str, Any], context: Context) -> Ec2AsgBackend:
    account = aws.Account(options, context.call_timeout_s / 2)  # a launch looks before it asks
    return Ec2AsgBackend(options, context, account)
