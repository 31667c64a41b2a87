"""What a cache holds, as far as the hub was not told yet. Pure."""

from typing import Any, Dict, Iterable, List, Optional, Tuple

Entry = Tuple[str, str, int]  # scope, key, bytes

AT_ONCE = 2_000  # entries of one report; the rest comes with the next
MOST = 50_000  # of which the hub is told: the largest


class Inventory:
    def __init__(self) -> None:
        self._told: Dict[Tuple[str, str], int] = {}
        self._counts: Dict[str, int] = {}
        self._all = True

    def news(self, has: Iterable[Entry], counts: Dict[str, int]) -> Optional[Dict[str, Any]]:
        """A CacheNews; None when there is none."""
        there = {(scope, key): size for scope, key, size in has}
        if len(there) > MOST:
            there = dict(sorted(there.items(), key=lambda one: -one[1])[:MOST])
        gone = [list(one) for one in self._told if one not in there]
        added: List[List[Any]] = []
        for (scope, key), size in there.items():
            if self._told.get((scope, key)) != size and len(added) < AT_ONCE:
                added.append([scope, key, size])
        if not (added or gone or self._all or counts != self._counts):
            return None
        for scope, key, size in added:
            self._told[scope, key] = size
        for scope, key in gone:
            del self._told[scope, key]
        news: Dict[str, Any] = {"added": added, "gone": gone, "counts": dict(counts)}
        if self._all:
            news["all"] = True
        self._all, self._counts = False, dict(counts)
        return news
