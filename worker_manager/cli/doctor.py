"""`doctor`: looks at hub, state directory and backends, changes nothing, and says how to mend what is wrong."""

import sys
from collections.abc import Iterator
from typing import Any

import click

from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.output import Column, show_document, show_table
from worker_manager.cli.world import API_VERSION, Invocation, takes_invocation
from worker_manager.config.settings import Settings

_MARKS = {"ok": "ok", "warning": "warning", "error": "ERROR"}


@click.command(cls=OurCommand)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@with_connection
@takes_invocation
def doctor(inv: Invocation, output: str, **connection: Any) -> int:
    """Check hub, state directory and backends. Exit 1 when something is wrong."""
    from backends.base import Severity

    inv = inv.plus(**connection)
    settings = inv.settings()
    found = [*_here(settings), *_hub(inv, settings), *_backends(settings)]
    rows = [{"subject": f.subject, "severity": f.severity.value, "text": f.text, "mend": f.mend} for f in found]
    if output == "table":
        columns = (
            Column("STATE", lambda row: _MARKS[row["severity"]]),
            Column("WHAT", lambda row: row["subject"]),
            Column("FOUND", lambda row: row["text"]),
            Column("MEND", lambda row: row["mend"] or "-"),
        )
        show_table(columns, rows, inv.colored)
    else:
        show_document({"apiVersion": API_VERSION, "kind": "FindingList", "items": rows}, output)
    return 1 if any(finding.severity is Severity.ERROR for finding in found) else 0


def _here(settings: Settings) -> Iterator[Any]:
    from backends.base import Finding, Severity

    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", Severity.OK, f"{version} at {sys.executable}")
    folder = settings.manager.state_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    import os

    if os.access(existing, os.W_OK | os.X_OK):
        yield Finding("state directory", Severity.OK, str(folder))
    else:
        yield Finding(
            "state directory", Severity.ERROR, f"{existing} cannot be written", "name another one with --state-dir"
        )


def _hub(inv: Invocation, settings: Settings) -> Iterator[Any]:
    from backends.base import Finding, Severity
    from worker_manager.assemble import NoHub
    from worker_manager.errors import WorkerManagerError

    try:
        info = inv.world.connect(settings).get("/v1/info")
    except NoHub as error:
        yield Finding("hub", Severity.WARNING, str(error).partition(":")[0], "worker-manager up, or hub start")
    except WorkerManagerError as error:
        yield Finding("hub", Severity.ERROR, str(error), "look at its log: hub.log in the state directory")
    else:
        yield Finding("hub", Severity.OK, f"version {info.get('version')}, protocol {info.get('protocol')}")
        skew = abs(int(info.get("now_ms") or inv.world.now_ms()) - inv.world.now_ms())
        if skew > 30_000:
            yield Finding("clock", Severity.WARNING, f"differs from the hub's by {skew / 1000:.0f} s", "set up NTP")


def _backends(settings: Settings) -> Iterator[Any]:
    """Of the configured pools; without any, which backends are usable at all."""
    from backends import registry
    from backends.base import BackendUnusable, Finding, Severity
    from worker_manager.assemble import create_backend
    from worker_manager.clock import SystemClock

    if not settings.pools:
        for backend in registry.usable():
            severity = Severity.OK if backend.ok else Severity.WARNING
            yield Finding(f"backend {backend.name}", severity, backend.summary, backend.hint)
    for pool in settings.pools:
        try:
            for finding in create_backend(settings, pool, SystemClock()).check():
                yield Finding(f"{pool.name}: {finding.subject}", finding.severity, finding.text, finding.mend)
        except BackendUnusable as error:
            yield Finding(f"{pool.name}: {pool.backend}", Severity.ERROR, str(error))
