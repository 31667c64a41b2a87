"""What AWS says beforehand about instances that it is about to end: messages of a queue, one queue for each group.

    lifecycle hook on terminate       waits for our answer, and longer after each heartbeat
    spot interruption warning         in two minutes, whatever we do
    rebalance recommendation          a spot instance that is likely to be interrupted; nothing is enforced

They come by EventBridge, the hook's also straight from the group. A message stays in the queue until its notice is
released, and what was read of it stands in a file of the pool's folder: the next manager goes on where this one died,
and when the file is lost, the queue tells it again. What is not for this group, and what is no message of these, is
left in the queue.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from backends.aws import Account, refused_or_unknown
from backends.base import (
    Accepted,
    EndOutcome,
    ListFailed,
    Notice,
    Refused,
    Unknown,
    clipped,
)
from backends.ec2_asg.cloud import AUTOSCALING_CODES, is_validation
from backends.ec2_asg.group import milliseconds
from backends.ec2_asg.roster import Place

INVISIBLE_S = 120  # for other readers, and for us, while a notice is open
ROUNDS = 5  # of ten messages each, in one look
SPOT_MS = 120_000
STALE_MS = 600_000  # a spot message older than this is of no use to anybody

# https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks-overview.html
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"
TEST = "autoscaling:TEST_NOTIFICATION"
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
SPOT = {
    "EC2 Spot Instance Interruption Warning": "spot interruption",
    "EC2 Instance Rebalance Recommendation": "rebalance recommendation",
}


@dataclass(frozen=True)
class Message:
    """One that says that an instance is about to go. `hook` and `token` are there when an answer is waited for."""

    instance: str
    reason: str
    at: int | None
    deadline: int | None = None
    group: str = ""
    hook: str = ""
    token: str = ""

    @property
    def id(self) -> str:
        """The same however often it is sent."""
        return f"hook:{self.token}" if self.token else f"{self.reason}:{self.instance}:{self.at or 0}"


class Probe:
    """What a hook sends when it is made: it only shows that the queue works."""


def read_message(body: str) -> Message | Probe | None:
    """None for what is none of ours to understand. Never raises."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if found.get("Event") == TEST:
        return Probe()
    detail = found.get("detail")
    if not isinstance(detail, dict):
        return _of_hook(found, _instant(found.get("Time")))
    at = _instant(found.get("time"))
    reason = SPOT.get(str(found.get("detail-type")))
    if reason and found.get("source") == "aws.ec2" and isinstance(detail.get("instance-id"), str):
        warning = reason == SPOT["EC2 Spot Instance Interruption Warning"]
        return Message(detail["instance-id"], reason, at, at + SPOT_MS if warning and at else None)
    return _of_hook(detail, at)


def _of_hook(said: Mapping[str, Any], at: int | None) -> Message | None:
    names = ("EC2InstanceId", "AutoScalingGroupName", "LifecycleHookName", "LifecycleActionToken")
    values = [said.get(name) for name in names]
    if said.get("LifecycleTransition") != TERMINATING or not all(value and isinstance(value, str) for value in values):
        return None
    instance, group, hook, token = map(str, values)
    return Message(instance, "the group ends this instance", at, None, group, hook, token)


def _instant(text: Any) -> int | None:
    try:
        return milliseconds(datetime.fromisoformat(str(text)))
    except ValueError:
        return None


@dataclass
class Open:
    """A notice that is not released yet."""

    message: Message
    receipts: dict[str, str] = field(default_factory=dict)  # message id → receipt: it may be sent more than once


