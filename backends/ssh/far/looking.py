"""Facts about this host; what they mean is judged where the call came from."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

from backends.ssh.far.processes import boot_id
from backends.ssh.far.records import Json, Pool, Refusal, now_ms, private


def run(request: dict[str, Json]) -> Json:
    """Leaves nothing behind."""
    pool = Pool(request)
    found = {
        "python": f"{sys.version.split()[0]} at {sys.executable}",
        "user": os.getuid(),
        "now_ms": now_ms(),
        "cpus": len(os.sched_getaffinity(0)) * 1000,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": len(list(Path("/dev").glob("nvidia[0-9]*"))),
        "base": str(pool.base),
        "linux": sys.platform.startswith("linux") and bool(boot_id()),
        "reaped_at_logout": kills_at_logout(),
        **folder(pool.base),
    }
    if request.get("hub"):
        found["hub"] = reach(*request["hub"])
    return found


def folder(base: Path) -> dict[str, Json]:
    """Whether workers' folders can be made there, and how much room there is."""
    existing = next(path for path in (base, *base.parents) if path.exists())
    problem = "" if os.access(str(existing), os.W_OK | os.X_OK) else f"{existing} cannot be written"
    if base.exists() and not problem:
        try:
            private(base)
        except Refusal as refusal:
            problem = str(refusal)
    return {"folder": problem, "free": shutil.disk_usage(str(existing)).free}


def kills_at_logout() -> bool:
    """systemd-logind can be told to end whatever a user leaves running."""
    files = [Path("/etc/systemd/logind.conf"), *Path("/etc/systemd/logind.conf.d").glob("*.conf")]
    lines = [line.strip().lower() for file in files if file.exists() for line in file.read_text().splitlines()]
    told = [line.split("=", 1)[1].strip() for line in lines if line.startswith("killuserprocesses=")]
    lingers = os.environ.get("USER", "") and Path("/var/lib/systemd/linger", os.environ["USER"]).exists()
    return bool(told) and told[-1] in ("yes", "true", "on", "1") and not lingers and os.getuid() != 0


def reach(host: str, port: int, seconds: float) -> str:
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as failed:
        return str(failed)
    return ""
