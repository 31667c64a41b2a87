"""Workers that share a machine.

What was given to one of them and has not begun is taken off the room of the others, who do not know of it yet; else
each of them would be given the same room. For a moment it may be taken off twice, until its start has been heard of.
What is known to be short is not taken off: it may wait for a neighbour for a moment, and what waits there begins sooner
than what is sent when the room is free.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import and_, bindparam, func, select

from worker.protocol import JobState, Shape
from worker_manager.hub.keeping import Kept
from worker_manager.hub.match import is_long
from worker_manager.hub.store.fleet import Worker, limits_of
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.tables import HERE_SQL, ON_WORKER_SQL, jobs, workers

# Few workers share, and theirs are few: their text is searched instead of a column kept for all.
_BESIDE = (
    select(workers.c.id, jobs.c.shape_id, jobs.c.program, func.count(jobs.c.id).label("waiting"))
    .outerjoin(jobs, and_(jobs.c.worker == workers.c.id, ON_WORKER_SQL, jobs.c.state == JobState.ASSIGNED))
    .where(HERE_SQL, workers.c.shape.contains(bindparam("said")), workers.c.id != bindparam("worker"))
    .group_by(workers.c.id, jobs.c.shape_id, jobs.c.program)
)


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands in the way of one worker beside its own jobs."""

    promised: Shape  # given to its neighbours, and not begun
    names: frozenset[str] = frozenset()

    def kept(self, kept: Mapping[str, Kept]) -> Kept | None:
        """For what the machine keeps its room, whichever of its workers it was promised by."""
        return next((kept[name] for name in sorted(self.names) if name in kept), None)


def beside(moves: Moves, worker: Worker) -> Beside | None:
    """None where it has its machine for itself."""
    if not worker.shape.machine:
        return None
    asked = {"said": f'"machine":"{worker.shape.machine}"', "worker": worker.id}
    limits = limits_of(moves.settings)
    promised, names = Shape(cpus=0), set()
    for row in moves.connection.execute(_BESIDE, asked).all():
        names.add(row.id)
        if row.waiting and is_long(moves.runtimes.guess_us(row.program), limits):
            promised = promised.plus(moves.book.shape(moves.connection, row.shape_id), row.waiting)
    countable = dict(worker.shape.custom)
    ours = tuple((name, count) for name, count in promised.custom if name in countable)
    return Beside(replace(promised, custom=ours), frozenset(names))
