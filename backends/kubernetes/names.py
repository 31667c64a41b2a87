"""What ties objects of the cluster to workers: names, labels, and the handle that names one Job and no later one.

Pure. A Job has its worker's id as its name; Job, pod and Secret carry the same labels, so one selector finds a pool.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from backends.base import Submission

CONTAINER = "worker"
MANAGED_BY = "app.kubernetes.io/managed-by"
OURS = "worker-manager"
MANAGER, POOL, SUBMISSION, INDEX, CONFIG = (
    f"{OURS}/{word}" for word in ("manager", "pool", "submission", "index", "config")
)
CONTROLLER_UID = "controller-uid"  # which the Job controller puts on its pods, in every version

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9-]{1,63}")


class Handle(NamedTuple):
    """A Job by name and UID: what is deleted by it is that very Job, never one that got its name later."""

    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.name}/{self.uid}"


def handle(text: str) -> Handle | None:
    """None: it cannot be one of ours."""
    name, _, uid = text.partition("/")
    return Handle(name, uid) if is_dns_label(name) and _UID.fullmatch(uid) else None


def is_dns_label(text: str) -> bool:
    return _DNS_LABEL.fullmatch(text) is not None


def label_value(text: str) -> str:
    """The text where it may be a label's value, else one that stands for it."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    return "x" + hashlib.sha256(text.encode()).hexdigest()[:40]


def labels(submission: Submission) -> dict[str, str]:
    return {
        MANAGED_BY: OURS,
        MANAGER: label_value(submission.manager),
        POOL: label_value(submission.pool),
        SUBMISSION: label_value(submission.id),
    }


def labels_of(submission: Submission, index: int) -> dict[str, str]:
    return labels(submission) | {INDEX: str(index), CONFIG: label_value(submission.config)}


def pool_selector(manager: str, pool: str) -> str:
    return f"{MANAGED_BY}={OURS},{MANAGER}={label_value(manager)},{POOL}={label_value(pool)}"


def submission_selector(submission: Submission) -> str:
    return ",".join(f"{name}={value}" for name, value in labels(submission).items())


def worker_of(thing: Mapping[str, Any]) -> tuple[str, int] | None:
    """Submission and index of a Job or pod; None: it carries our labels, but no launch of ours made it."""
    found = thing.get("metadata", {}).get("labels") or {}
    submission, index = found.get(SUBMISSION, ""), found.get(INDEX, "")
    return (submission, int(index)) if submission and index.isascii() and index.isdecimal() else None
