"""`doctor [BACKEND …]`: looks at hub, state directory and backends, changes nothing, and says how to mend the rest.

A check has a deadline, and whatever goes wrong within it is a finding: a person asks because something is broken.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from worker_manager.cli.lazy import with_connection
from worker_manager.cli.output import Column, show_document, show_table
from worker_manager.cli.run import PerBackend, codalab_form, pool_command
from worker_manager.cli.world import API_VERSION, Invocation
from worker_manager.config.layers import SinglePool
from worker_manager.config.settings import PoolConfig, Settings

if TYPE_CHECKING:
    from backends.base import Finding

_MARKS = {"": "", "ok": "ok", "warning": "warning", "error": "ERROR"}
_FORM = click.Choice(["table", "json", "yaml"])
_TIMEOUT_HELP = "How long the check of one pool may take, in seconds. [default: 60]"
_TRY_HELP = "Also launch one worker, wait until it registers, and end it."
SECONDS = 60.0

Check = Callable[[], Iterable["Finding"]]


def _own_options() -> list[click.Option]:
    return [
        click.Option(["-o", "--output"], type=_FORM, default="table", help="[default: table]"),
        click.Option(["--timeout"], type=click.FloatRange(min=0.1), default=SECONDS, help=_TIMEOUT_HELP),
        click.Option(["--try-launch"], is_flag=True, help=_TRY_HELP),
    ]


class _Doctor(PerBackend):
    def command_of(self, said: str, backend: str, summary: str) -> click.Command:
        help = f"Check one pool of workers before it is managed: {summary}. Exit 1 when something is wrong."
        return pool_command(said, backend, help, _one, more=_own_options())


@click.group(cls=_Doctor, invoke_without_command=True)
@click.option("-c", "--config", type=click.Path(), help="The configuration. [default: the user's, else the machine's]")
@click.option("-o", "--output", type=_FORM, default="table", help="[default: table]")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=SECONDS, help=_TIMEOUT_HELP)
@click.option("--try-launch", is_flag=True, help=_TRY_HELP)
@with_connection
@click.pass_context
def doctor(ctx: click.Context, /, output: str, timeout: float, try_launch: bool, **local: Any) -> int:
    """Check hub, state directory and backends. Exit 1 when something is wrong."""
    ctx.obj = ctx.obj.plus(**local)
    if ctx.invoked_subcommand is not None:
        ctx.meta["doctor"] = {"output": output, "timeout": timeout, "try_launch": try_launch}
        return 0
    return _all_of(ctx.obj, ctx.obj.settings(), output, timeout, try_launch)


def _one(inv: Invocation, single: SinglePool, output: str, timeout: float, try_launch: bool) -> int:
    """What stood before the backend's name counts as well."""
    before = click.get_current_context().meta.get("doctor", {})
    output = output if output != "table" else before.get("output", output)
    timeout = timeout if timeout != SECONDS else before.get("timeout", timeout)
    settings = inv.settings(single=single, form=codalab_form(), form_name="single pool")
    return _all_of(inv, settings, output, timeout, try_launch or before.get("try_launch", False))


def _all_of(inv: Invocation, settings: Settings, output: str, timeout: float, try_launch: bool) -> int:
    from backends.base import Severity

    found = [*_here(settings), *_hub(inv, settings), *_reach(settings), *_backends(settings, timeout)]
    if try_launch and not any(finding.severity is Severity.ERROR for finding in found):
        found += _tried(inv, settings)
    _show(inv, found, output)
    return 1 if any(finding.severity is Severity.ERROR for finding in found) else 0


def _show(inv: Invocation, found: "Sequence[Finding]", output: str) -> None:
    rows = [{"subject": f.subject, "severity": f.severity.value, "text": f.text, "mend": f.mend} for f in found]
    if output != "table":
        show_document({"apiVersion": API_VERSION, "kind": "FindingList", "items": rows}, output)
        return
    columns = (
        Column("STATE", lambda row: _MARKS[row["severity"]]),
        Column("WHAT", lambda row: row["subject"]),
        Column("FOUND", lambda row: row["text"]),
    )
    # What mends a trouble stands below it, in a line of its own that can be copied.
    lines = [line for row in rows for line in (row, *([_mend(row)] if row["mend"] else []))]
    show_table(columns, lines, inv.colored, width=inv.width)


def _mend(row: dict[str, str]) -> dict[str, str]:
    return {"severity": "", "subject": "", "text": f"→ {row['mend']}"}


# ---------------------------------------------------------------- this machine, and the hub


