"""Draws what the demo saw: the backlog, the jobs that run and the workers, over time. One SVG, no library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 130, 60, 34, 44
STYLE = "font-family:system-ui,sans-serif;font-size:12px;fill:#57606a"


@dataclass(frozen=True)
class Sample:
    at_s: float
    waiting: int
    running: int
    workers: int


def save(samples: Sequence[Sample], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(draw(samples) + "\n")


def draw(samples: Sequence[Sample]) -> str:
    """Two charts under each other, on one time axis."""
    end = max(sample.at_s for sample in samples)
    rows = [
        _chart(samples, 0, end, "jobs that wait", "#bf8700", lambda sample: sample.waiting),
        _chart(samples, 1, end, "jobs that run", "#0969da", lambda sample: sample.running),
        _chart(samples, 2, end, "workers", "#1a7f37", lambda sample: sample.workers),
    ]
    height = TOP + 3 * (HEIGHT + GAP)
    axis = "".join(
        f'<text x="{LEFT + WIDTH * second / end:.0f}" y="{height - 22}" text-anchor="middle" style="{STYLE}">'
        f"{second} s</text>"
        for second in range(0, int(end) + 1, max(1, int(end) // 10))
    )
    size = f'viewBox="0 0 {LEFT + WIDTH + 30} {height}" width="{LEFT + WIDTH + 30}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(rows)}{axis}</svg>'


def _chart(
    samples: Sequence[Sample], row: int, end: float, title: str, colour: str, value: Callable[[Sample], int]
) -> str:
    top = TOP + row * (HEIGHT + GAP)
    most = max(1, *(value(sample) for sample in samples))

    def x(at_s: float) -> str:
        return f"{LEFT + WIDTH * at_s / end:.1f}"

    def y(count: float) -> str:
        return f"{top + HEIGHT - HEIGHT * count / most:.1f}"

    # A step line: a value holds until the next sample.
    steps = [f"M{x(0)},{y(0)}"]
    for sample in samples:
        steps.append(f"H{x(sample.at_s)} V{y(value(sample))}")
    line = " ".join([*steps, f"H{x(end)}"])
    return (
        f'<path d="{line} V{y(0)} Z" fill="{colour}" fill-opacity="0.15"/>'
        f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(0)}" y2="{y(0)}" stroke="#d0d7de"/>'
        f'<text x="{LEFT}" y="{top - 10}" style="{STYLE};font-weight:600;fill:{colour}">{title}</text>'
        f'<text x="{LEFT - 8}" y="{float(y(most)) + 4:.0f}" text-anchor="end" style="{STYLE}">{most}</text>'
        f'<text x="{LEFT - 8}" y="{float(y(0)) + 4:.0f}" text-anchor="end" style="{STYLE}">0</text>'
    )
