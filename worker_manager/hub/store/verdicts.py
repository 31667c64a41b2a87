"""What the managers last said about job groups: why jobs wait, and which no pool can ever serve."""

import json
from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from worker_manager.hub.contract import Wire
from worker_manager.hub.store.tables import managers

NEVER = "never"


class Verdicts:
    def __init__(self, by_group: Mapping[str, list[Wire]]) -> None:
        self._by_group = by_group

    def of_group(self, key: str | None) -> list[Wire]:
        return list(self._by_group.get(key or "", ()))

    def unservable(self, key: str | None) -> Wire | None:
        """The reason, when every pool of every manager says never."""
        verdicts = self.of_group(key)
        if verdicts and all(verdict.get("status") == NEVER for verdict in verdicts):
            reason: Wire = verdicts[0].get("reason") or {}
            return reason
        return None


class VerdictBook:
    """Parsed once for each publication. Used from reader threads: a lost race only parses twice."""

    def __init__(self) -> None:
        self._seen: tuple[tuple[str, int, int], ...] = ()
        self._verdicts = Verdicts({})

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
            self._verdicts = Verdicts(_parsed(connection))
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
