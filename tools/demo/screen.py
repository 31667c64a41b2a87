"""What the demo shows while it runs: a live table on a terminal, a line for each change elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any, Self

STATES = ("blocked", "queued", "assigned", "running", "succeeded", "failed", "cancelled")


class Screen:
    def __init__(self) -> None:
        self.began = time.monotonic()
        self._last = ""
        self._live: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.live import Live

            self._live = Live(transient=False, refresh_per_second=10)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)

    def show(self, jobs: dict[str, int], pool: dict[str, Any], workers: list[dict[str, Any]]) -> None:
        if self._live:
            self._live.update(self._table(jobs, pool, workers))
            return
        line = "  ".join(
            [
                "jobs: " + (", ".join(f"{jobs[state]} {state}" for state in STATES if jobs.get(state)) or "none"),
                "workers: {wanted} wanted, {requested} requested, {observed} observed, {idle} idle".format(**pool),
            ]
        )
        if line != self._last:
            print(f"{time.monotonic() - self.began:6.2f} s  {line}", file=sys.stderr, flush=True)
            self._last = line

    def say(self, text: str) -> None:
        if self._live:
            self._live.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _table(self, jobs: dict[str, int], pool: dict[str, Any], workers: list[dict[str, Any]]) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        backlog = Table(title=f"{time.monotonic() - self.began:.1f} s", title_justify="left")
        for state in STATES:
            backlog.add_column(state, justify="right")
        backlog.add_row(*(str(jobs.get(state, 0)) for state in STATES))
        fleet = Table()
        for column in ("worker", "state", "running", "runs"):
            fleet.add_column(column)
        for worker in workers:
            bar = "█" * worker["running"] + "▒" * worker["assigned"]
            fleet.add_row(worker["id"], worker["state"], bar, str(worker["runs"]))
        counts = "wanted {wanted} · requested {requested} · observed {observed} · idle {idle}".format(**pool)
        return Group(backlog, Text(counts), Text(why(pool)), fleet)


def why(pool: dict[str, Any]) -> str:
    return "; ".join(reason["text"] for reason in pool["reasons"])
