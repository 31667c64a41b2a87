"""One job as Batch shows it: a row of ListJobs or an entry of DescribeJobs → Job → Seen. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.aws_batch.states import kind_of, phase_of
from backends.base import Seen, WorkerPhase, clipped

LARGEST_ARRAY = 10_000  # that Batch makes


class Unreadable(Exception):
    """An answer that is none."""


@dataclass(frozen=True)
class Job:
    """A row of ListJobs, or an entry of DescribeJobs."""

    id: str
    name: str
    status: str
    size: int  # of an array; 0 for a plain job or a child
    reason: str
    created_at: int
    started_at: int | None
    stopped_at: int | None
    exit_code: int | None
    ending: bool
    counts: Mapping[str, int] = field(default_factory=dict)  # of an array: its children by state, as far as it tells


def job_in(row: Any) -> Job:
    """Raises Unreadable."""
    try:
        container = row.get("container") or {}
        words = (_text(row, "statusReason"), _text(container, "reason"), _last_reason(row))
        return Job(
            id=_text(row, "jobId", required=True),
            name=_text(row, "jobName", required=True),
            status=_text(row, "status"),
            size=_size(row),
            reason="; ".join(dict.fromkeys(word for word in words if word)),
            created_at=_number(row, "createdAt") or 0,
            started_at=_number(row, "startedAt") or None,
            stopped_at=_number(row, "stoppedAt") or None,
            exit_code=_number(container, "exitCode"),
            ending=bool(row.get("isTerminated") or row.get("isCancelled")),
            counts=_counts(row),
        )
    except (AttributeError, KeyError, TypeError) as failed:
        raise Unreadable(f"a job that is none: {clipped(repr(row))[:200]}") from failed


def _size(row: Mapping[str, Any]) -> int:
    """A child's array is not its own."""
    size = 0 if ":" in row["jobId"] else _number(row.get("arrayProperties") or {}, "size") or 0
    if not 0 <= size <= LARGEST_ARRAY:
        raise TypeError(f"an array of {size}")
    return size


def _counts(row: Mapping[str, Any]) -> Mapping[str, int]:
    summary = (row.get("arrayProperties") or {}).get("statusSummary") or {}
    return {status: number for status in summary if (number := _number(summary, status))}


def _last_reason(row: Mapping[str, Any]) -> str:
    attempts = row.get("attempts") or [{}]
    return _text((attempts[-1] or {}).get("container") or {}, "reason")


def _text(row: Mapping[str, Any], name: str, required: bool = False) -> str:
    value = row[name] if required else row.get(name) or ""
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _number(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"{name} is no number")
    return value


def seen(job: Job, submission: str, index: int) -> Seen:
    phase = phase_of(job.status, job.ending)
    return Seen(
        submission=submission,
        index=index,
        handle=job.id,
        phase=phase,
        started_at=job.started_at if phase not in (WorkerPhase.PENDING, WorkerPhase.STARTING) else None,
        exit_code=job.exit_code if phase is WorkerPhase.ENDED else None,
        refusal=None if job.ending else kind_of(job.reason),
        detail=clipped(job.reason or ("" if phase is not WorkerPhase.UNKNOWN else f"state {job.status!r}")),
    )
