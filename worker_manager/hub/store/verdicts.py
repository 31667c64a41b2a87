"""What the managers last said about job groups, and the hub itself: why jobs wait, and which no pool can ever
serve."""

import json
from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from worker_manager.hub.contract import Wire
from worker_manager.hub.store.tables import managers

NEVER = "never"
_TELLING = ("waiting", "launching", "served", "elsewhere")  # why not yet comes before what helps the others


class Verdicts:
    def __init__(self, by_group: Mapping[str, list[Wire]]) -> None:
        self._by_group = by_group
        self._waits: dict[str, Wire | None] = {}  # a page of jobs asks again and again about a few groups

    def of_group(self, key: str | None) -> list[Wire]:
        return list(self._by_group.get(key or "", ()))

    def unservable(self, key: str | None) -> Wire | None:
        """The reason, when every pool of every manager says never."""
        verdicts = self.of_group(key)
        if verdicts and all(verdict.get("status") == NEVER for verdict in verdicts):
            reason: Wire = verdicts[0].get("reason") or {}
            return reason
        return None

    def waits(self, key: str | None) -> Wire | None:
        """What keeps jobs of this group: {pool, status, reason} of the verdict that says most."""
        if key not in self._waits and key is not None:
            listed = [verdict for verdict in self.of_group(key) if verdict.get("status") in _TELLING]
            best = min(listed, key=lambda verdict: _TELLING.index(verdict["status"]), default=None)
            self._waits[key] = best and {name: best.get(name) for name in ("pool", "status", "reason")}
        return self._waits[key] if key is not None else None


class VerdictBook:
    """Parsed once for each publication. Used from reader threads: a lost race only parses twice."""

    def __init__(self) -> None:
        self._seen: tuple[tuple[str, int, int], ...] | None = None
        self._verdicts = Verdicts({})
        self._own: Mapping[str, Wire] = {}

    def add(self, own: Mapping[str, Wire]) -> None:
        """The hub's own word about some groups, in place of what it said before. It comes first."""
        if own != self._own:
            self._own, self._seen = own, None

    def read(self, connection: Connection) -> Verdicts:
        marks = tuple(
            (row.name, row.seen_ms, row.size)
            for row in connection.execute(
                select(managers.c.name, managers.c.seen_ms, func.length(managers.c.report).label("size")).order_by(
                    managers.c.name
                )
            )
        )
        if marks != self._seen:
            by_group = _parsed(connection)
            for key, word in self._own.items():
                by_group[key] = [word, *by_group.get(key, ())]
            self._verdicts = Verdicts(by_group)
            self._seen = marks
        return self._verdicts


def _parsed(connection: Connection) -> dict[str, list[Wire]]:
    by_group: dict[str, list[Wire]] = {}
    for row in connection.execute(select(managers.c.name, managers.c.report).order_by(managers.c.name)):
        for verdict in json.loads(row.report).get("verdicts", ()):
            if isinstance(verdict, dict) and isinstance(verdict.get("group"), str):
                shown = {name: verdict.get(name) for name in ("pool", "status", "jobs", "reason")}
                by_group.setdefault(verdict["group"], []).append({"manager": row.name, **shown})
    return by_group
