"""Writes docs/reference/cli.md and worker.md from the commands themselves: `python -m tools.cli_reference`."""

from collections.abc import Iterator
from pathlib import Path

import click

from backends.registry import BACKENDS
from worker.options import FLAGS, REPEATED, SWITCHES
from worker_manager.cli.main import COMMANDS, GLOBAL_SECTIONS, cli
from worker_manager.cli.run import PerBackend

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
PAGE, WORKER_PAGE = REFERENCE / "cli.md", REFERENCE / "worker.md"

HEAD = """\
# The command line

Written by `python -m tools.cli_reference` from the commands themselves; a test keeps it up to date.

Data goes to stdout, everything said to a person to stderr. `--server`, `--token-file` and `--state-dir` are taken
before and after a command; the other global options stand before it. Every global option is an environment variable
too: `--max-workers` is `WORKER_MANAGER_MAX_WORKERS`. A backend's option is one with the backend's name:
`WORKER_MANAGER_LOCAL_CPUS`. A variable with our prefix that means nothing is told on stderr.

A job may be named `j7` or `7`, a task of an array `j7-3`.

| Exit code | |
|---|---|
| 0 | done |
| 1 | it failed, or what was named is not there |
| 2 | what was asked makes no sense; nothing was done |
| 3 | `--dry-run --detailed-exitcode`: the plan would act |
| 74 | the database cannot be used; the message says what to do |
| 75 | another manager holds the lease |
| 130, 143 | ended by SIGINT, SIGTERM |
| the job's | `submit --wait` with one job ends as the job did; 128 and the signal where one ended it |
"""

WORKER_HEAD = """\
# The worker

Written by `python -m tools.cli_reference` from the program itself; a test keeps it up to date.

`wm-worker`, `python -m worker` and `python worker.pyz` are the same. A pool's workers are started with what stands
under `worker:` in [the configuration](configuration.md), or with the `--worker-…` options of
[the command line](cli.md). Every option is an environment variable too: `--cache-dir` is `WM_CACHE_DIR`.
`wm-worker ps`, `status` and `stop` are about the workers that run on this machine.

Exit status: 0 left as it should, 1 an error, 2 wrong usage, 3 the hub does not want it.
"""


def worker_text() -> str:
    lines = [WORKER_HEAD, "## Options\n", "| | |\n|---|---|"]
    for flag in sorted(FLAGS + SWITCHES, key=lambda each: each.name):
        said = flag.name + ("" if flag in SWITCHES else " VALUE")
        again = " (may be repeated)" if flag.name in REPEATED and "repeated" not in flag.help else ""
        lines.append(f"| `--{said}` | {_cell(flag.help)}{again} |")
    return "\n".join(lines) + "\n"


def text() -> str:
    return "\n".join([HEAD, *_root(), *_commands()]) + "\n"


def _root() -> Iterator[str]:
    ctx = click.Context(cli, info_name="worker-manager")
    yield "## Global options\n"
    for title, keys in GLOBAL_SECTIONS:
        yield f"**{title}**\n"
        yield from _table([param for param in cli.get_params(ctx) if param.name in keys], ctx)


def _commands() -> Iterator[str]:
    root = click.Context(cli, info_name="worker-manager")
    yield "## Commands\n"
    for name in (*COMMANDS, *sorted(BACKENDS)):
        command = cli.get_command(root, name)
        if command is not None:
            yield from _command(command, name, root)


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    ctx = click.Context(command, info_name=name, parent=parent)
    yield f"### {' '.join(ctx.command_path.split()[1:])}\n"
    pieces = " ".join(command.collect_usage_pieces(ctx))
    yield f"```text\n{ctx.command_path} {pieces}\n```\n"
    yield f"{_prose(command.help or '')}\n"
    yield from _table([param for param in command.get_params(ctx) if "--help" not in param.opts], ctx)
    if isinstance(command, click.Group) and not isinstance(command, PerBackend):
        for part in command.list_commands(ctx):
            inner = command.get_command(ctx, part)
            if inner is not None:
                yield from _command(inner, part, ctx)


def _table(params: list[click.Parameter], ctx: click.Context) -> Iterator[str]:
    options = [param for param in params if isinstance(param, click.Option)]
    records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
    if not records:
        return
    yield "| | |\n|---|---|"
    for said, help in records:
        yield f"| `{_cell(said)}` | {_cell(help)} |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    return " ".join(text.replace("\b", "").split())


if __name__ == "__main__":
    PAGE.write_text(text())
    WORKER_PAGE.write_text(worker_text())
