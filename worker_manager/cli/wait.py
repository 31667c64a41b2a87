"""`submit --wait`: until the jobs have ended. What they do meanwhile goes to stderr: on a terminal in one line that is
written anew, elsewhere a line for each change of state."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from worker.protocol import JobState
from worker_manager.cli.kinds import job_state, why
from worker_manager.cli.output import NOTHING, cells
from worker_manager.cli.world import Invocation
from worker_manager.errors import HubError, WorkerManagerError

LONGEST_PAUSE_S = 2.0
ERASE = "\r\x1b[K"

Job = Mapping[str, Any]


def wait_for(inv: Invocation, client: Any, ids: Sequence[str]) -> int:
    """Exit code: of a single job its own, of several 0 when all succeeded. A hub that is away for a moment is waited
    for; who breaks off leaves the jobs to go on."""
    progress = _Progress(inv, len(ids))
    try:
        ended = [_ended(inv, client, job, progress) for job in ids]
    except KeyboardInterrupt:
        progress.clear()
        shown = ids[0] if len(ids) == 1 else f"{len(ids)} jobs"
        inv.say(f"not waiting any more; {shown} will go on: worker-manager cancel {ids[0]} would end {ids[0]}")
        raise
    progress.clear()
    failed = [job for job in ended if job["state"] != JobState.SUCCEEDED]
    for job in failed:
        reason = why(job)
        inv.say(
            f"worker-manager: {job['id']} {job_state(job)}{f': {reason}' if reason != NOTHING else ''}; "
            f"see worker-manager describe {job['id']}"
        )
    return exit_code_of(ended[0]) if len(ended) == 1 else 1 if failed else 0


def exit_code_of(job: Job) -> int:
    """As a shell would tell it: its own, 128 and the signal, else 1."""
    if job["state"] == JobState.SUCCEEDED:
        return 0
    code, signal = job.get("exit_code"), job.get("signal")
    return int(code) if code else 128 + int(signal) if signal else 1


def _ended(inv: Invocation, client: Any, name: str, progress: "_Progress") -> Job:
    pause = 0.1
    while True:
        try:
            job: Job = {"id": name, **client.get(f"/v1/jobs/{name}")}
        except HubError:
            raise
        except WorkerManagerError as error:
            progress.tell(f"{name}: {error}", "unknown")
        else:
            if job["state"] in JobState.FINAL:
                progress.one_ended()
                return job
            reason = why(job) if job["state"] != JobState.RUNNING else NOTHING
            where = f" on {job['worker']}" if job.get("worker") else ""
            progress.tell(
                f"{name} is {job_state(job)}{where}{f': {reason}' if reason != NOTHING else ''}",
                f"{name} {job['state']}",
            )
        inv.world.sleep(pause)
        pause = min(LONGEST_PAUSE_S, pause * 1.5)


class _Progress:
    def __init__(self, inv: Invocation, jobs: int) -> None:
        self._inv = inv
        self._jobs = jobs
        self._ended = 0
        self._last = ""
        self._drawn = False

    def tell(self, text: str, what: str) -> None:
        """`what` is the part of it whose change is worth a line where nobody watches."""
        count = f" ({self._ended} of {self._jobs} have ended)" if self._jobs > 1 else ""
        if self._inv.world.watched():
            self._draw(ERASE + _fitting(text + count, self._inv.error_width))
            self._drawn = True
        elif what != self._last:
            self._inv.say(text + count)
        self._last = what

    def one_ended(self) -> None:
        self._ended += 1

    def clear(self) -> None:
        if self._drawn:
            self._draw(ERASE)
            self._drawn = False

    def _draw(self, text: str) -> None:
        # Not by click, which takes an erased line for colour.
        sys.stderr.write(text)
        sys.stderr.flush()


def _fitting(text: str, width: int) -> str:
    while cells(text) >= width:
        text = text[:-2] + "…"
    return text
