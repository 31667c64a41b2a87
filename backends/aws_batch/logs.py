"""The end of a worker's own output, from CloudWatch Logs."""

from collections.abc import Mapping
from typing import Any

from backends.aws import Account

DEFAULT_GROUP = "/aws/batch/job"
_MOST_PAGES = 10  # of at most 1 MiB


def tail(account: Account, handle: str, names_begin_with: str, max_bytes: int) -> str:
    """'' where there is none, or the job is not one of ours. Raises nothing: it is for people who look."""
    try:
        jobs = account.reading("batch").describe_jobs(jobs=[handle]).get("jobs") or []
        ours = [job for job in jobs if job["jobId"] == handle and job["jobName"].startswith(names_begin_with)]
        return _read(account, *_stream(ours[0]), max_bytes) if ours else ""
    except account.errors_and(KeyError, TypeError, AttributeError):
        return ""


def _stream(job: Mapping[str, Any]) -> tuple[str, str]:
    container = job.get("container") or {}
    attempts = [attempt.get("container") or {} for attempt in job.get("attempts") or []]
    names = [one["logStreamName"] for one in (container, *reversed(attempts)) if one.get("logStreamName")]
    options = (container.get("logConfiguration") or {}).get("options") or {}
    return options.get("awslogs-group") or DEFAULT_GROUP, names[0] if names else ""


def _read(account: Account, group: str, stream: str, max_bytes: int) -> str:
    """Backwards, page by page, until there is enough. CloudWatch repeats a token when there is nothing before it."""
    if not stream:
        return ""
    lines: list[str] = []
    where: dict[str, str] = {}
    for _ in range(_MOST_PAGES):
        page = account.reading("logs").get_log_events(
            logGroupName=group, logStreamName=stream, startFromHead=False, **where
        )
        lines = [event.get("message", "") for event in page.get("events") or []] + lines
        token = page.get("nextBackwardToken")
        if not page.get("events") or not token or sum(map(len, lines)) >= max_bytes or where.get("nextToken") == token:
            break
        where = {"nextToken": token}
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return text.encode()[-max_bytes:].decode("utf-8", "replace")
