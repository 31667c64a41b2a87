"""`hub`: the hub alone, in the foreground; `hub start|status|stop|backup` for one that runs by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from worker.protocol import UnitError, parse_bytes, parse_duration
from worker_manager.cli.lazy import LazyGroup, OurCommand, with_connection
from worker_manager.cli.output import show_one, show_pairs
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
_OWN: dict[str, tuple[str, Callable[[str], Any]]] = {  # option → the hub's setting, and how it is read
    "listen": ("listen", str),
    "blob_keep": ("blob_keep_ms", parse_duration),
    "blob_limit": ("blob_limit", parse_bytes),
    "storage": ("storages", tuple),
}


def _own_options(command: F) -> F:
    for option in (
        click.option(
            "--storage",
            multiple=True,
            metavar="PREFIX",
            callback=lambda _ctx, _param, said: said or None,
            help="Jobs may take and keep files below s3://bucket/prefix (or az://, gs://); {owner} is a job's owner "
            "(repeatable). [default: none]",
        ),
        click.option("--blob-limit", metavar="SIZE", help="Files in the hub take so much at most. [default: its disk]"),
        click.option("--blob-keep", metavar="TIME", help="Files that no job needs stay so long. [default: 1d]"),
        click.option("--listen", metavar="HOST:PORT", help="[default: 127.0.0.1 and a free port]"),
    ):
        command = option(command)
    return command


def _taken(given: dict[str, Any]) -> dict[str, Any]:
    """What was said of the hub's own settings, out of everything that was said."""
    own = {}
    for name, (setting, read) in _OWN.items():
        text = given.pop(name)
        try:
            if text is not None:
                own[setting] = read(text)
        except UnitError as error:
            raise UsageError(f"--{name.replace('_', '-')}: {error}") from None
    return own


@click.group(cls=LazyGroup, invoke_without_command=True)
@_own_options
@with_connection
@click.pass_context
def hub(ctx: click.Context, /, **given: Any) -> None:
    """Run the hub in the foreground, or start, find and stop one that runs by itself."""
    inv: Invocation = ctx.obj
    own = _taken(given)
    ctx.obj = inv.plus(**given)
    if ctx.invoked_subcommand is None:
        from worker_manager.hub.server import serve

        serve(_settings(ctx.obj, own))
    else:
        ctx.meta["hub"] = own


@hub.command(cls=OurCommand)
@_own_options
@with_connection
@click.pass_context
def start(ctx: click.Context, /, **given: Any) -> None:
    """Start a hub that goes on by itself; its URL goes to stdout."""
    from worker_manager.hub import discovery

    own = {**ctx.meta.get("hub", {}), **_taken(given)}
    inv = ctx.obj.plus(**given)
    settings = _settings(inv, own)
    found, started = discovery.find_or_start(settings)
    inv.say(f"{'started' if started else 'it runs already'}: pid {found.pid}")
    asked = [
        *(name.removesuffix("_ms") for name in own),
        *(["advertise_url"] if settings.advertise_url not in ("", found.url) else []),
    ]
    if not started and asked:
        inv.say(
            f"worker-manager: {' and '.join(asked).replace('_', '-')} would hold for a new one: hub stop, then again"
        )
    click.echo(found.url)


@hub.command(cls=OurCommand)
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", help="[default: text]")
@with_connection
@takes_invocation
def status(inv: Invocation, output: str, **connection: Any) -> int:
    """Say whether a hub runs and what it holds; exit 1 when none does."""
    from worker_manager.hub import discovery
    from worker_manager.hub_access import NoHub

    inv = inv.plus(**connection)
    settings = inv.settings()
    try:
        client = inv.client()
        info = client.get("/v1/info")
    except NoHub as error:
        inv.say(str(error))
        return 1
    here = None if settings.hub.server else discovery.recorded(settings.manager.state_dir)
    url = str(here.url if here else client.url)
    told = {"url": url, **({"pid": here.pid} if here else {}), **info}
    if output != "text":
        show_one("Hub", told, output)
        return 0
    show_pairs(
        [
            ("Hub", url),
            ("Pid", str(here.pid) if here else ""),
            ("State directory", "" if settings.hub.server else str(settings.manager.state_dir)),
            ("Version", f"{info.get('version')}, protocol {info.get('protocol')}"),
            ("Jobs", _counts(info.get("jobs"))),
            ("Workers", _counts(info.get("workers"))),
        ]
    )
    return 0


def _counts(counted: Any) -> str:
    return ", ".join(f"{count} {state}" for state, count in (counted or {}).items() if count) or "none"


@hub.command(cls=OurCommand)
@with_connection
@takes_invocation
def stop(inv: Invocation, **connection: Any) -> None:
    """Stop the hub of the state directory. Workers go on with what they run and find the next one."""
    from worker_manager.hub import discovery

    inv = inv.plus(**connection)
    state_dir = _state_dir(inv, "stopped")
    stopped = discovery.stop(state_dir)
    inv.say("the hub has ended" if stopped else f"no hub runs on {state_dir}")


@hub.command(cls=OurCommand)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--without-blobs", is_flag=True, help="Leave out the files that jobs take and have left.")
@with_connection
@takes_invocation
def backup(inv: Invocation, folder: Path, without_blobs: bool, **connection: Any) -> None:
    """Copy the state directory to a new FOLDER, while the hub runs or not."""
    from worker.protocol import format_bytes
    from worker_manager.hub.backup import backup

    inv = inv.plus(**connection)
    size = backup(_state_dir(inv, "backed up"), folder.absolute(), not without_blobs)
    inv.say(f"{format_bytes(size)} in {folder}")


def _state_dir(inv: Invocation, done: str) -> Path:
    settings = inv.settings()
    if settings.hub.server:
        raise UsageError(f"a hub elsewhere is {done} where it runs")
    return settings.manager.state_dir


def _settings(inv: Invocation, own: dict[str, Any]) -> Any:
    from worker_manager.hub_access import hub_settings

    settings = inv.settings()
    if settings.hub.server:
        raise UsageError("--server names a hub elsewhere; leave it out to run one here")
    return hub_settings(settings, **own)
