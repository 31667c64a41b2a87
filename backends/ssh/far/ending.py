"""Ending one worker."""

from __future__ import annotations

import signal

from backends.ssh.far.processes import Table, end_all, send
from backends.ssh.far.records import Json, Pool, write


def run(request: dict[str, Json]) -> Json:
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
