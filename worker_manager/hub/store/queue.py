"""The head of a group's queue."""

from sqlalchemy import bindparam, select

from worker_manager.hub.store.moves import COLUMNS, JobRow, Moves
from worker_manager.hub.store.tables import IN_QUEUE_SQL, WHOLE, arrays, jobs

Head = tuple[JobRow, int | None]  # (row, None), or (the array's row, number of a task to open)

_HEAD = (
    select(*COLUMNS)
    .where(jobs.c.group_id == bindparam("group"), IN_QUEUE_SQL)
    .order_by(jobs.c.priority.desc(), jobs.c.id, jobs.c.idx)
    .limit(bindparam("most"))
)
_NEXT_TASK = select(arrays.c.next_idx).where(arrays.c.id == bindparam("array"))


def queue_head(moves: Moves, group: int, most: int) -> list[Head]:
    """The first jobs of the group's queue."""
    head: list[Head] = []
    for row in moves.connection.execute(_HEAD, {"group": group, "most": most}).all():
        if row.tasks is None or row.idx != WHOLE:
            head.append((row, None))
        else:
            first = moves.connection.execute(_NEXT_TASK, {"array": row.id}).scalar_one()
            last = min(row.tasks, first + most - len(head))
            head += [(row, task) for task in range(first, last)]
        if len(head) >= most:
            break
    return head[:most]
