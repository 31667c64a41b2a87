"""Which processors a job is bound to, when it asks for that: those that the fewest others are bound to. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable


class Cores:
    def __init__(self, ours: Iterable[int]) -> None:
        self._bound = dict.fromkeys(sorted(ours), 0)

    def take(self, count: int) -> list[int]:
        """As many as asked, or all there are. They overlap only where more is given away than there is."""
        free_first = sorted(self._bound, key=lambda core: (self._bound[core], core))[: max(1, count)]
        for core in free_first:
            self._bound[core] += 1
        return sorted(free_first)

    def give_back(self, cores: Iterable[int]) -> None:
        for core in cores:
            self._bound[core] -= 1
