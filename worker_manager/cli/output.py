"""Values → text: the formats of `-o`. Data goes to stdout and nothing else does.

json and yaml carry a versioned schema: {"apiVersion": "worker-manager/v1", "kind": "JobList", "items": […]}.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from worker.protocol import format_bytes, format_cpus, format_duration
from worker_manager.cli.world import API_VERSION, Invocation

FORMATS = ("table", "wide", "json", "yaml", "name")
NOTHING = "-"
_COLORS = {
    "succeeded": "green",
    "ready": "green",
    "running": "cyan",
    "assigned": "cyan",
    "failed": "red",
    "lost": "red",
    "stuck": "red",
    "cancelled": "yellow",
    "blocked": "yellow",
    "draining": "yellow",
    "unknown": "yellow",
}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    cell: Callable[[Row], str]
    wide: bool = False  # only with -o wide
    colored: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing that can be listed."""

    name: str  # in the schema
    columns: tuple[Column, ...]
    key: str = "id"


def show_list(
    inv: Invocation, kind: Kind, items: Sequence[Row], form: str, following: str | None = None, titled: bool = True
) -> None:
    """`titled` is False for what goes on below an earlier table."""
    if form in ("json", "yaml"):
        document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": f"{kind.name}List", "items": list(items)}
        show_document(document | ({"next": following} if following else {}), form)
    elif form == "name":
        for item in items:
            click.echo(item[kind.key])
    else:
        show_table([column for column in kind.columns if form == "wide" or not column.wide], items, inv.colored, titled)


def show_one(kind: str, item: Row, form: str) -> None:
    show_document({"apiVersion": API_VERSION, "kind": kind, **item}, form)


def show_document(document: Any, form: str) -> None:
    if form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[Column], items: Iterable[Row], colored: bool, titled: bool = True) -> None:
    """Words in columns; the last is not padded, so that a line ends where its text does."""
    rows = [[_one_line(column.cell(item)) for column in columns] for item in items]
    titles = [column.title for column in columns]
    widths = [max(len(row[number]) for row in [titles, *rows]) for number in range(len(columns))]
    if titled:
        click.echo(_padded(titles, widths))
    for row in rows:
        line = _padded(row, widths)
        if colored:
            line = _painted(line, row, columns)
        click.echo(line, color=colored)


def show_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """`describe`: a name and a value in each line."""
    known = [(name, value) for name, value in pairs if value not in ("", NOTHING)]
    width = max((len(name) for name, _ in known), default=0) + 1
    for name, value in known:
        click.echo(f"{name + ':':<{width}} {_one_line(value)}")


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _painted(line: str, row: Sequence[str], columns: Sequence[Column]) -> str:
    for cell, column in zip(row, columns, strict=True):
        if column.colored and cell in _COLORS:
            return line.replace(cell, click.style(cell, fg=_COLORS[cell]), 1)
    return line


def _one_line(text: str) -> str:
    """A job's name may hold anything: it cannot break the table or speak to the terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


# ---------------------------------------------------------------- cells


def text(name: str) -> Callable[[Row], str]:
    def cell(item: Row) -> str:
        value = item.get(name)
        return NOTHING if value is None or value == "" else str(value)

    return cell


def age(name: str, now_ms: int) -> Callable[[Row], str]:
    def cell(item: Row) -> str:
        at = item.get(name)
        seconds = max(0, now_ms - at) // 1000 if at is not None else None
        return NOTHING if seconds is None else format_duration(seconds * 1000) if seconds else "0s"

    return cell


def duration(ms: Any) -> str:
    return NOTHING if ms is None else format_duration(int(ms))


def resources(wire: Mapping[str, Any] | None) -> str:
    """A shape in one phrase; what is missing from the wire is its default and says nothing."""
    if not wire:
        return NOTHING
    parts = [f"{format_cpus(wire.get('cpus', 1000))} cpu"]
    if wire.get("memory"):
        parts.append(format_bytes(wire["memory"]))
    if wire.get("gpus"):
        parts.append(f"{wire['gpus']} gpu{' ' + wire['gpu_type'] if wire.get('gpu_type') else ''}")
    if wire.get("disk"):
        parts.append(f"disk {format_bytes(wire['disk'])}")
    if wire.get("walltime") is not None:
        parts.append(f"for {format_duration(wire['walltime'])}")
    if wire.get("tags"):
        parts.append("tags " + ",".join(wire["tags"]))
    return ", ".join(parts)


def moment(ms: Any) -> str:
    if ms is None:
        return NOTHING
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
