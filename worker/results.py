"""An attempt's result, from what the keeper measured: how it ended, and in words."""

import os
import signal
from typing import Any, Optional, Tuple

from worker.channel import LEASE_ENDED, WORK_DIR_IN_USE
from worker.isolation import ways
from worker.protocol import Assignment, Result, format_duration

WHY_IT_DIED = {
    LEASE_ENDED: "the lease ended",
    WORK_DIR_IN_USE: "another keeper uses the work directory",
}


def result_of(message: Tuple[Any, ...], assignment: Assignment) -> Result:
    job, epoch, outcome, exit_code, number, reason, text, started_ms, run_ms, cpu_ms, max_rss, output = message
    return Result(
        job=job,
        epoch=epoch,
        outcome=outcome,
        exit_code=exit_code,
        signal=number,
        reason=reason,
        text=text or sentence(reason, exit_code, number, assignment),
        started_ms=started_ms,
        run_ms=run_ms,
        cpu_ms=cpu_ms,
        max_rss=max_rss,
        output=output,
    )


def sentence(reason: str, exit_code: Optional[int], number: Optional[int], assignment: Assignment) -> str:
    if reason == "time-limit":
        return "ran longer than its time limit of %s" % format_duration(assignment.get("time_limit_ms") or 0)
    if number is not None:
        return "ended by %s" % signal_name(number)
    said = "exit status %d" % exit_code if exit_code else ""
    if exit_code and 128 < exit_code < 128 + signal.NSIG and ways.is_wrapped(assignment.get("work")):
        said += ", which is how a wrapper tells %s" % signal_name(exit_code - 128)
    return said


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number


def why_it_died(status: int) -> str:
    if os.WIFSIGNALED(status):
        return "the keeper was ended by %s" % signal_name(os.WTERMSIG(status))
    code = os.WEXITSTATUS(status)
    return WHY_IT_DIED.get(code, "the keeper ended with exit status %d; its messages are in the agent's output" % code)