class Notebook:
    """The open notices, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Open]:
        """What is torn or lost is told again by the queue."""
        try:
            found = json.loads(self._path.read_bytes())
            return {id: Open(Message(**one["message"]), dict(one["receipts"])) for id, one in found.items()}
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def write(self, notices: Mapping[str, Open]) -> None:
        text = json.dumps(
            {id: {"message": asdict(one.message), "receipts": one.receipts} for id, one in notices.items()}
        )
        new = self._path.with_suffix(".new")
        new.write_text(text)
        new.replace(self._path)


class Queue:
    def __init__(self, account: Account, url: str, group: str, folder: Path, now_ms: Callable[[], int]) -> None:
        self.url = url
        self._account = account
        self._group = group
        self._now_ms = now_ms
        self._notebook = Notebook(folder / "ec2-asg-notices.json")
        self._hook_ms: dict[str, int] = {}  # how long a hook waits at most, with heartbeats

    def open(self, place_of: Callable[[str], Place | None]) -> tuple[Notice, ...]:
        """Raises ListFailed and OSError."""
        if not self.url:
            return ()
        notices = self._notebook.read()
        before = repr(notices)
        others: list[str] = []
        for _ in range(ROUNDS):
            messages = self._receive()
            for message in messages:
                if not self._take(message, notices, place_of):
                    others.append(message["ReceiptHandle"])
            if len(messages) < 10:
                break
        self._give_back(others)
        if repr(notices) != before:
            self._notebook.write(notices)
        return tuple(self._notice(id, one.message, place_of) for id, one in notices.items())

    def _receive(self) -> list[Mapping[str, Any]]:
        try:
            answer = self._account.reading("sqs").receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=INVISIBLE_S, WaitTimeSeconds=0
            )
            return [one for one in answer.get("Messages") or () if "ReceiptHandle" in one]
        except self._account.errors as error:
            raise ListFailed(clipped(f"the queue: {error}")) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ListFailed("the queue gave an answer that makes no sense") from error

    def _take(self, raw: Mapping[str, Any], notices: dict[str, Open], place_of: Callable[[str], Place | None]) -> bool:
        """False for another group's, which is to be seen by its reader at once."""
        message = read_message(str(raw.get("Body") or ""))
        if isinstance(message, Probe):
            self._delete(raw["ReceiptHandle"])
        elif message is None:
            return True  # out of our way for a while; it may be of use to somebody, or will run out
        elif message.group and message.group != self._group:
            return False
        elif not message.group and place_of(message.instance) is None:
            if self._now_ms() - (message.at or 0) < STALE_MS:
                return False
            self._delete(raw["ReceiptHandle"])
        else:
            notices.setdefault(message.id, Open(message)).receipts[str(raw.get("MessageId"))] = raw["ReceiptHandle"]
        return True

    def _notice(self, id: str, message: Message, place_of: Callable[[str], Place | None]) -> Notice:
        known = place_of(message.instance) is not None
        deadline = message.deadline
        if message.hook and message.at is not None and (longest := self._longest(message.hook)):
            deadline = message.at + longest
        return Notice(id, message.instance if known else "", message.reason, deadline)

    def _longest(self, hook: str) -> int | None:
        """For how long that hook can be held: a hundred times its time-out, at most two days."""
        if hook not in self._hook_ms:
            try:
                answer = self._account.reading("autoscaling").describe_lifecycle_hooks(AutoScalingGroupName=self._group)
                for one in answer.get("LifecycleHooks") or ():
                    seconds = one.get("GlobalTimeout") or 100 * (one.get("HeartbeatTimeout") or 0)
                    self._hook_ms[one["LifecycleHookName"]] = min(seconds, 172_800) * 1000
            except self._account.errors:
                return None
        return self._hook_ms.get(hook)

    # ------------------------------------------------ answers

    def hold(self, notice: Notice) -> EndOutcome:
        one = self._notebook.read().get(notice.id)
        if one is None:
            return Accepted()
        try:
            for receipt in one.receipts.values():
                with suppress(*self._account.errors):  # else it is merely told again
                    self._invisible(receipt, INVISIBLE_S)
            if one.message.token:
                self._account.once("autoscaling").record_lifecycle_action_heartbeat(**self._action(one.message))
        except self._account.errors as error:
            return self._failed(error)
        return Accepted()

    def release(self, notice: Notice) -> EndOutcome:
        """The message goes last: until then the answer can be given again."""
        notices = self._notebook.read()
        one = notices.get(notice.id)
        if one is None:
            return Accepted()
        if one.message.token:
            try:
                self._account.once("autoscaling").complete_lifecycle_action(
                    LifecycleActionResult="CONTINUE", **self._action(one.message)
                )
            except self._account.errors as error:
                outcome = self._failed(error)
                if not isinstance(outcome, Accepted):
                    return outcome
        for receipt in one.receipts.values():
            self._delete(receipt)
        del notices[notice.id]
        self._notebook.write(notices)
        return Accepted()

    def _action(self, message: Message) -> dict[str, str]:
        return {
            "LifecycleHookName": message.hook,
            "AutoScalingGroupName": self._group,
            "LifecycleActionToken": message.token,
            "InstanceId": message.instance,
        }

    @staticmethod
    def _failed(error: Exception) -> Accepted | Refused | Unknown:
        """An action that is over needs no answer."""
        if is_validation(error, "no active lifecycle action"):
            return Accepted()
        return refused_or_unknown(error, AUTOSCALING_CODES)

    # ------------------------------------------------ messages

    def _delete(self, receipt: str) -> None:
        with suppress(*self._account.errors):  # it comes again then, and is answered again
            self._account.once("sqs").delete_message(QueueUrl=self.url, ReceiptHandle=receipt)

    def _give_back(self, receipts: list[str]) -> None:
        for receipt in receipts:
            with suppress(*self._account.errors):  # its reader sees it a little later then
                self._invisible(receipt, 0)

    def _invisible(self, receipt: str, seconds: int) -> None:
        self._account.once("sqs").change_message_visibility(
            QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=seconds
        )
