"""The counters of arrays: how many of an array's tasks are where. Its own state follows from them."""

from typing import Any

from sqlalchemy import bindparam, select, update

from worker.protocol import JobState
from worker_manager.hub.states import ArrayCounts, array_state
from worker_manager.hub.store.tables import arrays
from worker_manager.hub.store.writer import Batch

STATES = JobState.ALL
_MOVE = (
    update(arrays)
    .where(arrays.c.id == bindparam("array"))
    .values({arrays.c[state]: arrays.c[state] + bindparam("by_" + state) for state in STATES})
)
_FINISHED = select(arrays).where(
    arrays.c.id.in_(bindparam("touched", expanding=True)),
    arrays.c.blocked + arrays.c.queued + arrays.c.assigned + arrays.c.running == 0,
)


def counts_of(row: Any) -> ArrayCounts:
    return ArrayCounts(*(getattr(row, state) for state in STATES))


class ArrayDeltas:
    """One operation's changes to the counters."""

    def __init__(self, batch: Batch) -> None:
        self._connection = batch.connection
        self._deltas: dict[int, dict[str, int]] = {}

    def count(self, array: int, state: str, by: int) -> None:
        delta = self._deltas.get(array)
        if delta is None:
            delta = self._deltas[array] = dict.fromkeys(STATES, 0)
        delta[state] += by

    def move(self, array: int, before: str, after: str, tasks: int) -> None:
        self.count(array, before, -tasks)
        self.count(array, after, tasks)

    def flush(self) -> set[int]:
        """Write them; returns the arrays in which a task ended."""
        deltas, self._deltas = self._deltas, {}
        if deltas:
            self._connection.execute(
                _MOVE,
                [
                    {"array": array, **{"by_" + state: by for state, by in delta.items()}}
                    for array, delta in deltas.items()
                ],
            )
        return {array for array, delta in deltas.items() if any(delta[state] > 0 for state in JobState.FINAL)}

    def finished(self) -> list[tuple[int, str]]:
        """Arrays of which no task waits or runs any more, with the state that they end in."""
        touched = self.flush()
        if not touched:
            return []
        rows = self._connection.execute(_FINISHED, {"touched": list(touched)})
        return [(row.id, array_state(counts_of(row))) for row in rows]
