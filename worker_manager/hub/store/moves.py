"""Moving jobs through their life-cycle: the one place that writes a job's state.

An operation loads rows, hands each to `Moves` with what happened to it, and calls `flush`. The table in `states` says
what becomes of it; here the consequences are collected (counters of groups and arrays, dependents, attempts, events,
words to the worker) and written with few statements, many rows each.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from worker.protocol import JobState
from worker_manager.hub.contract import Settings, job_topic
from worker_manager.hub.keeping import Kept
from worker_manager.hub.runtimes import RunTimes
from worker_manager.hub.states import Budgets, Change, JobEvent, job_step
from worker_manager.hub.store.arrays import ArrayDeltas
from worker_manager.hub.store.choices import Choices
from worker_manager.hub.store.grouping import Groups, ShapeBook
from worker_manager.hub.store.many import execute_many
from worker_manager.hub.store.tables import (
    IN_QUEUE,
    NOWHERE,
    ON_WORKER,
    WHOLE,
    arrays,
    attempts,
    dependencies,
    jobs,
)
from worker_manager.hub.store.values import job_id
from worker_manager.hub.store.writer import Batch

JobRow = Any  # a row of COLUMNS, or of more

COLUMNS = (
    jobs.c.id,
    jobs.c.idx,
    jobs.c.owner,
    jobs.c.queue,
    jobs.c.priority,
    jobs.c.state,
    jobs.c.place,
    jobs.c.group_id,
    jobs.c.shape_id,
    jobs.c.program,
    jobs.c.tasks,
    jobs.c.retries,
    jobs.c.tries,
    jobs.c.losses,
    jobs.c.cancelling,
    jobs.c.watched,
    jobs.c.epoch,
    jobs.c.worker,
    jobs.c.submitted_ms,
    jobs.c.queued_ms,
    jobs.c.assigned_ms,
    jobs.c.started_ms,
    jobs.c.reason,
    jobs.c.text,
)
MEASURES = ("exit_code", "signal", "run_ms", "cpu_ms", "max_rss", "output")
NO_MEASURES: Mapping[str, Any] = dict.fromkeys(MEASURES)

ONE = select(*COLUMNS).where(jobs.c.id == bindparam("id"), jobs.c.idx == bindparam("idx"))
_THIS = (jobs.c.id == bindparam("job"), jobs.c.idx == bindparam("task"))
_END = (
    update(jobs)
    .where(*_THIS)
    .values(
        place=NOWHERE,
        **{
            name: bindparam("to_" + name)
            for name in ("state", "tries", "losses", "reason", "text", "started_ms", "ended_ms", *MEASURES)
        },
    )
)
_REQUEUE = (
    update(jobs)
    .where(*_THIS)
    .values(
        place=IN_QUEUE,
        state=JobState.QUEUED,
        tries=bindparam("to_tries"),
        losses=bindparam("to_losses"),
        queued_ms=bindparam("now"),
        worker=None,
        send_seq=None,
        assigned_ms=None,
        started_ms=None,
    )
)
_START = (
    update(jobs).where(*_THIS).values(state=JobState.RUNNING, place=ON_WORKER, started_ms=bindparam("to_started_ms"))
)
_DEPENDENTS = (
    select(dependencies.c.on_id, dependencies.c.needs, *COLUMNS, jobs.c.blockers)
    .join(jobs, (jobs.c.id == dependencies.c.job_id) & (jobs.c.idx == WHOLE))
    .where(dependencies.c.on_id.in_(bindparam("ended", expanding=True)), jobs.c.state == JobState.BLOCKED)
)
_UNBLOCK = update(jobs).where(*_THIS).values(blockers=jobs.c.blockers - bindparam("by"))


class Moves:
    """One operation's changes to jobs."""

    def __init__(
        self,
        batch: Batch,
        book: ShapeBook,
        settings: Settings,
        runtimes: RunTimes,
        kept: Mapping[str, Kept],
        choices: Choices,
    ) -> None:
        self.batch = batch
        self.connection = batch.connection
        self.book = book
        self.runtimes = runtimes
        self.kept = kept
        self.choices = choices
        self.settings = settings
        self.groups = Groups(batch, book, settings.max_groups)
        self.arrays = ArrayDeltas(batch)
        self._counts: dict[tuple[int | None, int | None, str], int] = {}  # (array, group, state) → how many more
        self._ends: list[dict[str, Any]] = []
        self._requeues: list[tuple[JobRow, Change]] = []
        self._starts: list[dict[str, Any]] = []
        self._attempts: list[dict[str, Any]] = []
        self._ended: dict[int, str] = {}  # watched jobs that ended, with their final state

    # ------------------------------------------------------------ what happened to a job

    def start(self, row: JobRow, started_ms: int) -> None:
        if self._step(row, JobEvent.START) is None:
            return
        self._starts.append({"job": row.id, "task": row.idx, "to_started_ms": started_ms})
        self._leave(row)
        self._enter(row, JobState.RUNNING)
        self.batch.topics.add(job_topic(job_id(row.id, row.idx)))

    def finish(
        self, row: JobRow, event: JobEvent, measures: Mapping[str, Any] = NO_MEASURES, reason: str = "", text: str = ""
    ) -> str | None:
        """Its attempt is over in one way or another. Returns where it went, or None when nothing changed."""
        change = self._step(row, event)
        if change is None:
            return None
        self._leave(row, measured=measures["run_ms"] if event in (JobEvent.SUCCEED, JobEvent.FAIL) else None)
        if change.to == JobState.QUEUED:
            self._again(row, change, event, measures, reason, text)
        else:
            if change.reason == "lost-too-often":
                text = f"it came back from its worker {change.losses} times; the last time: {text or reason}"
            self._over(row, change, measures, change.reason or reason, text)
        return change.to

    def cancel_waiting(self, row: JobRow, reason: str, text: str) -> None:
        """A job without a worker: blocked or queued, not an array."""
        event = JobEvent.DEPENDENCY_FAILED if reason == "dependency-failed" else JobEvent.CANCEL
        change = self._step(row, event)
        if change is not None:
            self._leave(row)
            self._over(row, change, NO_MEASURES, reason, text)

    def whole_array_over(self, row: JobRow, state: str, reason: str, text: str) -> None:
        """The array itself, when its last task has ended."""
        self._record_end(row, state, row.tries, row.losses, NO_MEASURES, reason, text)

    def enqueue(self, row: JobRow) -> None:
        """A blocked job or array whose dependencies are done."""
        tasks = row.tasks or 1
        shape = self.book.shape(self.connection, row.shape_id)
        group = self.groups.of(row.owner, row.queue, row.priority, shape)
        self.connection.execute(
            update(jobs)
            .where(jobs.c.id == row.id, jobs.c.idx == row.idx)
            .values(state=JobState.QUEUED, place=IN_QUEUE, group_id=group, queued_ms=self.batch.now)
        )
        self.groups.delta(group).queued += tasks
        if row.tasks:
            self.arrays.move(row.id, JobState.BLOCKED, JobState.QUEUED, tasks)
        self.tally(JobState.BLOCKED, -tasks)
        self.tally(JobState.QUEUED, tasks)
        self.batch.topics.add(job_topic(job_id(row.id, row.idx)))

    # ------------------------------------------------------------ books

    def tally(self, state: str, by: int) -> None:
        self.batch.tallies[state] = self.batch.tallies.get(state, 0) + by

    def event(self, kind: str, subject: str, /, **data: Any) -> None:
        self.batch.events.append({"kind": kind, "subject": subject, "data": data})

    def _step(self, row: JobRow, event: JobEvent) -> Change | None:
        budgets = Budgets(row.retries, row.tries, row.losses, self.settings.lost_cap)
        return job_step(row.state, event, budgets, bool(row.cancelling))

    def _leave(self, row: JobRow, measured: int | None = None) -> None:
        """Take it out of the counters of the state that it is in."""
        self._count(row, row.state, -1)
        if measured is not None:
            self.runtimes.ran(row.program, measured)
        if measured is not None and row.group_id is not None:
            delta = self.groups.delta(row.group_id)
            delta.runs += 1
            delta.run_ms += measured
            delta.run_us = getattr(row, "run_us", None)

    def _enter(self, row: JobRow, state: str) -> None:
        self._count(row, state, 1)

    def _count(self, row: JobRow, state: str, by: int) -> None:
        alike = (None if row.idx == WHOLE else row.id, row.group_id, state)
        self._counts[alike] = self._counts.get(alike, 0) + by

    def _enter_counts(self) -> None:
        """Into the books, once for all jobs that are alike."""
        counts, self._counts = self._counts, {}
        for (array, group, state), by in counts.items():
            self.tally(state, by)
            if array is not None:
                self.arrays.count(array, state, by)
            if group is None:
                continue
            if state == JobState.QUEUED:
                self.groups.delta(group).queued += by
            elif state == JobState.ASSIGNED:
                self.groups.delta(group).unstarted += by
            elif state == JobState.RUNNING:
                self.groups.delta(group).running += by

    def _again(
        self, row: JobRow, change: Change, event: JobEvent, measures: Mapping[str, Any], reason: str, text: str
    ) -> None:
        self._attempts.append(
            {
                "id": row.id,
                "idx": row.idx,
                "epoch": row.epoch,
                "worker": row.worker,
                "outcome": _ATTEMPT_OUTCOME[event],
                "reason": reason,
                "text": text,
                "assigned_ms": row.assigned_ms,
                "started_ms": measures.get("started_ms") or row.started_ms,
                "ended_ms": self.batch.now,
                **{name: measures[name] for name in MEASURES},
            }
        )
        self._requeues.append((row, change))
        self.event("job.requeued", job_id(row.id, row.idx), worker=row.worker, why=reason or str(event))
        self.batch.topics.add(job_topic(job_id(row.id, row.idx)))

    def _over(self, row: JobRow, change: Change, measures: Mapping[str, Any], reason: str, text: str) -> None:
        self._enter(row, change.to)
        self._record_end(row, change.to, change.tries, change.losses, measures, reason, text)

    def _record_end(
        self,
        row: JobRow,
        state: str,
        tries: int,
        losses: int,
        measures: Mapping[str, Any],
        reason: str,
        text: str,
    ) -> None:
        self._ends.append(
            {
                "job": row.id,
                "task": row.idx,
                "to_state": state,
                "to_tries": tries,
                "to_losses": losses,
                "to_reason": reason,
                "to_text": text,
                "to_started_ms": measures.get("started_ms") or row.started_ms,
                "to_ended_ms": self.batch.now,
                "to_exit_code": measures["exit_code"],
                "to_signal": measures["signal"],
                "to_run_ms": measures["run_ms"],
                "to_cpu_ms": measures["cpu_ms"],
                "to_max_rss": measures["max_rss"],
                "to_output": measures["output"],
            }
        )
        if row.watched and row.idx == WHOLE:
            self._ended[row.id] = state
        name = job_id(row.id, row.idx)
        self.batch.topics.add(job_topic(name))
        if row.idx == WHOLE or state == JobState.FAILED:
            self.event("job.ended", name, state=state, reason=reason, exit_code=measures["exit_code"])

    # ------------------------------------------------------------ writing

    def flush(self) -> None:
        """Write everything, and what follows from it, until nothing follows any more."""
        self.write_jobs()
        while True:
            self._finish_arrays()
            if not self._ended:
                break
            self._release_dependents()
            self.write_jobs()
        self.arrays.flush()
        self.groups.flush()

    def write_jobs(self) -> None:
        execute_many(self.connection, _START, self._starts)
        self._starts = []
        if self._requeues:
            self._write_requeues()
        if self._attempts:
            self.connection.execute(insert(attempts), self._attempts)
            self._attempts = []
        execute_many(self.connection, _END, self._ends)
        self._ends = []
        self._enter_counts()

    def _write_requeues(self) -> None:
        requeues, self._requeues = self._requeues, []
        for row, _ in requeues:
            self._enter(row, JobState.QUEUED)  # its group is still there: it counted among its members
        self.connection.execute(
            _REQUEUE,
            [
                {
                    "job": row.id,
                    "task": row.idx,
                    "to_tries": change.tries,
                    "to_losses": change.losses,
                    "now": self.batch.now,
                }
                for row, change in requeues
            ],
        )

    def _finish_arrays(self) -> None:
        for number, state in self.arrays.finished():
            row = self.connection.execute(ONE, {"id": number, "idx": WHOLE}).one()
            if row.state not in JobState.FINAL:
                self.whole_array_over(row, state, row.reason, row.text)
        self.write_jobs()

    def _release_dependents(self) -> None:
        ended, self._ended = self._ended, {}
        rows = self.connection.execute(_DEPENDENTS, {"ended": list(ended)}).all()
        done: dict[int, list[Any]] = {}
        refused: dict[int, Any] = {}
        for row in rows:
            if row.needs == "success" and ended[row.on_id] != JobState.SUCCEEDED:
                refused[row.id] = row
            else:
                done.setdefault(row.id, []).append(row)
        for row in refused.values():
            text = f"{job_id(row.on_id)}, which it needs, ended as {ended[row.on_id]}"
            if row.tasks:
                self.cancel_array(row, row.tasks, JobState.BLOCKED, "dependency-failed", text)
            else:
                self.cancel_waiting(row, "dependency-failed", text)
        for number, reasons in done.items():
            if number in refused:
                continue
            self.connection.execute(_UNBLOCK, {"job": number, "task": WHOLE, "by": len(reasons)})
            if reasons[0].blockers - len(reasons) <= 0:
                self.enqueue(reasons[0])
        self.connection.execute(delete(dependencies).where(dependencies.c.on_id.in_(list(ended))))

    def cancel_array(self, row: JobRow, unopened: int, state: str, reason: str, text: str) -> None:
        """The tasks of an array that were never opened, all at once."""
        self.connection.execute(update(arrays).where(arrays.c.id == row.id).values(next_idx=arrays.c.count))
        self.connection.execute(
            update(jobs)
            .where(jobs.c.id == row.id, jobs.c.idx == WHOLE)
            .values(place=NOWHERE, cancelling=1, reason=reason, text=text, state=JobState.RUNNING)
        )
        self.arrays.move(row.id, state, JobState.CANCELLED, unopened)
        self.tally(state, -unopened)
        self.tally(JobState.CANCELLED, unopened)
        if row.group_id is not None and state == JobState.QUEUED:
            self.groups.delta(row.group_id).queued -= unopened


_ATTEMPT_OUTCOME: Mapping[JobEvent, str] = {
    JobEvent.FAIL: "failed",
    JobEvent.RETURN: "returned",
    JobEvent.SPOIL: "returned",
    JobEvent.LOSE: "lost",
}