def _here(settings: Settings) -> "Iterator[Finding]":
    import os

    from backends.base import Finding, Severity

    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", Severity.OK, f"{version} at {sys.executable}")
    folder = settings.manager.state_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        yield Finding("state directory", Severity.OK, str(folder))
    else:
        yield Finding(
            "state directory", Severity.ERROR, f"{existing} cannot be written", "name another one with --state-dir"
        )


def _hub(inv: Invocation, settings: Settings) -> "Iterator[Finding]":
    from backends.base import Finding, Severity
    from worker_manager.errors import WorkerManagerError
    from worker_manager.hub_access import NoHub

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


def _reach(settings: Settings) -> "Iterator[Finding]":
    """What workers on other machines would be told of the hub."""
    from backends.base import BackendUnusable, Finding, Severity
    from worker_manager.hub import discovery
    from worker_manager.hub_access import any_elsewhere, hub_settings, obstacles

    try:
        if settings.hub.server or not any_elsewhere(settings):
            return
    except BackendUnusable:
        return  # told of its pool
    subject, obstacle = "hub, from elsewhere", next(obstacles(settings), None)
    if obstacle is not None:
        text, _, mend = obstacle.partition(": ")
        yield Finding(subject, Severity.ERROR, text, mend)
        return
    running = discovery.recorded(settings.manager.state_dir)
    url = running.url if running else hub_settings(settings).advertise_url or "the address of --listen"
    if running is None or running.url == running.here:
        yield Finding(subject, Severity.OK, f"workers are told {url}")
    elif discovery.answers(running.url):
        yield Finding(subject, Severity.OK, f"{url} leads to it, seen from this machine")
    else:
        mend = "open the port in the firewall, or give another --advertise-url after worker-manager hub stop"
        text = f"{url} does not answer, seen from this machine; workers are told this address"
        yield Finding(subject, Severity.WARNING, text, mend)


# ---------------------------------------------------------------- backends


def _backends(settings: Settings, timeout: float) -> "Iterator[Finding]":
    """Of the configured pools, all at the same time; without any, which backends are usable at all."""
    from backends import registry
    from backends.base import Finding, Severity

    if not settings.pools:
        for backend in registry.usable():
            severity = Severity.OK if backend.ok else Severity.WARNING
            yield Finding(f"backend {backend.name}", severity, backend.summary, backend.hint)
    running = [(pool, Running(_check_of(settings, pool))) for pool in settings.pools]
    for pool, check in running:
        for finding in check.findings(pool.backend, timeout):
            yield Finding(f"{pool.name}: {finding.subject}", finding.severity, finding.text, finding.mend)


def _check_of(settings: Settings, pool: PoolConfig) -> Check:
    def check() -> "Iterable[Finding]":
        from worker_manager.assemble import checked

        return checked(settings, pool)

    return check


class Running:
    """One check in a thread of its own. One that hangs is left behind: the process ends without it."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._found: Sequence[Finding] = ()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = tuple(self._check())
        except BaseException as error:
            self._error = error

    def findings(self, subject: str, timeout: float) -> "Sequence[Finding]":
        from backends.base import BackendUnusable, Finding, Severity, clipped

        self._thread.join(timeout)
        if self._thread.is_alive():
            text = f"the check did not come to an end within {timeout:g} s"
            mend = "look whether the platform answers at all; --timeout gives it more time"
            return (Finding(subject, Severity.ERROR, text, mend),)
        if isinstance(self._error, BackendUnusable):
            text, installed, line = clipped(str(self._error)).partition(" is not installed: ")
            mend = line if installed else f"worker-manager {subject} --help shows its options"
            return (Finding(subject, Severity.ERROR, text + installed.rstrip(": "), mend),)
        if self._error is not None:
            text = clipped(f"the check itself failed: {type(self._error).__name__}: {self._error}")
            mend = "see that the platform's own tool works from here; what is written may be a fault of this program"
            return (Finding(subject, Severity.ERROR, text, mend),)
        if not self._found:
            return (Finding(subject, Severity.WARNING, "nothing was looked at", "its check says nothing"),)
        return self._found


def _tried(inv: Invocation, settings: Settings) -> "Iterator[Finding]":
    from worker_manager.cli import log
    from worker_manager.cli.trial import try_launch

    log.configure(inv.log_format, inv.verbose, inv.colored)
    for pool in settings.pools:
        inv.say(f"{pool.name}: launching one worker of {pool.backend}; it is ended as soon as it registers …")
        yield try_launch(settings, pool)
