"""The command line's front door: global options, the table of commands, errors → exit codes.

Exit codes: 0 done, 1 it failed, 2 asked wrongly, 3 a dry run would act (--detailed-exitcode), 74 the store cannot be
used, 75 another manager holds the lease, 130 and 143 ended by a signal. Data goes to stdout, everything else to stderr.
Nothing slow is imported here: the help has to come at once.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from worker_manager.cli.lazy import LazyGroup, OurCommand, given, option_of
from worker_manager.cli.world import Invocation, World
from worker_manager.config.flags import CONNECTION, GLOBAL, MANAGER, POOL, PREFIX, SHAPE, notes_for, variable
from worker_manager.errors import WorkerManagerError

_HERE = "worker_manager.cli"
_NAME = "worker-manager"
_COMPLETE = "_WORKER_MANAGER_COMPLETE"

COMMANDS = {
    "up": (f"{_HERE}.up", "up", "Hub and local workers on this machine, in the foreground; nothing to configure."),
    "down": (f"{_HERE}.up", "down", "End what `up` began, and stop the hub; says what still runs."),
    "run": (f"{_HERE}.run", "run", "Manage the pools of a configuration file."),
    "submit": (f"{_HERE}.submit", "submit", "Submit a job, an array, or a file of jobs; prints their ids."),
    "get": (f"{_HERE}.get", "get", "List jobs, workers, pools or events."),
    "describe": (f"{_HERE}.describe", "describe", "Everything about one job, worker or pool."),
    "logs": (f"{_HERE}.logs", "logs", "The output of a job (-f follows it), or of a worker."),
    "files": (f"{_HERE}.files", "files", "The files that a job has kept."),
    "download": (f"{_HERE}.files", "download", "Fetch the files that a job has kept."),
    "explain": (f"{_HERE}.explain", "explain", "Why a job waits, or why a pool is as large as it is."),
    "cancel": (f"{_HERE}.change", "cancel", "Cancel jobs."),
    "drain": (f"{_HERE}.change", "drain", "Let workers finish what they have and take nothing new."),
    "undrain": (f"{_HERE}.change", "undrain", "Let drained workers take jobs again."),
    "delete": (f"{_HERE}.change", "delete", "End a worker."),
    "freeze": (f"{_HERE}.change", "freeze", "Keep a pool as it is for a while."),
    "unfreeze": (f"{_HERE}.change", "unfreeze", "Let a frozen pool scale again."),
    "hub": (f"{_HERE}.hub", "hub", "The hub alone: in the foreground, or start, status, stop, backup."),
    "token": (f"{_HERE}.token", "token", "Tokens for other people and machines: create, list, revoke."),
    "config": (f"{_HERE}.configure", "config", "Check a configuration, or show every value and its origin."),
    "doctor": (f"{_HERE}.doctor", "doctor", "Check hub, state directory and backends; says how to mend what is wrong."),
    "render": (f"{_HERE}.render", "render", "Show what a backend would be sent for a launch."),
    "version": (f"{_HERE}.about", "version", "The version, and which backends are usable."),
    "completion": (f"{_HERE}.about", "completion", "Print the shell's completion script."),
}


_MODES = ("once", "dry_run", "detailed_exitcode", "verbose", "color", "log_format")
GLOBAL_SECTIONS = (
    ("Which hub", {flag.key for flag in CONNECTION}),
    ("The pool of a backend's command (a file's pools too, where given)", {flag.key for flag in POOL}),
    ("The manager", {flag.key for flag in MANAGER} | {"config", "once", "dry_run", "detailed_exitcode"}),
    ("Also", {"verbose", "color", "log_format", "version", "help"}),
)


class Root(LazyGroup):
    """Knows the backends too: each is a command."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return found
        from backends import registry

        try:
            name, entry = registry.find(cmd_name)
        except registry.UnknownBackend:
            return None
        from worker_manager.cli.run import backend_command

        return backend_command(cmd_name, name, entry.summary)

    def list_commands(self, ctx: click.Context) -> list[str]:
        from backends.registry import BACKENDS

        return [*super().list_commands(ctx), *BACKENDS]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from backends.registry import BACKENDS

        super().format_commands(ctx, formatter)
        with formatter.section("Backends (each manages one pool of workers)"):
            formatter.write_dl([(name, entry.summary) for name, entry in sorted(BACKENDS.items())])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands first: they are what somebody looks for here."""
        self.format_commands(ctx, formatter)
        for title, keys in GLOBAL_SECTIONS:
            records = [param.get_help_record(ctx) for param in self.get_params(ctx) if param.name in keys]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from worker_manager.cli.about import print_version

        print_version()
        ctx.exit()


@click.group(
    cls=Root,
    commands_at=COMMANDS,
    params=[option_of(flag, hidden=bool(flag.note)) for flag in GLOBAL],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Every option is an environment variable too: --max-workers is WORKER_MANAGER_MAX_WORKERS. "
    "An option wins over its variable, that over the configuration file, that over the default.",
)
@click.option("-c", "--config", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--once", is_flag=True, help="One pass of the manager, then end (for cron).")
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--detailed-exitcode", is_flag=True, help="With --dry-run: exit 3 when the plan would act.")
@click.option("--verbose", is_flag=True, help="Log every step.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="[default: auto]")
@click.option("--log-format", type=click.Choice(["auto", "json", "text"]), default="auto", help="[default: auto]")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version, and which backends are usable.",
)
@click.pass_context
def cli(
    ctx: click.Context,
    /,
    config: Path | None,
    **_: Any,
) -> None:
    """Watch a backlog of jobs, and launch and end the workers that run them.

    \b
      worker-manager up                                      hub and local workers, nothing to configure
      worker-manager --max-workers 8 local --cpus 2          one pool, from flags
      worker-manager run -c pools.yaml                       many pools, one plan
      worker-manager submit -- python train.py               a job
    """
    world = ctx.obj if isinstance(ctx.obj, World) else World()
    known = {flag.key for flag in GLOBAL}
    flags = {name: value for name, value in given(ctx).items() if name in known}
    for note in (*notes_for(flags), *unknown_variables(world.environment)):
        click.echo(f"worker-manager: {note}", err=True)
    once, dry_run, detailed_exitcode, verbose, color, log_format = (_said(ctx, name, world) for name in _MODES)
    ctx.color = {"always": True, "never": False}.get(color, None if not world.environment.get("NO_COLOR") else False)
    ctx.obj = Invocation(world, flags, config, once, dry_run, detailed_exitcode, verbose, color, log_format)


def _said(ctx: click.Context, name: str, world: World) -> Any:
    """By flag, else by variable, else the default."""
    text = world.environment.get(variable(name))
    if not text or ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
        return ctx.params[name]
    option = next(param for param in ctx.command.params if param.name == name)
    try:
        return option.type_cast_value(ctx, text)
    except click.BadParameter as error:
        raise click.UsageError(f"{variable(name)}: {error.message}", ctx=ctx) from None


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """A variable with our prefix that means nothing is a slip of the pen: it must not pass in silence."""
    ours = {name for name in environment if name.startswith(PREFIX)}
    known = {flag.variable for flag in GLOBAL} | {variable(name) for name in ("config", *_MODES)}
    if not ours - known:
        return
    import difflib

    from backends import registry
    from backends.base import BackendUnusable

    for backend in registry.names():
        known |= {variable(backend, flag.name) for flag in SHAPE}
        with suppress(BackendUnusable):
            known |= {variable(backend, option.name) for option in registry.load(backend).options}
    for name in sorted(ours - known):
        near = difflib.get_close_matches(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], n=1)
        yield f"{name} is set and means nothing" + (f"; did you mean {PREFIX}{near[0]}?" if near else "")


def spread_words(arguments: Sequence[str], commands: Mapping[str, Any]) -> list[str]:
    """CodaLab's `--search a b c` takes all words up to the next option or command; click takes one for each option."""
    spread: list[str] = []
    words = iter(arguments)
    for word in words:
        if word != "--search":
            spread.append(word)
            continue
        for following in words:
            if following.startswith("-") or following in commands:
                spread.append(following)
                break
            spread += ["--search", following]
    return spread


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point. Never returns: exits with the code that the errors of this program define."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(words, World(argv=tuple(sys.argv))))


def run(words: Sequence[str], world: World) -> int:
    from backends.registry import BACKENDS

    names = {**COMMANDS, **BACKENDS, **{alias: entry for entry in BACKENDS.values() for alias in entry.aliases}}
    try:
        code = _invoke(spread_words(words, names), world)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except WorkerManagerError as error:
        return _told(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader went away (`… | head`): that is no error. The interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if type(error).__name__ in ("BackendUnusable", "OptionErrors", "UnknownBackend"):
            return _told(str(error), 2)
        raise


def _invoke(words: list[str], world: World) -> Any:
    if _COMPLETE in os.environ:
        return cli.main(words, prog_name=_NAME, complete_var=_COMPLETE, standalone_mode=False, obj=world)
    # Not by `main`, which would take a reader that went away for a failure.
    try:
        with cli.make_context(_NAME, words, obj=world) as ctx:
            return cli.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code


def _told(text: str, code: int) -> int:
    for line in text.splitlines() or [""]:
        click.echo(f"worker-manager: {line}", err=True)
    return code


__all__ = ["OurCommand", "cli", "main", "run", "spread_words"]
