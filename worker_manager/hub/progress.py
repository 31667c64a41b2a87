"""How far the jobs are that run, as their workers told. In memory only, as usage is: a worker tells again in a while.
What it tells counts for an attempt that it holds, and as long as that lasts."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from worker.protocol import LARGEST, JobState, Phase

AT_MOST = 100_000  # attempts remembered; those of which nothing came for the longest go first
MOST_ROWS = 2000  # of one report
LONGEST_TEXT = 200
PHASES = (Phase.STAGING, Phase.RUNNING, Phase.COLLECTING)

Key = tuple[str, str, int]  # worker, job, epoch


class Progress:
    def __init__(self, at_most: int = AT_MOST) -> None:
        self._at_most = at_most
        self._newest: OrderedDict[Key, dict[str, Any]] = OrderedDict()

    def learn(self, worker: str, told: Any, now: int) -> None:
        """From a report that was taken. What makes no sense in it is left out: no report is refused for it."""
        for job, epoch, *row in _rows(told):
            phase, done, whole, text = row
            found = {"phase": phase, "done": done, "whole": whole, "text": _plain(text)}
            before = self._newest.pop((worker, job, epoch), None)
            same = before is not None and {**before, **found} == before
            self._newest[worker, job, epoch] = before if same and before else {**found, "at_ms": now}
        while len(self._newest) > self._at_most:
            self._newest.popitem(last=False)

    def forget(self, worker: str, results: Any) -> None:
        """These have ended."""
        for result in results if self._newest else ():
            self._newest.pop((worker, result["job"], result["epoch"]), None)

    def of_job(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        """Of the attempt that a worker holds now, with its part in percent where that is known."""
        if job.get("state") not in (JobState.ASSIGNED, JobState.RUNNING):
            return None
        key = (str(job.get("worker") or ""), str(job.get("id")), job.get("attempt") or 0)
        found = self._newest.get(key)
        if found is None:
            return None
        return {**found, "percent": 100 * found["done"] // found["whole"] if found["whole"] else None}


def _rows(told: Any) -> list[list[Any]]:
    listed = told if isinstance(told, list) else []
    return [row[:6] for row in listed[:MOST_ROWS] if isinstance(row, list) and len(row) >= 6 and _makes_sense(row)]


def _makes_sense(row: list[Any]) -> bool:
    job, epoch, phase, done, whole, text = row[:6]
    return (
        isinstance(job, str)
        and isinstance(text, str)
        and phase in PHASES
        and _is_amount(epoch)
        and _is_amount(done)
        and (whole is None or (_is_amount(whole) and done <= whole))
    )


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:LONGEST_TEXT])


def _is_amount(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST
