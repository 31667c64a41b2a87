"""`render BACKEND …` and `render -c FILE`: what a backend would be sent for a launch. Starts nothing, needs no hub.

The text alone goes to stdout, as it would be sent; what a person has to know of it goes to stderr.
"""

from typing import Any

import click

from worker_manager.cli.lazy import with_connection
from worker_manager.cli.run import PerBackend, codalab_form, pool_command
from worker_manager.cli.world import Invocation
from worker_manager.config.layers import SinglePool
from worker_manager.config.settings import PoolConfig, Settings
from worker_manager.errors import UsageError

_COUNT_HELP = "Workers in this launch. [default: 1]"


def _count() -> click.Option:
    return click.Option(["--count"], type=click.IntRange(1), default=1, metavar="N", help=_COUNT_HELP)


class _Render(PerBackend):
    def command_of(self, said: str, backend: str, summary: str) -> click.Command:
        help = f"Show what would be sent for a launch: {summary}."
        return pool_command(said, backend, help, _one, more=[_count()])


@click.group(cls=_Render, invoke_without_command=True)
@click.option("-c", "--config", type=click.Path(), help="Of the pools of this configuration.")
@click.option("--pool", help="Only of this pool of the configuration. [default: all]")
@click.option("--count", type=click.IntRange(1), default=1, metavar="N", help=_COUNT_HELP)
@with_connection
@click.pass_context
def render(ctx: click.Context, /, pool: str | None, count: int, **local: Any) -> int:
    """Show what a backend would be sent for a launch: script, manifest or request, secrets masked. Starts nothing."""
    ctx.obj = ctx.obj.plus(**local)
    if ctx.invoked_subcommand is not None:
        return 0
    inv: Invocation = ctx.obj
    settings = inv.settings(needs_pools=True)
    chosen = [one for one in settings.pools if pool in (None, one.name)]
    if not chosen:
        names = ", ".join(one.name for one in settings.pools)
        raise UsageError(f"the configuration has no pool {pool}; it has {names}")
    for one in chosen:
        if len(chosen) > 1:
            click.echo(f"# ---- pool {one.name} ({one.backend})")
        _show(inv, settings, one, count)
    return 0


def _one(inv: Invocation, single: SinglePool, count: int) -> int:
    settings = inv.settings(single=single, form=codalab_form(), form_name="single pool")
    _show(inv, settings, settings.pools[0], count)
    return 0


def _show(inv: Invocation, settings: Settings, pool: PoolConfig, count: int) -> None:
    from worker_manager.assemble import rendered

    text, notes = rendered(settings, pool, count)
    click.echo(text, nl=not text.endswith("\n"))
    for note in notes:
        inv.say(f"worker-manager: {note}")
