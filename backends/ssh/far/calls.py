"""One call: a request comes in as a line of JSON, an answer goes out as another."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from backends.ssh.far.looking import check
from backends.ssh.far.processes import Table, end_all, send
from backends.ssh.far.records import Doubt, Json, Pool, Refusal, trouble, write
from backends.ssh.far.seeing import list_workers
from backends.ssh.far.starting import launch


def end(request: dict[str, Json]) -> Json:
    """Without force one TERM, however often it is asked for: a second one would mean to drop everything."""
    pool = Pool(request)
    worker = pool.worker(request["submission"], request["index"])
    if not worker.path.is_dir() or worker.over():
        return {"gone": True}
    with pool.alone():
        if request["force"]:
            end_all(worker.roots)
        elif not (worker.path / "ending").exists():
            known = worker.record()
            if known and worker.attended():
                send(known[0], known[1], signal.SIGTERM)
            else:
                now = Table()
                for pid in worker.roots(now):
                    send(pid, now[pid].start, signal.SIGTERM)
        write(worker.path / "ending", "")
    return {"gone": False}


def logs(request: dict[str, Json]) -> Json:
    return {"text": Pool(request).worker(request["submission"], request["index"]).tail(request["most"])}


CALLS: dict[str, Callable[[dict[str, Json]], Json]] = {
    "launch": launch,
    "list": list_workers,
    "end": end,
    "logs": logs,
    "check": check,
}


def answer(request: dict[str, Json]) -> Json:
    try:
        return {"answer": CALLS[request["call"]](request)}
    except Refusal as refusal:
        return refusal.answer
    except Doubt as doubt:
        return {"unknown": str(doubt)}
    except OSError as failed:
        kind, text = trouble(failed)
        return {"refused": kind, "text": text}


def main() -> None:
    """After this program comes the request. Half a request is none. The answer is marked, because a host may have its
    own to say to whoever logs in."""
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        sys.exit("wm-ssh: the request was cut off")
    os.umask(0o077)
    request = json.loads(line)
    said = json.dumps(answer(request))
    with suppress(OSError):  # nobody may be there any more
        sys.stdout.write(f"\n{request['mark']} {said}\n")
        sys.stdout.flush()
