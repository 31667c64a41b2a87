"""How far the attempts of a worker are, as its hub is told: the newest of each, about once a second, and now and then
again, so that a hub that has forgotten hears it."""

from typing import Any, Dict, List, Optional, Tuple

BETWEEN_MS = 1000
AGAIN_MS = 60_000
MOST = 500  # of one report

Key = Tuple[str, int]  # job, epoch


class ProgressTale:
    """Goes with reports; for news alone one is made."""

    def __init__(self, now: int) -> None:
        self._newest: Dict[Key, List[Any]] = {}
        self._untold: Dict[Key, None] = {}  # oldest first
        self._told_at = now - BETWEEN_MS
        self._all_told_at = now

    def learn(self, job: str, epoch: int, phase: str, done: int, whole: Optional[int], text: str) -> None:
        row = [job, epoch, phase, done, whole, text]
        if self._newest.get((job, epoch)) != row:
            self._newest[job, epoch] = row
            self._untold[job, epoch] = None

    def forget(self, job: str, epoch: int) -> None:
        """It has ended."""
        if self._newest.pop((job, epoch), None) is not None:
            self._untold.pop((job, epoch), None)

    @property
    def due_at(self) -> Optional[int]:
        """When a report should go for it; None without news."""
        return self._told_at + BETWEEN_MS if self._untold else None

    def take(self, now: int) -> List[List[Any]]:
        """For the report that is made now."""
        if not self._newest or now < self._told_at + BETWEEN_MS:
            return []
        if now >= self._all_told_at + AGAIN_MS:
            self._all_told_at = now
            self._untold.update(dict.fromkeys(self._newest))
        keys = list(self._untold)[:MOST]
        for key in keys:
            del self._untold[key]
        self._told_at = now if keys else self._told_at
        return [self._newest[key] for key in keys]
