"""Calling unstarted jobs back from workers that hold more than they have room for, while others have nothing to do."""

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import bindparam, select

from worker.protocol import JobState, Shape, WorkerState
from worker_manager.hub.recall import Spare, Standing, to_recall
from worker_manager.hub.store.fleet import active_jobs, limits_of, load, notify, save
from worker_manager.hub.store.moves import JobRow, Moves
from worker_manager.hub.store.tables import HUNGRY_SQL, ON_WORKER_SQL, jobs, notices, workers
from worker_manager.hub.store.values import serves_of, shape_of

HUNGRY = 256  # workers that are looked at; those behind them have their turn when these are fed
RUNNING = 1000  # jobs

_HUNGRY = select(workers.c.id, workers.c.free, workers.c.serves, workers.c.ready_ms).where(HUNGRY_SQL).limit(HUNGRY)
_ASKED = select(notices.c.id, notices.c.idx, notices.c.epoch).where(
    notices.c.worker == bindparam("worker"), notices.c.kind == "recall"
)
_GO_ON = (
    select(jobs.c.program, jobs.c.started_ms)
    .where(
        ON_WORKER_SQL,
        jobs.c.state == JobState.RUNNING,
        jobs.c.program.is_not(None),
        jobs.c.started_ms < bindparam("before"),
    )
    .limit(RUNNING)
)


def notice_long_runs(moves: Moves) -> None:
    """What runs for longer than its program was guessed to raises the guess, before it has ended."""
    now = moves.batch.now
    late_ms = limits_of(moves.settings).late_us // 1000
    rows = moves.connection.execute(_GO_ON, {"before": now - late_ms}).all()
    moves.runtimes.go_on((row.program, (now - row.started_ms) * 1000) for row in rows)


def recall(moves: Moves, holders: Collection[str]) -> int:
    """`holders` hold jobs that wait for room. Returns how many jobs were asked back."""
    hungry = [
        row for row in moves.connection.execute(_HUNGRY).all() if row.id not in holders and row.id not in moves.kept
    ]
    spare = Spare((_free_now(row.free, moves.batch.now - row.ready_ms), serves_of(row.serves)) for row in hungry)
    if not spare:
        return 0
    held = {name: _standing(moves, name) for name in sorted(holders)}
    for standing in held.values():
        for _, job in standing:
            if job.asked:
                spare.use(job)
    return sum(_ask(moves, name, standing, spare) for name, standing in held.items() if standing)


def _free_now(free: str, age_ms: int) -> Shape:
    shape = shape_of(free)
    return shape if shape.walltime is None else replace(shape, walltime=max(0, shape.walltime - age_ms))


def _standing(moves: Moves, name: str) -> list[tuple[JobRow, Standing]]:
    """In the order in which they were sent."""
    asked = {tuple(row) for row in moves.connection.execute(_ASKED, {"worker": name})}
    rows = sorted(active_jobs(moves, name).values(), key=lambda row: (row.assigned_ms or 0, row.id, row.idx))
    return [(row, _as_standing(moves, row, (row.id, row.idx, row.epoch) in asked)) for row in rows]


def _as_standing(moves: Moves, row: JobRow, asked: bool) -> Standing:
    shape = moves.book.shape(moves.connection, row.shape_id)
    if row.state != JobState.RUNNING:
        return Standing(shape, row.owner, row.queue, moves.runtimes.guess_us(row.program), None, asked)
    so_far_ms = max(0, moves.batch.now - (row.started_ms or moves.batch.now))
    return Standing(shape, row.owner, row.queue, moves.runtimes.usual_us(row.program), so_far_ms * 1000)


def _ask(moves: Moves, name: str, standing: list[tuple[JobRow, Standing]], spare: Spare) -> int:
    worker = load(moves, name)
    if worker is None or worker.state != WorkerState.READY:
        return 0  # one that drains gives them back by itself
    chosen = to_recall(worker.shape, [job for _, job in standing], spare, limits_of(moves.settings))
    notify(moves, worker, "recall", [standing[n][0] for n in chosen], "others-are-free")
    if chosen:
        save(moves, worker)
    return len(chosen)
