"""`logs JOB`: the bytes of its output, as they are."""

import sys
from typing import Any
from urllib.parse import quote

import click

from worker.protocol import JobState
from worker_manager.cli.ids import job_id
from worker_manager.cli.kinds import why
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.output import NOTHING
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.errors import SourceUnavailable, UsageError

CHUNK = 1 << 20
MOST_TAIL = 8 << 20
LINE_GUESS = 4096
WAIT_MS = 20_000
AGAIN_S = 1.0


@click.command(cls=OurCommand)
@click.argument("job", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@click.option("--attempt", type=click.IntRange(1), help="Of an earlier try. [default: the last]")
@with_connection
@takes_invocation
def logs(inv: Invocation, job: str, follow: bool, tail: int | None, attempt: int | None, **connection: Any) -> None:
    """Print the output of a job, or of one task of an array (JOB-NUMBER)."""
    client = inv.plus(**connection).client()
    output = _Output(client, job_id(job), attempt)
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


def last_lines(body: bytes, count: int) -> bytes:
    return b"".join(body.splitlines(keepends=True)[-count:]) if count else b""
