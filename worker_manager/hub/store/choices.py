"""What the hub keeps in mind for giving jobs to workers that hold their inputs. In memory only."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select

from worker_manager.hub.inventory import Inventory
from worker_manager.hub.preference import Patience, Want, wants_of
from worker_manager.hub.store.tables import NO_TASK_SQL, jobs

KNOWN = 50_000  # jobs whose inputs are kept in mind, and choices that can still be explained

_SPECS = select(jobs.c.id, jobs.c.owner, jobs.c.spec).where(
    jobs.c.id.in_(bindparam("wanted", expanding=True)), NO_TASK_SQL
)


class Chosen(NamedTuple):
    """Why an attempt is where it is."""

    epoch: int
    worker: str
    held: int  # bytes of its inputs that were there


@dataclass
class Choices:
    """What is remembered for it, in memory only."""

    inventory: Inventory
    patience: Patience = field(default_factory=Patience)
    made: int = 0  # jobs that went first to a worker for what it holds
    _wants: "OrderedDict[int, tuple[Want, ...]]" = field(default_factory=OrderedDict)
    _chosen: "OrderedDict[tuple[int, int], Chosen]" = field(default_factory=OrderedDict)

    def explain(self, number: int, idx: int, epoch: int) -> Chosen | None:
        found = self._chosen.get((number, idx))
        return found if found is not None and found.epoch == epoch else None

    def note(self, number: int, idx: int, chosen: Chosen) -> None:
        _keep(self._chosen, (number, idx), chosen)

    def wants(self, connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[Want, ...]]:
        """What each of these needs. It never changes, so it is read once."""
        unknown = [number for number in numbers if number not in self._wants]
        if unknown:
            for row in connection.execute(_SPECS, {"wanted": unknown}):
                inputs = json.loads(row.spec).get("work", {}).get("inputs", ())
                _keep(self._wants, row.id, wants_of(inputs, row.owner))
        return {number: self._wants.get(number, ()) for number in numbers}


def _keep(known: "OrderedDict[Any, Any]", key: Any, value: Any) -> None:
    known[key] = value
    if len(known) > KNOWN:
        known.popitem(last=False)
