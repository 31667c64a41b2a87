"""What the states and reasons of AWS Batch mean. Pure.

https://docs.aws.amazon.com/batch/latest/userguide/job_states.html
https://docs.aws.amazon.com/batch/latest/userguide/batch-array-job-states.html
"""

import re
from collections.abc import Mapping

from backends.base import RefusalKind, WorkerPhase

PHASES: Mapping[str, WorkerPhase] = {
    "SUBMITTED": WorkerPhase.PENDING,
    "PENDING": WorkerPhase.PENDING,
    "RUNNABLE": WorkerPhase.PENDING,  # queued: no machine has room for it yet
    "STARTING": WorkerPhase.STARTING,
    "RUNNING": WorkerPhase.RUNNING,
    "SUCCEEDED": WorkerPhase.ENDED,
    "FAILED": WorkerPhase.ENDED,
}

# In the order in which a job passes through them. A job only moves forward, so one that is asked for state by state in
# this order is met at least once.
LIVE = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
ENDED = ("SUCCEEDED", "FAILED")

# What `statusReason` and a container's `reason` say, the first match first. What says nothing of capacity, rights or
# configuration (a program that exited, a time limit, a termination) has no kind.
# https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html
# https://docs.aws.amazon.com/batch/latest/userguide/bestpractice6.html
_REASONS = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"toomanyrequests|pull rate limit|throttl|rate exceeded", RefusalKind.THROTTLED),
        (r"MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS|is not authorized to perform", RefusalKind.AUTH),
        (
            r"(CannotPull|ResourceInitializationError).*"
            r"(access ?denied|denied|not authorized|unauthorized|no basic auth|authorization token)",
            RefusalKind.AUTH,
        ),
        (r"(limit|quota) (was |has been |is )?(exceeded|reached)", RefusalKind.QUOTA),
        (r"(exceed|reach)\w* (the|your) .*(limit|quota|maximum)", RefusalKind.QUOTA),
        (r"CAPACITY:|insufficient.?\w*.?capacity|Capacity is unavailable", RefusalKind.CAPACITY),
        (r"MISCONFIGURATION:|ACTION_REQUIRED|JOB_RESOURCE_REQUIREMENT", RefusalKind.CONFIG),
        (r"Cannot(Pull|Start|Create|Inspect)\w*Error|ResourceInitializationError|InvalidParameter", RefusalKind.CONFIG),
        (r"executable file not found|exec format error", RefusalKind.CONFIG),
        (r"^Host EC2 .*terminated", RefusalKind.CAPACITY),  # a machine that was taken back
    )
)


def phase_of(status: str, ending: bool = False) -> WorkerPhase:
    """A state that is not in the table is UNKNOWN. `ending`: Batch has taken a request to terminate it."""
    phase = PHASES.get(status, WorkerPhase.UNKNOWN)
    return WorkerPhase.ENDING if ending and phase not in (WorkerPhase.ENDED, WorkerPhase.UNKNOWN) else phase


def kind_of(reason: str) -> RefusalKind | None:
    """Why it waits or ended, by the platform's words; None where they say no such thing."""
    beginning = reason[:4000]
    return next((kind for pattern, kind in _REASONS if pattern.search(beginning)), None)
