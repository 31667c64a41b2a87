"""The groups' rows: finding or opening a job's group, and keeping its counters in the job's own commit."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text, update

from worker.protocol import Shape
from worker_manager.hub.groups import Kind, bound, floor, key_of, place, smoothed
from worker_manager.hub.refusals import Overloaded
from worker_manager.hub.store.tables import groups, shapes
from worker_manager.hub.store.values import dump, shape_of, shape_text
from worker_manager.hub.store.writer import Batch

FORGET_AFTER_MS = 3_600_000  # an empty group keeps its measured run time for so long


@dataclass(slots=True)
class Delta:
    """What an operation changes in one group's counters."""

    queued: int = 0
    unstarted: int = 0
    running: int = 0
    runs: int = 0
    run_ms: int = 0
    run_us: int | None = None  # the average before, as read


class ShapeBook:
    """Shapes by number and numbers by shape. Only the writer's thread uses it; emptied when anything is rolled back."""

    def __init__(self) -> None:
        self._ids: dict[Shape, int] = {}
        self._shapes: dict[int, Shape] = {}

    def clear(self) -> None:
        self._ids.clear()
        self._shapes.clear()

    def id_of(self, connection: Connection, shape: Shape) -> int:
        found = self._ids.get(shape)
        if found is None:
            wire = shape_text(shape)
            found = connection.execute(_SHAPE_BY_WIRE, {"wire": wire}).scalar()
            if found is None:
                result = connection.execute(insert(shapes), {"wire": wire})
                found = int(result.inserted_primary_key[0])  # type: ignore[index]
            self._remember(found, shape)
        return found

    def shape(self, connection: Connection, number: int) -> Shape:
        found = self._shapes.get(number)
        if found is None:
            found = shape_of(connection.execute(_SHAPE_BY_ID, {"id": number}).scalar_one())
            self._remember(number, found)
        return found

    def _remember(self, number: int, shape: Shape) -> None:
        if len(self._ids) > 100_000:
            self.clear()
        self._ids[shape] = number
        self._shapes[number] = shape


_SHAPE_BY_WIRE = select(shapes.c.id).where(shapes.c.wire == bindparam("wire"))
_SHAPE_BY_ID = select(shapes.c.wire).where(shapes.c.id == bindparam("id"))
_GROUP_BY_KEY = select(groups.c.id, groups.c.asks, groups.c.floor).where(groups.c.key == bindparam("key"))
_GROUP_COUNT = select(func.count()).select_from(groups)
_COUNTERS = (
    groups.update()
    .where(groups.c.id == bindparam("group"))
    .values(
        queued=groups.c.queued + bindparam("by_queued"),
        unstarted=groups.c.unstarted + bindparam("by_unstarted"),
        running=groups.c.running + bindparam("by_running"),
        touched_ms=bindparam("now"),
        oldest=text(
            "(SELECT j.queued_ms FROM jobs j WHERE j.group_id = groups.id AND j.place = 1"
            " ORDER BY j.priority DESC, j.id, j.idx LIMIT 1)"
        ),
    )
)
_AVERAGE = update(groups).where(groups.c.id == bindparam("group")).values(run_us=bindparam("average"))
_EMPTIED = select(groups.c.id).where(groups.c.id.in_(bindparam("touched", expanding=True)), groups.c.queued == 0)


