"""One call: a request comes in as a line of JSON, an answer goes out as another."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from backends.ssh.far.records import Doubt, Json, Refusal, trouble


def main(run: Callable[[dict[str, Json]], Json]) -> None:
    """After this program comes the request. Half a request is none. The answer is marked, because a host may have its
    own to say to whoever logs in."""
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        sys.exit("wm-ssh: the request was cut off")
    os.umask(0o077)
    request = json.loads(line)
    said = json.dumps(answer(run, request))
    with suppress(OSError):  # nobody may be there any more
        sys.stdout.write(f"\n{request['mark']} {said}\n")
        sys.stdout.flush()


def answer(run: Callable[[dict[str, Json]], Json], request: dict[str, Json]) -> Json:
    try:
        return {"answer": run(request)}
    except Refusal as refusal:
        return refusal.answer
    except Doubt as doubt:
        return {"unknown": str(doubt)}
    except OSError as failed:
        kind, text = trouble(failed)
        return {"refused": kind, "text": text}
