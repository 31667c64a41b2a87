"""Whose a job is, as it stands in the job itself: so that a manager finds its workers again whatever it has lost.

The job's name ends with the submission's id, the comment says manager and pool. A site may rewrite comments; then the
record in the work dir says whose the submission is.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

_MARK = "worker-manager"
_SUBMISSION = re.compile(r"[a-z0-9]([a-z0-9-]{0,34}[a-z0-9])?")


@dataclass(frozen=True)
class Owner:
    manager: str
    pool: str


def comment(owner: Owner, submission: str) -> str:
    """Every part quoted, so that no name can pretend to be two."""
    return ":".join((_MARK, *(quote(part, safe="") for part in (owner.manager, owner.pool, submission))))


def read_comment(text: str) -> tuple[Owner, str] | None:
    """(owner, submission), or None for a comment of somebody else."""
    parts = text.split(":")
    if len(parts) != 4 or parts[0] != _MARK:
        return None
    manager, pool, submission = (unquote(part) for part in parts[1:])
    return Owner(manager, pool), submission


def job_name(prefix: str, submission: str) -> str:
    return f"{prefix}.{submission}" if prefix else submission


def submission_of(name: str) -> str:
    """A submission's id holds no dot, so what follows the last one is the id."""
    return name.rpartition(".")[2]


def is_submission(text: str) -> bool:
    return _SUBMISSION.fullmatch(text) is not None
