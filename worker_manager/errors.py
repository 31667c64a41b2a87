"""Every error that a person may see.

WorkerManagerError           exit 1
├── UsageError               exit 2   what was asked makes no sense: where, and what to write instead
│   └── ConfigError                   one line for each mistake, with its place
├── SourceUnavailable        the backlog cannot be read now; nothing is decided from it
├── HubError                 the hub answered with a problem (RFC 9457); exit 2 where what was asked makes no sense
├── StoreError               exit 74  the database cannot be used: what to do stands in the message
└── LeaseHeld                exit 75  another manager holds the lease
"""

from collections.abc import Mapping, Sequence
from typing import Any


class WorkerManagerError(Exception):
    exit_code = 1


class UsageError(WorkerManagerError):
    exit_code = 2


class ConfigError(UsageError):
    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class SourceUnavailable(WorkerManagerError):
    pass


class HubError(WorkerManagerError):
    """`status`, `code` (stable, for programs) and `detail` (a sentence) come from the problem document."""

    def __init__(self, status: int, code: str, detail: str, extra: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail or f"the hub answered {status}")
        if status in (400, 422):
            self.exit_code = UsageError.exit_code
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = dict(extra or {})


class StoreError(WorkerManagerError):
    exit_code = 74


class LeaseHeld(WorkerManagerError):
    exit_code = 75
