"""click, lazily: a command's module is imported when it is called; declared settings become options."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any, TypeVar

import click

from worker_manager.config.flags import CONNECTION, GLOBAL, SHAPE, Flag

# name → (module, attribute, one line for the help)
F = TypeVar("F", bound=Callable[..., Any])
Commands = Mapping[str, tuple[str, str, str]]


class OurCommand(click.Command):
    """Says where a global option belongs when it stands after the command, instead of taking it for unknown."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _misplaced(ctx, error) or error from None


def _misplaced(ctx: click.Context, error: click.NoSuchOption) -> click.UsageError | None:
    name = error.option_name.lstrip("-").partition("=")[0]
    if not any(flag.name == name for flag in GLOBAL):
        return None
    root, command = ctx.find_root().info_name, ctx.info_name
    return click.UsageError(f"--{name} belongs before the command: {root} --{name} … {command} …", ctx=ctx)


class LazyGroup(click.Group):
    command_class = OurCommand

    def __init__(self, *args: Any, commands_at: Commands | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands_at, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.commands_at:
            module, attribute, _ = self.commands_at[cmd_name]
            command: click.Command = getattr(import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else f" See {ctx.command_path} --help."
            raise click.UsageError(f"There is no command {args[0]}.{hint}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise (_misplaced(ctx, error) if ctx.parent else None) or error from None

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table: the help imports no command."""
        rows = [(name, line) for name, (_, _, line) in self.commands_at.items()]
        rows += [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


# ---------------------------------------------------------------- options from declarations


def option_of(flag: Flag, **extra: Any) -> click.Option:
    """A click option that only reports what was given: environment, file and defaults come in `config`."""
    shown = f"[default: {flag.codalab}]" if flag.codalab else ""
    settings: dict[str, Any] = {"default": None, "help": f"{flag.help} {shown}".strip(), **extra}
    if flag.kind in ("switch", "off-switch"):
        settings |= {"is_flag": True, "flag_value": flag.kind == "switch"}
    elif flag.kind == "words":
        settings |= {"multiple": True}
    elif flag.kind == "int":
        settings |= {"type": int}
    elif flag.kind in ("number", "mib"):
        settings |= {"type": float if flag.kind == "number" else int}
    return click.Option([f"--{flag.name}", flag.key], **settings)


def given(ctx: click.Context) -> dict[str, Any]:
    """What stood on the command line, and nothing else."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }


def with_connection(command: F) -> F:
    """Which hub is meant may be said after a command as well."""
    for flag in reversed(CONNECTION):
        option = option_of(flag, hidden=True)
        command = click.option(*option.opts, flag.key, default=None, hidden=True)(command)
    return command


def with_mode(command: F) -> F:
    """--once, --dry-run and --detailed-exitcode, for the commands that run a manager."""
    for name in ("detailed-exitcode", "dry-run", "once"):
        command = click.option(f"--{name}", is_flag=True, hidden=True)(command)
    return command


def shape_options(defaults: bool = True) -> list[click.Option]:
    """`defaults`: CodaLab's are in force."""
    return [option_of(flag if defaults else replace(flag, codalab="")) for flag in SHAPE]
