"""How instances go: by the group, which then wants one fewer; by force; and places that still wait are taken back."""

import re
from collections.abc import Callable

from backends import aws
from backends.base import Accepted, EndOutcome, RefusalKind, Refused, Unknown, clipped
from backends.ec2_asg import view
from backends.ec2_asg.cloud import Cloud, Unread, is_validation
from backends.ec2_asg.roster import Place, Record, Roster

_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}", re.ASCII)
_GONE = ("not found", "no managed instance", "does not exist", "not in inservice", "invalid instance")
_TOO_FEW = ("min size", "minsize", "minimum")


def instance_of(roster: Roster, handle: str) -> str | None:
    """'' for a worker to which no instance has come; None for what is no handle."""
    if _INSTANCE.fullmatch(handle):
        return handle
    found = roster.order_of(handle)
    return found[0].instances.get(found[1], "") if found else None


class Ending:
    def __init__(self, cloud: Cloud, record: Record, now_ms: Callable[[], int]) -> None:
        self._cloud = cloud
        self._record = record
        self._now_ms = now_ms
        self._asked: set[str] = set()  # to end

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        """Politely: the group ends the instance and wants one fewer; its lifecycle hook and the machine's shutdown
        give the worker its time. With force the machine is then ended by EC2 itself, without a shutdown, so that no
        hook is waited for."""
        try:
            roster = self._record.read()
            instance = instance_of(roster, handle)
            if instance == "":
                return self._cancel(handle)
            if instance is None or not (roster.knows(instance) or self._is_member(instance)):
                return Refused(RefusalKind.CONFIG, f"{clipped(handle)!r} is no worker of the group {self._cloud.name}")
            ended = self._end(instance)
            if force and isinstance(ended, Accepted):
                return self._kill(instance)
            return ended
        except Unread as unread:
            return Unknown(clipped(str(unread)))
        except (OSError, ValueError) as failed:
            return Unknown(clipped(f"the record: {failed}"))

    def _is_member(self, instance: str) -> bool:
        return any(member.id == instance for member in self._cloud.group().members)

    def _end(self, instance: str) -> EndOutcome:
        """Asked twice, a group might want two fewer; so the second time it is looked at first."""
        if instance in self._asked and not self._still_works(instance):
            return Accepted()
        try:
            self._cloud.end(instance, fewer=True)
        except self._cloud.errors as error:
            if is_validation(error, *_TOO_FEW) and self._has_too_many():
                return self._end_surplus(instance)
            if not is_validation(error, *_GONE):
                self._asked.add(instance)
                return self._cloud.failed(error)
        self._asked.add(instance)
        return Accepted()

    def _still_works(self, instance: str) -> bool:
        return any(member.id == instance and member.counts for member in self._cloud.group().members)

    def _has_too_many(self) -> bool:
        """More instances than it wants: then one of them can go without another being started for it."""
        group = self._cloud.group()
        return group.counted > group.desired

    def _end_surplus(self, instance: str) -> EndOutcome:
        try:
            self._cloud.end(instance, fewer=False)
        except self._cloud.errors as error:
            return self._cloud.failed(error)
        self._asked.add(instance)
        return Accepted()

    def _kill(self, instance: str) -> EndOutcome:
        try:
            self._cloud.kill(instance)
        except self._cloud.errors as error:
            if aws.error_code(error).startswith("InvalidInstanceID"):
                return Accepted()
            return self._cloud.failed(error)
        return Accepted()

    def _cancel(self, worker: str) -> EndOutcome:
        """A place that still waits: the group wants one fewer, and the place is given up. Should its instance come in
        this very moment, it is a stray."""
        group = self._cloud.group()
        with self._record.changing() as roster:
            found = roster.order_of(worker)
            if found is None or found[1] not in found[0].waiting:
                return Accepted()
            place = Place(found[0].id, found[1])
            if place in view.awaited(group, roster):
                try:
                    self._cloud.want(group.desired - 1)
                except self._cloud.errors as error:
                    return self._cloud.failed(error)
            roster.give_up([place], "", "taken back before a machine came", self._now_ms())
        return Accepted()
