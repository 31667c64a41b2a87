"""`run -c FILE`, and one command for each backend."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from worker.protocol import format_bytes, format_cpus, format_duration
from worker_manager.cli.lazy import LazyGroup, OurCommand, given, option_of, shape_options, with_connection, with_mode
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.config.flags import CONNECTION, GLOBAL, SHAPE, UNUSED_OF, Flag, notes_for
from worker_manager.config.layers import SinglePool, raw_value

_MODE = ("once", "dry_run", "detailed_exitcode")


@click.command(cls=OurCommand)
@click.option("-c", "--config", type=click.Path(), help="The configuration. [default: the user's, else the machine's]")
@with_mode
@with_connection
@takes_invocation
def run(inv: Invocation, **local: Any) -> int:
    """Manage the pools of a configuration file until told to stop. SIGHUP reads it again."""
    from worker_manager.cli.manage import manage

    inv = inv.plus(**local)
    return manage(inv, lambda: inv.settings(needs_pools=True))


def backend_command(said: str, backend: str, summary: str) -> click.Command:
    """`worker-manager [global options] BACKEND [options]`: one pool, with the defaults that CodaLab has."""

    def go(inv: Invocation, single: SinglePool) -> int:
        from worker_manager.cli.manage import manage

        return manage(inv, lambda: inv.settings(single=single, form=codalab_form(), form_name="single pool"))

    return pool_command(said, backend, f"Manage one pool of workers: {summary}.", go)


def pool_command(
    said: str,
    backend: str,
    help: str,
    go: Callable[..., int],
    codalab: bool = True,
    more: Sequence[click.Option] = (),
) -> click.Command:
    """A command whose options are a worker's shape and what the backend declares. `go` is called with the invocation,
    the pool, and `more` by name."""
    from backends import registry

    shaped = {flag.name for flag in SHAPE}
    declared = [_option(option) for option in registry.load(backend).options if option.name not in shaped]
    about_run = [option_of(flag, hidden=True) for flag in CONNECTION]
    about_run += [click.Option([f"--{name.replace('_', '-')}", name], is_flag=True, hidden=True) for name in _MODE]
    unused = [flag for flag in UNUSED_OF.get(backend, ()) if flag.key not in {option.name for option in declared}]
    about_run += [option_of(flag, hidden=True) for flag in unused]
    name = click.Option(["--pool", "pool"], help=f"Name of the pool. [default: {backend}]")

    def callback(**_: Any) -> int:
        ctx = click.get_current_context()
        others = {str(option.name): ctx.params[str(option.name)] for option in more}
        told = {key: value for key, value in given(ctx).items() if key not in others}
        for note in notes_for(told, unused):
            ctx.obj.say(f"worker-manager: {note}")
        told = {key: value for key, value in told.items() if key not in {flag.key for flag in unused}}
        inv = ctx.obj.plus(**{name: told.pop(name) for name in (*_MODE, *_CONNECTION_KEYS) if name in told})
        return go(inv, SinglePool(told.pop("pool", backend), backend, told), **others)

    params: list[click.Parameter] = [*shape_options(codalab), *declared, name, *more, *about_run]
    return OurCommand(said, callback=callback, params=params, help=help)


def codalab_form() -> Mapping[tuple[str | int, ...], Any]:
    """The defaults of a single pool: those that CodaLab's command line has."""
    return {
        flag.place: raw_value(flag, flag.codalab)
        for flag in (*GLOBAL, *SHAPE)
        if flag.codalab and flag.place[0] == "pool"
    }


class PerBackend(LazyGroup):
    """A group whose commands are the backends once more."""

    def command_of(self, said: str, backend: str, summary: str) -> click.Command:
        raise NotImplementedError

    def list_commands(self, _ctx: click.Context) -> list[str]:
        from backends.registry import BACKENDS

        return list(BACKENDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        from backends import registry

        try:
            name, entry = registry.find(cmd_name)
        except registry.UnknownBackend:
            return None
        return self.command_of(cmd_name, name, entry.summary)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from backends.registry import BACKENDS

        with formatter.section("Backends"):
            formatter.write_dl([(name, entry.summary) for name, entry in sorted(BACKENDS.items())])


_SHOWN: Mapping[str, Callable[[Any], str]] = {"bytes": format_bytes, "cpus": format_cpus, "duration": format_duration}
_CONNECTION_KEYS = tuple(flag.key for flag in CONNECTION)


def _option(option: Any) -> click.Option:
    """What a backend declares, as an option that only reports what was given: `config` reads and checks it."""
    help = f"{option.help[:1].upper()}{option.help[1:]}".rstrip(".") + "."
    help += f" One of {', '.join(option.choices)}." if option.choices else ""
    help += " A reference: env:NAME or file:PATH." if option.secret else ""
    if option.default not in (None, "", (), False):
        help += f" [default: {_SHOWN.get(option.type, str)(option.default)}]"
    kind = {"list": "words"}.get(option.type, "text")
    if option.type == "bool":
        return click.Option(
            [f"--{option.name}/--no-{option.name}", option.name.replace("-", "_")], default=None, help=help
        )
    return option_of(Flag(option.name, ("pool", "options", option.name), help, kind))
