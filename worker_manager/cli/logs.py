"""`logs JOB`: the bytes of its output, as they are. `logs worker ID`: what a worker itself wrote."""

import sys
from typing import Any
from urllib.parse import quote

import click

from worker.protocol import JobState
from worker_manager.cli.ids import kind_and_name
from worker_manager.cli.kinds import why
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.output import NOTHING
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.errors import SourceUnavailable, UsageError, WorkerManagerError

CHUNK = 1 << 20
MOST_TAIL = 8 << 20
LINE_GUESS = 4096
WAIT_MS = 20_000
AGAIN_S = 1.0
PATIENCE_S = 60.0  # with a manager that is asked for a worker's output
POLL_S = 0.2


@click.command(cls=OurCommand)
@click.argument("words", nargs=-1, required=True, metavar="JOB | worker ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@click.option("--attempt", type=click.IntRange(1), help="Of an earlier try. [default: the last]")
@with_connection
@takes_invocation
def logs(
    inv: Invocation, words: tuple[str, ...], follow: bool, tail: int | None, attempt: int | None, **connection: Any
) -> None:
    """Print the output of a job, or of one task of an array (JOB-NUMBER); or the end of what a worker itself wrote,
    also of one that never registered."""
    client = inv.plus(**connection).client()
    kind, name = kind_and_name(words, ["job", "worker"], "worker")
    if kind == "worker":
        if follow or attempt is not None:
            raise UsageError("-f and --attempt are for the output of jobs; of a worker the end is shown, as it is now")
        _write(of_worker(inv, client, name, tail))
        return
    output = _Output(client, name, attempt)
    # The first look never waits: where there is no output yet, the person is told why.
    if tail is None:
        body = output.more()
    else:
        body = last_lines(output.end(min(MOST_TAIL, max(CHUNK // 16, tail * LINE_GUESS))), tail)
    if not output.offset:
        _say_why_there_is_none(inv, output.job(), attempt, follow)
    _write(body)
    if follow:
        _follow(inv, output)
    elif tail is None:
        while not output.complete and body:
            body = output.more()
            _write(body)


class _Output:
    """What was read so far of one job's output. A later attempt begins anew at its first byte."""

    def __init__(self, client: Any, job: str, attempt: int | None) -> None:
        self._client = client
        self._path = f"/v1/jobs/{quote(job, safe='')}"
        self._attempt = attempt
        self._epoch: str | None = None
        self.offset = 0
        self.complete = False

    def job(self) -> Any:
        return self._client.get(self._path)

    def more(self, wait_ms: int | None = None) -> bytes:
        return self._read({"offset": self.offset, "limit": CHUNK, "wait_ms": wait_ms})

    def end(self, size: int) -> bytes:
        return self._read({"tail": size, "limit": size})

    def over(self) -> bool:
        """Nothing follows, in no further attempt either."""
        if not self.complete or self._attempt is not None:
            return self.complete
        job = self.job()
        return job["state"] in JobState.FINAL and str(job.get("attempt")) in (self._epoch, "None")

    def _read(self, asked: dict[str, Any]) -> bytes:
        asked = {"attempt": self._attempt, **asked}
        with self._client.stream(f"{self._path}/logs", params=asked, timeout=WAIT_MS / 1000 + 10) as stream:
            body = b"".join(stream.chunks)
            headers = stream.headers
        epoch = headers.get("X-Attempt")
        if self._epoch is not None and epoch != self._epoch and self.offset:
            self._epoch, self.offset, self.complete = epoch, 0, False
            return b""
        self._epoch = epoch
        self.offset = int(headers.get("X-Next-Offset", self.offset + len(body)))
        self.complete = headers.get("X-Complete", "true") == "true"
        return body


def _follow(inv: Invocation, output: _Output) -> None:
    while True:
        try:
            if output.over():
                return
            if output.complete:
                inv.world.sleep(AGAIN_S)  # it is tried again
            _write(output.more(WAIT_MS))
        except SourceUnavailable:
            inv.world.sleep(AGAIN_S)  # the hub restarts: nothing of the output is lost


def _write(body: bytes) -> None:
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


def _say_why_there_is_none(inv: Invocation, job: Any, attempt: int | None, follow: bool) -> None:
    name, state = job["id"], job["state"]
    array = job.get("array")
    if array:
        raise UsageError(f"{name} is an array: name one of its tasks, {name}-0 to {name}-{array['count'] - 1}")
    if attempt is not None and attempt > (job.get("attempt") or 0):
        raise UsageError(f"{name} has had {job.get('attempt') or 0} attempts, so there is no attempt {attempt}")
    if state in JobState.FINAL:
        inv.say(f"{name} has {state} and wrote nothing" if state != JobState.CANCELLED else f"{name} was cancelled")
        return
    reason = why(job)
    waits = "; this waits for its output" if follow else ""
    inv.say(f"{name} is {state}{f' ({reason})' if reason != NOTHING else ''} and has written nothing yet{waits}")


def of_worker(inv: Invocation, client: Any, worker: str, lines: int | None) -> bytes:
    """Its manager reads it through the backend, or has kept it."""
    asked = client.post(f"/v1/workers/{quote(worker, safe='')}/logs", {})["command"]
    for _ in range(int(PATIENCE_S / POLL_S)):
        command = client.get(f"/v1/commands/{quote(asked, safe='')}")
        if command["state"] != "pending":
            break
        inv.world.sleep(POLL_S)
    else:
        raise WorkerManagerError(
            f"the manager {command.get('manager')} of {worker} has not answered within {PATIENCE_S:g} s: does it run "
            "(worker-manager get pools)? Its backend keeps the output; docs/backends says where"
        )
    text = str((command.get("result") or {}).get("text") or "")
    if command["state"] != "done":
        raise WorkerManagerError(f"what {worker} wrote cannot be read: {text or command['state']}")
    if not text:
        inv.say(f"{worker} has written nothing, or its backend has it no more")
    body = text.encode()
    return body if lines is None else last_lines(body, lines)


def last_lines(body: bytes, count: int) -> bytes:
    return b"".join(body.splitlines(keepends=True)[-count:]) if count else b""
