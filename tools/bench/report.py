"""Rows of figures: a table for people, `build/bench.json` for programs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    name: str
    value: float
    unit: str
    baseline: float | None = None  # what it is held against, in the same unit
    ratio: float | None = None  # value / baseline
    note: str = ""


def against(name: str, value: float, unit: str, baseline: float, note: str = "") -> Row:
    return Row(name, value, unit, baseline, value / baseline if baseline else None, note)


def table(rows: list[Row]) -> str:
    lines = [f"{'what':<58} {'value':>12} {'unit':<10} {'baseline':>12} {'ratio':>7}  note"]
    for row in rows:
        baseline = "" if row.baseline is None else f"{row.baseline:,.4g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(
            f"{row.name:<58} {row.value:>12,.4g} {row.unit:<10} {baseline:>12} {ratio:>7}  {row.note}".rstrip()
        )
    return "\n".join(lines)


def write(rows: list[Row], path: Path) -> None:
    """Rows measured earlier and not now stay, so that one bench can be run again by itself."""
    kept = {}
    if path.exists():
        kept = {entry["name"]: entry for entry in json.loads(path.read_text())}
    kept.update({row.name: asdict(row) for row in rows})
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(list(kept.values()), indent=1) + "\n")
