"""`version` and `completion`."""

import click

from worker_manager.cli.lazy import OurCommand


def print_version() -> None:
    from importlib.metadata import PackageNotFoundError, version

    from backends.registry import usable

    try:
        number = version("worker-manager")
    except PackageNotFoundError:
        number = "(not installed)"
    click.echo(f"worker-manager {number}")
    for backend in usable():
        state = "usable" if backend.ok else f"not usable: {backend.hint}"
        click.echo(f"  {backend.name:<12} {state}")


@click.command(cls=OurCommand, name="version")
def version() -> None:
    """The version, and which backends are usable."""
    print_version()


@click.command(cls=OurCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script, for example: eval "$(worker-manager completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is not None:
        root = ctx.find_root()
        click.echo(kind(root.command, {}, "worker-manager", "_WORKER_MANAGER_COMPLETE").source())
