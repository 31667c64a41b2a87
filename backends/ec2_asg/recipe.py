"""A submission → what is sent for it, and what came of that, as values. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.base import Accepted, LaunchOutcome, RefusalKind, Refused, Submission, clipped
from backends.ec2_asg import states
from backends.ec2_asg.userdata import Machine, user_data
from backends.sound import problem_of


def problem(submission: Submission, max_batch: int, owner: tuple[str, str]) -> str:
    """Why this submission can never be launched, or nothing."""
    if (submission.manager, submission.pool) != owner:
        return f"this backend serves pool {owner[1]} of {owner[0]}, not {submission.pool} of {submission.manager}"
    return problem_of(submission, max_batch)


@dataclass(frozen=True)
class Asked:
    """What a call for instances came to: those that it named, and why others are missing."""

    outcome: LaunchOutcome
    instances: tuple[str, ...] = ()
    missing: Refused | None = None


def read_launched(answer: Mapping[str, Any], count: int) -> Asked:
    """The answer of LaunchInstances. Raises KeyError, TypeError or ValueError when it is none."""
    instances = tuple(name for part in answer["Instances"] for name in part["InstanceIds"])
    if len(instances) >= count:
        return Asked(Accepted(), instances)
    words = "; ".join(f"{one.get('ErrorCode')}: {one.get('ErrorMessage')}" for one in answer.get("Errors") or ())
    words = words or f"{len(instances)} of {count} instances came"
    refused = Refused(states.reason_kind(words) or RefusalKind.CAPACITY, clipped(words))
    return Asked(Accepted(), instances, refused) if instances else Asked(refused)


def rendered(submission: Submission, group: str, region: str, machine: Machine, api: str) -> str:
    """What would be sent, as text. There is no secret in it: these workers have no token."""
    by_launch = {
        "AutoScalingGroupName": group,
        "RequestedCapacity": submission.count,
        "ClientToken": submission.id,
        "RetryStrategy": "none",
    }
    by_size = {
        "AutoScalingGroupName": group,
        "DesiredCapacity": f"(what the group wants now) + {submission.count}",
        "HonorCooldown": False,
    }
    calls = {"LaunchInstances": by_launch, "SetDesiredCapacity": by_size}
    if api != "auto":
        calls.pop("SetDesiredCapacity" if api == "launch-instances" else "LaunchInstances")
    requests = [f"# {name}\n{json.dumps(body, indent=2)}" for name, body in calls.items()]
    return "\n".join(
        (
            f"# submission {submission.id}: {submission.count} of pool {submission.pool}, in {region}",
            *([*requests[:1], "# or, where that is not offered", *requests[1:]] if len(requests) > 1 else requests),
            "# with this user data in the group's launch template",
            user_data(submission, group, region, machine),
        )
    )
