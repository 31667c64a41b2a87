"""Values → text: the formats of `-o`. Data goes to stdout and nothing else does.

json and yaml carry a versioned schema: {"apiVersion": "worker-manager/v1", "kind": "JobList", "items": […]}.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from worker.protocol import format_bytes, format_cpus, format_duration
from worker_manager.cli.world import API_VERSION, Invocation

FORMATS = ("table", "wide", "json", "yaml", "name")
NOTHING = "-"
GAP = "  "
LEAST_TO_WRAP = 24
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
    longest: int | None = None  # cut in a table, whole with -o wide


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
        columns = [column for column in kind.columns if form == "wide" or not column.wide]
        if form == "wide":
            columns = [replace(column, longest=None) for column in columns]
        show_table(columns, items, inv.colored, titled, inv.width)


def show_one(kind: str, item: Row, form: str) -> None:
    show_document({"apiVersion": API_VERSION, "kind": kind, **item}, form)


def show_document(document: Any, form: str) -> None:
    if form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def show_table(
    columns: Sequence[Column], items: Iterable[Row], colored: bool, titled: bool = True, width: int | None = None
) -> None:
    """Words in columns; the last is not padded, so that a line ends where its text does. With the `width` of a
    terminal, what is too long in the last column goes on below itself."""
    rows = [[_cut(_one_line(column.cell(item)), column.longest) for column in columns] for item in items]
    titles = [column.title for column in columns]
    widths = [max(cells(row[number]) for row in [titles, *rows]) for number in range(len(columns))]
    indent = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    if titled:
        click.echo(_padded(titles, widths))
    for row in rows:
        first, *more = _wrapped(row[-1], width - indent if width else 0)
        line = _padded([*row[:-1], first], widths)
        click.echo(_painted(line, row, columns) if colored else line, color=colored)
        for rest in more:
            click.echo(" " * indent + rest)


def show_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """`describe`: a name and a value in each line."""
    known = [(name, value) for name, value in pairs if value not in ("", NOTHING)]
    width = max((len(name) for name, _ in known), default=0) + 1
    for name, value in known:
        click.echo(f"{name + ':':<{width}} {_one_line(value)}")


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(cell + " " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    """Not where so little room is left that it would be a column of syllables."""
    if width < LEAST_TO_WRAP or cells(text) <= width:
        return [text]
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [text]


def cells(text: str) -> int:
    """How many places a terminal gives it: some letters take two, accents of their own none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _cut(text: str, longest: int | None) -> str:
    return text if longest is None or len(text) <= longest else text[: longest - 1] + "…"


def _painted(line: str, row: Sequence[str], columns: Sequence[Column]) -> str:
    for cell, column in zip(row, columns, strict=True):
        color = _COLORS.get(cell.partition(" ")[0]) if column.colored else None
        if color:
            return line.replace(cell, click.style(cell, fg=color), 1)
    return line


def _one_line(text: str) -> str:
    """A job's name may hold anything: it cannot break the table or speak to the terminal."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "�" for letter in text)


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


def size(count: Any) -> str:
    return NOTHING if count is None else format_bytes(int(count))


def uses(usage: Any) -> str:
    """What something uses at the moment."""
    if not isinstance(usage, Mapping) or usage.get("memory") is None:
        return NOTHING
    cpus = "" if usage.get("cpus") is None else f"{usage['cpus'] / 1000:.2f} cpu, "
    peak = "" if not usage.get("peak") else f" (at most {format_bytes(usage['peak'])})"
    return cpus + format_bytes(usage["memory"]) + peak


def gpu_use(one: Mapping[str, Any]) -> str:
    busy = "" if one.get("busy_percent") is None else f" {one['busy_percent']} %"
    return f"{one.get('id')}{busy} {size(one.get('memory'))}"


def held(cache: Any) -> str:
    """What a worker's cache holds, and how often it had what was asked for."""
    if not isinstance(cache, Mapping):
        return NOTHING
    parts = [f"{format_bytes(cache.get('bytes', 0))} in {cache.get('entries', 0)}"]
    asked = cache.get("hits", 0) + cache.get("misses", 0)
    if asked:
        parts.append(f"{100 * cache.get('hits', 0) // asked} % hits")
    if cache.get("hit_bytes"):
        parts.append(f"{format_bytes(cache['hit_bytes'])} saved")
    return ", ".join(parts)


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


def ago(ms: Any, now_ms: int) -> str:
    """`3m5s ago`, `in 12s`."""
    seconds = int((now_ms - ms) / 1000)
    told = format_duration(abs(seconds) * 1000)
    return "now" if seconds == 0 else f"{told} ago" if seconds > 0 else f"in {told}"


def moment_ago(ms: Any, now_ms: int) -> str:
    return NOTHING if ms is None else f"{moment(ms)} ({ago(ms, now_ms)})"


def moment(ms: Any) -> str:
    if ms is None:
        return NOTHING
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