class Groups:
    """One operation's view of the groups."""

    def __init__(self, batch: Batch, book: ShapeBook, limit: int) -> None:
        self._batch = batch
        self._connection = batch.connection
        self._book = book
        self._limit = limit
        self._known: dict[Kind, int] = {}
        self.deltas: dict[int, Delta] = {}

    def of(self, owner: str, queue: str, priority: int, shape: Shape) -> int:
        """The number of the group for such jobs, opened where there is none. Raises Overloaded when there are too
        many kinds of jobs."""
        kind = Kind(owner, queue, priority, shape)
        found = self._known.get(kind)
        if found is None:
            found = self._known[kind] = self._find(kind) or self._open(kind)
        return found

    def delta(self, group: int) -> Delta:
        found = self.deltas.get(group)
        if found is None:
            found = self.deltas[group] = Delta()
        return found

    def flush(self) -> None:
        """Write the counters. Called before the matcher reads them, and at the end."""
        deltas, self.deltas = self.deltas, {}
        if not deltas:
            return
        self._connection.execute(
            _COUNTERS,
            [
                {
                    "group": group,
                    "by_queued": delta.queued,
                    "by_unstarted": delta.unstarted,
                    "by_running": delta.running,
                    "now": self._batch.now,
                }
                for group, delta in deltas.items()
            ],
        )
        averages = [
            {"group": group, "average": smoothed(delta.run_us, delta.runs, delta.run_ms)}
            for group, delta in deltas.items()
            if delta.runs
        ]
        if averages:
            self._connection.execute(_AVERAGE, averages)
        if any(delta.queued > 0 for delta in deltas.values()):
            self._batch.backlog_changed = True
            self._batch.new_work = True
        elif any(delta.queued < 0 for delta in deltas.values()) and self._emptied(deltas):
            self._batch.backlog_changed = True

    def _emptied(self, touched: Iterable[int]) -> bool:
        return self._connection.execute(_EMPTIED, {"touched": list(touched)}).first() is not None

    def _find(self, kind: Kind) -> int | None:
        """The finest group that exists already and is not the last resort of another level."""
        row = self._connection.execute(_GROUP_BY_KEY, {"key": key_of(kind)}).first()
        return None if row is None else self._widened(row, kind.shape)

    def _open(self, kind: Kind) -> int:
        count = self._connection.execute(_GROUP_COUNT).scalar_one()
        if count * 10 >= self._limit * 8:
            count -= self._forget_empty(count)
        rows: dict[str, Any] = {}

        def known(key: str) -> bool:
            row = self._connection.execute(_GROUP_BY_KEY, {"key": key}).first()
            if row is not None:
                rows[key] = row
            return row is not None

        key = place(kind, known, count, self._limit)
        if key is None:
            raise Overloaded(
                f"there are {count} kinds of waiting jobs already, the most that the hub keeps apart: "
                "use fewer owners, queues and sets of tags, or wait until some are done",
                code="too-many-groups",
            )
        if key in rows:
            return self._widened(rows[key], kind.shape)
        wire = shape_text(kind.shape)
        result = self._connection.execute(
            insert(groups),
            {
                "key": key,
                "asks": wire,
                "floor": wire,
                **_floor_columns(kind.shape),
                "tags": dump(kind.shape.tags),
                "owner": kind.owner,
                "queue": kind.queue,
                "priority": kind.priority,
                "touched_ms": self._batch.now,
            },
        )
        return int(result.inserted_primary_key[0])  # type: ignore[index]

    def _widened(self, row: Any, shape: Shape) -> int:
        wire = shape_text(shape)
        if row.asks != wire or row.floor != wire:
            asks, least = bound(shape_of(row.asks), shape), floor(shape_of(row.floor), shape)
            if shape_text(asks) != row.asks or shape_text(least) != row.floor:
                self._connection.execute(
                    update(groups)
                    .where(groups.c.id == row.id)
                    .values(asks=shape_text(asks), floor=shape_text(least), **_floor_columns(least))
                )
        return int(row.id)

    def _forget_empty(self, count: int) -> int:
        """Make room: of the groups without any job, the longest untouched half."""
        empty = select(groups.c.id).where(groups.c.queued + groups.c.unstarted + groups.c.running == 0)
        oldest = empty.order_by(groups.c.touched_ms).limit(max(1, count // 2))
        kept = set(self._known.values()) | set(self.deltas)
        return int(
            self._connection.execute(
                delete(groups).where(groups.c.id.in_(oldest), groups.c.id.not_in(kept or {-1}))
            ).rowcount
        )


def forget_old_groups(batch: Batch) -> int:
    """Empty for long: their keys and averages go."""
    return int(
        batch.connection.execute(
            delete(groups).where(
                groups.c.queued + groups.c.unstarted + groups.c.running == 0,
                groups.c.touched_ms < batch.now - FORGET_AFTER_MS,
            )
        ).rowcount
    )


def _floor_columns(shape: Shape) -> dict[str, int]:
    return {
        "floor_cpus": shape.cpus,
        "floor_memory": shape.memory,
        "floor_gpus": shape.gpus,
        "floor_disk": shape.disk,
    }
