"""`hub`: the hub alone, in the foreground; `hub start|status|stop` for one that runs by itself."""

from typing import Any

import click

from worker_manager.cli.lazy import LazyGroup, OurCommand, with_connection
from worker_manager.cli.output import show_one
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.errors import UsageError


@click.group(cls=LazyGroup, invoke_without_command=True)
@click.option("--listen", metavar="HOST:PORT", help="[default: 127.0.0.1 and a free port]")
@click.option("--advertise-url", help="What workers elsewhere are told.")
@with_connection
@click.pass_context
def hub(ctx: click.Context, /, **given: Any) -> None:
    """Run the hub in the foreground, or start, find and stop one that runs by itself."""
    inv: Invocation = ctx.obj
    own = {name: value for name in ("listen", "advertise_url") if (value := given.pop(name)) is not None}
    ctx.obj = inv.plus(**given)
    if ctx.invoked_subcommand is None:
        from worker_manager.hub.server import serve

        serve(_settings(ctx.obj, own))
    else:
        ctx.meta["hub"] = own


@hub.command(cls=OurCommand)
@with_connection
@click.pass_context
def start(ctx: click.Context, /, **connection: Any) -> None:
    """Start a hub that goes on by itself; its URL goes to stdout."""
    from worker_manager.hub import discovery

    inv = ctx.obj.plus(**connection)
    found, started = discovery.find_or_start(_settings(inv, ctx.meta.get("hub", {})))
    inv.say(f"{'started' if started else 'it runs already'}: pid {found.pid}")
    click.echo(found.url)


@hub.command(cls=OurCommand)
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text")
@with_connection
@takes_invocation
def status(inv: Invocation, output: str, **connection: Any) -> int:
    """Say whether a hub runs and what it holds; exit 1 when none does."""
    from worker_manager.assemble import NoHub

    inv = inv.plus(**connection)
    try:
        info = inv.client().get("/v1/info")
    except NoHub as error:
        inv.say(str(error))
        return 1
    if output != "text":
        show_one("Hub", info, output)
        return 0
    for name, value in info.items():
        told = " ".join(f"{key}={count}" for key, count in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name}: {told}")
    return 0


@hub.command(cls=OurCommand)
@with_connection
@takes_invocation
def stop(inv: Invocation, **connection: Any) -> None:
    """Stop the hub of the state directory. Workers go on with what they run and find the next one."""
    from worker_manager.hub import discovery

    inv = inv.plus(**connection)
    settings = inv.settings()
    if settings.hub.server:
        raise UsageError("a hub elsewhere is stopped where it runs")
    stopped = discovery.stop(settings.manager.state_dir)
    inv.say("the hub has ended" if stopped else f"no hub runs on {settings.manager.state_dir}")


def _settings(inv: Invocation, own: dict[str, Any]) -> Any:
    from dataclasses import replace

    from worker_manager.assemble import hub_settings

    settings = inv.settings()
    if settings.hub.server:
        raise UsageError("--server names a hub elsewhere; leave it out to run one here")
    return replace(hub_settings(settings), **own)
