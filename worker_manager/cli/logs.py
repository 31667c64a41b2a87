"""`logs JOB`: the bytes of its output, as they are."""

import sys
from typing import Any
from urllib.parse import quote

import click

from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.errors import SourceUnavailable

CHUNK = 1 << 20
MOST_TAIL = 8 << 20
LINE_GUESS = 4096
WAIT_MS = 20_000
AGAIN_S = 1.0


@click.command(cls=OurCommand)
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@click.option("--attempt", type=click.IntRange(1), help="Of an earlier try. [default: the last]")
@with_connection
@takes_invocation
def logs(inv: Invocation, job: str, follow: bool, tail: int | None, attempt: int | None, **connection: Any) -> None:
    """Print the output of a job."""
    client = inv.plus(**connection).client()
    path = f"/v1/jobs/{quote(job, safe='')}/logs"
    out = sys.stdout.buffer
    offset = 0
    if tail is not None:
        most = min(MOST_TAIL, max(CHUNK // 16, tail * LINE_GUESS))
        body, offset, complete = _piece(client, path, {"attempt": attempt, "tail": most, "limit": most})
        out.write(last_lines(body, tail))
        out.flush()
        if complete or not follow:
            return
    while True:
        asked = {"attempt": attempt, "offset": offset, "limit": CHUNK, "wait_ms": WAIT_MS if follow else None}
        try:
            body, offset, complete = _piece(client, path, asked)
        except SourceUnavailable:
            if not follow:
                raise
            inv.world.sleep(AGAIN_S)  # the hub restarts: nothing of the output is lost
            continue
        out.write(body)
        out.flush()
        if complete or (not follow and not body):
            return


def last_lines(body: bytes, count: int) -> bytes:
    return b"".join(body.splitlines(keepends=True)[-count:]) if count else b""


def _piece(client: Any, path: str, asked: dict[str, Any]) -> tuple[bytes, int, bool]:
    with client.stream(path, params=asked, timeout=WAIT_MS / 1000 + 10) as stream:
        body = b"".join(stream.chunks)
        headers = stream.headers
    following = int(headers.get("X-Next-Offset", asked.get("offset", 0) + len(body)))
    return body, following, headers.get("X-Complete", "true") == "true"
