"""`config check FILE` and `config show [--origin]`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from worker_manager.cli.lazy import LazyGroup, OurCommand, with_connection
from worker_manager.cli.output import Column, show_document, show_table
from worker_manager.cli.world import API_VERSION, Invocation, takes_invocation
from worker_manager.config.problems import show_path
from worker_manager.config.settings import Settings


@click.group(cls=LazyGroup)
def config() -> None:
    """Check or show a configuration."""


@config.command(cls=OurCommand)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@takes_invocation
def check(inv: Invocation, file: Path | None) -> None:
    """Say everything that is wrong with FILE, each with its line; nothing is started."""
    settings = inv.plus(config=file).settings(needs_pools=True)
    names = ", ".join(f"{pool.name} ({pool.backend})" for pool in settings.pools)
    inv.say(f"the configuration is good: {names}")


@config.command(cls=OurCommand)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--origin", is_flag=True, help="Also where each value comes from.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@with_connection
@takes_invocation
def show(inv: Invocation, file: Path | None, origin: bool, output: str, **connection: Any) -> None:
    """Every setting as it is in force."""
    settings = inv.plus(config=file, **connection).settings()
    rows = list(shown(settings))
    if output == "table":
        columns = [Column("SETTING", lambda row: str(row["setting"])), Column("VALUE", lambda row: str(row["value"]))]
        show_table([*columns, *([Column("ORIGIN", lambda row: str(row["origin"]))] if origin else [])], rows, False)
        return
    kept = rows if origin else [{name: row[name] for name in ("setting", "value")} for row in rows]
    show_document({"apiVersion": API_VERSION, "kind": "Configuration", "items": kept}, output)


def shown(settings: Settings) -> Iterator[dict[str, Any]]:
    """Secrets are references (`file:…`, `env:…`) and stay so: their content is never read here."""
    for path, value in sorted(settings.values.items(), key=lambda item: [(isinstance(p, str), p) for p in item[0]]):
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        text = str(text).lower() if isinstance(text, bool) else text
        yield {
            "setting": show_path(path),
            "value": "-" if text in (None, "", {}) else text,
            "origin": str(settings.origins[path]),
        }
