"""What workers and their jobs use, as the last heartbeat told. In memory only: it is old in ten seconds, and a hub that
starts again hears it again. Of several hubs on one database each knows what it was told itself."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from worker.protocol import LARGEST

AT_MOST = 20_000  # workers remembered; those that were silent the longest go first
MOST_JOBS = 500
STALE_MS = 60_000  # what is older tells nothing of now
AMOUNTS = ("cpus", "memory", "disk", "load")


class Usage:
    def __init__(self, at_most: int = AT_MOST) -> None:
        self._at_most = at_most
        self._newest: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()

    def learn(self, worker: str, told: Any, now: int) -> None:
        """From a report that was taken. What makes no sense in it is left out: no report is refused for it."""
        if isinstance(told, dict):
            self._newest.pop(worker, None)
            self._newest[worker] = (now, _clean(told))
            if len(self._newest) > self._at_most:
                self._newest.popitem(last=False)

    def of_worker(self, worker: str, now: int) -> dict[str, Any] | None:
        found = self._fresh(worker, now)
        return None if found is None else {name: value for name, value in found.items() if name != "jobs"}

    def of_job(self, job: Mapping[str, Any], now: int) -> dict[str, Any] | None:
        """Of the attempt that runs now."""
        found = self._fresh(str(job.get("worker") or ""), now) if job.get("state") == "running" else None
        if found is None:
            return None
        row = found["jobs"].get((job.get("id"), job.get("attempt")))
        if row is None:
            return None
        gpus = [gpu for gpu in found["gpus"] if gpu["id"] in row["gpus"]]
        return {"at_ms": found["at_ms"], **row, "gpus": gpus}

    def _fresh(self, worker: str, now: int) -> dict[str, Any] | None:
        at, found = self._newest.get(worker, (0, {}))
        return {"at_ms": at, **found} if found and now - at <= STALE_MS else None


def _clean(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: told[name] for name in AMOUNTS if _is_amount(told.get(name))}
    found["gpus"] = [
        {"id": name[:80], "busy_percent": busy, "memory": memory}
        for name, busy, memory in _rows(told.get("gpus"), 3)
        if isinstance(name, str) and _is_amount(busy, True) and _is_amount(memory, True)
    ]
    found["jobs"] = {
        (job, epoch): {"cpu_ms": cpu_ms, "cpus": cpus, "memory": memory, "peak": _peak(more), "gpus": _gpus(more)}
        for job, epoch, cpu_ms, cpus, memory, *more in _rows(told.get("jobs"), 5, 7)
        if isinstance(job, str) and all(map(_is_amount, (epoch, cpu_ms, memory))) and _is_amount(cpus, True)
    }
    return found


def _rows(told: Any, length: int, most: int = 0) -> list[list[Any]]:
    listed = told if isinstance(told, list) else []
    cut = most or length
    return [row[:cut] for row in listed[:MOST_JOBS] if isinstance(row, list) and len(row) >= length]


def _peak(more: list[Any]) -> int | None:
    """None of an older worker."""
    return more[0] if more and _is_amount(more[0]) else None


def _gpus(more: list[Any]) -> list[str]:
    listed = more[1] if len(more) > 1 and isinstance(more[1], list) else []
    return [name for name in listed[:64] if isinstance(name, str)]


def _is_amount(value: Any, none: bool = False) -> bool:
    return (none and value is None) or (type(value) is int and 0 <= value <= LARGEST)
