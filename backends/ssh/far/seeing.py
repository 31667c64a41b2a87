"""What has become of a pool's workers: their records and the process table, compared.

attendant        | left of it | shown as
alive            |            | running, or ending when it was asked to
gone             | something  | ending; running when the attendant was killed and nobody asked
gone             | nothing    | ended, and so written down
not on record    |            | pending while a launch goes on, else it never was
record is spoilt |            | spoilt
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from backends.ssh.far.processes import Table, boot_id
from backends.ssh.far.records import Json, Pool, Worker, now_ms, read


def run(request: dict[str, Json]) -> Json:
    """Those that ended long ago are left out. `kept` is False when this host has no folder of the pool at all."""
    pool = Pool(request)
    processes = lru_cache(maxsize=None)(Table)  # one look, when the first worker needs it
    seen = [one for worker in pool.workers() if (one := see(pool, worker, processes))]
    oldest = now_ms() - request["keep_ms"]
    shown = [one for one in seen if one["phase"] != "ended" or one["ended_at"] >= oldest]
    return {"workers": shown, "boot": boot_id(), "kept": pool.path.is_dir(), "folder": str(pool.path)}


def see(pool: Pool, worker: Worker, processes: Callable[[], Table]) -> dict[str, Json] | None:
    shown = {"submission": worker.submission, "index": worker.index, "phase": "running", "at": None}
    if end := read(worker.path / "ended"):
        return {**shown, "phase": "ended", "ended_at": end["at"], **end}
    known = worker.record()
    if known is None:
        if not worker.started() and pool.busy():
            return {**shown, "phase": "pending"}
        known = worker.record()  # the launch may have ended while we looked
        if known is None:
            return {**shown, "phase": "spoilt"} if worker.started() else None
    shown["at"] = known[3]
    asked = (worker.path / "ending").exists()
    if worker.attended():
        return {**shown, "phase": "ending" if asked else "running"}
    if known[2] != boot_id():
        end = worker.close(None, "the host was restarted")
        return {**shown, "phase": "ended", "ended_at": end["at"], **end}
    status = read(worker.path / "exit").get("code")
    if worker.roots(processes()):
        return {**shown, "phase": "ending" if asked or status is not None else "running"}
    status = read(worker.path / "exit").get("code")  # it may have been written since
    end = worker.close(status, last_words(worker, status))
    return {**shown, "phase": "ended", "ended_at": end["at"], **end}


def last_words(worker: Worker, status: int | None) -> str:
    """The last line that a failed worker wrote, for people."""
    if status is None:
        return "ended without leaving an exit status"
    lines = worker.tail(2000).split("\n") if status else []
    spoken = ["".join(c for c in line if c.isprintable()).strip() for line in lines]
    return next((line[:300] for line in reversed(spoken) if line), "")
