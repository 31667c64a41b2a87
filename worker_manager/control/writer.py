"""What may be written into the ledger, in the manager's words. A Writer lives for one transaction."""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from worker.protocol import Shape
from worker_manager.control import schema
from worker_manager.policy.model import Note
from worker_manager.policy.reasons import Reason

TEXT_KEPT = 2_000  # characters of a vendor's words
OUTPUTS_AT_ONCE = 3  # of a pool: many that fail together say the same, and launches wait behind these calls
OUTPUTS_KEPT = 200


class Writer:
    def __init__(self, connection: Connection) -> None:
        self._run = connection.execute

    # ------------------------------------------------------------ launching

    def announcing(self, submission: str, pool: str, workers: int, at: int) -> None:
        """Before the source hears of it."""
        row = {"submission": submission, "pool": pool, "workers": workers, "at": at}
        self._run(insert(schema.announcements).values(row))

    def announcement_over(self, submission: str) -> None:
        """It became intents, or was taken back at the source."""
        self._run(delete(schema.announcements).where(schema.announcements.c.submission == submission))

    def calling(
        self, submission: str, pool: str, workers: Sequence[str], shape: Shape, config: str, at: int, deadline: int
    ) -> None:
        """Submission and intents, before the call."""
        self.announcement_over(submission)
        self._run(
            insert(schema.submissions).values(
                id=submission, pool=pool, workers=len(workers), at=at, call_deadline=deadline, text=""
            )
        )
        promised = dumps(shape.to_wire(), sort_keys=True)
        common = {"submission": submission, "pool": pool, "state": "requested", "shape": promised, "config": config}
        self._run(
            insert(schema.intents),
            [{"id": worker, "requested_at": at, "call_deadline": deadline, **common} for worker in workers],
        )

    def called(self, submission: str, outcome: str, text: str, at: int) -> None:
        found = schema.submissions.c.id == submission
        self._run(update(schema.submissions).where(found).values(outcome=outcome, text=text[:TEXT_KEPT], ended_at=at))

    # ------------------------------------------------------------ intents

    def intent(self, worker: str, **values: Any) -> None:
        """Changes an intent that is open; a closed one is history."""
        found = (schema.intents.c.id == worker) & schema.intents.c.closed_at.is_(None)
        self._run(update(schema.intents).where(found).values(**values))

    def intents(self, changes: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """The same for many at once, in few statements."""
        by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for worker, values in changes:
            by_columns.setdefault(tuple(sorted(values)), []).append({"the_id": worker, **values})
        for columns, rows in by_columns.items():
            found = (schema.intents.c.id == bindparam("the_id")) & schema.intents.c.closed_at.is_(None)
            self._run(update(schema.intents).where(found).values({name: bindparam(name) for name in columns}), rows)

    def adopt(self, worker: str, pool: str, shape: Shape, config: str, at: int, registered_at: int) -> None:
        """A worker of ours that lives and that this ledger does not know, as after the loss of an older ledger."""
        row = {
            "id": worker,
            "submission": worker.rpartition("-")[0],
            "pool": pool,
            "state": "submitted",
            "shape": dumps(shape.to_wire(), sort_keys=True),
            "requested_at": registered_at,
            "submitted_at": registered_at,
            "call_deadline": at,
            "registered_at": registered_at,
            "config": config,
        }
        again = {**row, "closed_at": None, "closed_why": None, "missed_listings": 0}
        self._run(upsert(schema.intents).values(again).on_conflict_do_update(index_elements=["id"], set_=again))

    def close(self, worker: str, why: str, at: int) -> None:
        self.intent(worker, closed_at=at, closed_why=why)

    # ------------------------------------------------------------ pools

    def pool(self, pool: str, **values: Any) -> None:
        row = upsert(schema.pools).values(pool=pool, **{"freeze_text": "", **values})
        self._run(row.on_conflict_do_update(index_elements=["pool"], set_=values))

    def started(self, pool: str, starts: Sequence[int], at: int) -> None:
        """Workers registered; `starts` are how long the last ones took."""
        self.pool(pool, last_success_at=at, starts=dumps(list(starts)))

    def failed(self, pool: str, kind: str, text: str, at: int, retry_after_ms: int | None = None) -> None:
        row = {"pool": pool, "at": at, "kind": kind, "text": text[:TEXT_KEPT], "retry_after_ms": retry_after_ms}
        self._run(insert(schema.failures).values(row))

    def notes(self, notes: Sequence[Note]) -> None:
        """Exactly these stand from now on."""
        self._run(delete(schema.notes))
        if notes:
            rows = [
                {"pool": n.pool, "owner": n.owner, "version": n.version, "value": dumps(dict(n.value), sort_keys=True)}
                for n in notes
            ]
            self._run(insert(schema.notes), rows)

    # ------------------------------------------------------------ what people see

    def decided(
        self,
        at: int,
        pool: str,
        action: str,
        subject: str,
        reason: Reason,
        outcome: str,
        text: str = "",
        limited: Sequence[Reason] = (),
    ) -> None:
        """`limited` are the limits that left less than `reason` asked for."""
        row = {"at": at, "pool": pool, "action": action, "subject": subject, "outcome": outcome}
        why = dumps(reason.to_wire(), default=str)
        limits = dumps([limit.to_wire() for limit in limited], default=str)
        self._run(insert(schema.decisions).values(reason=why, limited=limits, text=text[:TEXT_KEPT], **row))

    def reported(self, decision: int) -> None:
        """The source has heard of every decision up to this one."""
        row = upsert(schema.marks).values(name=schema.REPORTED, value=decision)
        self._run(row.on_conflict_do_update(index_elements=["name"], set_={"value": decision}))

    def command_done(self, command: str, ok: bool, text: str, at: int, most: int = TEXT_KEPT) -> None:
        row = upsert(schema.commands).values(id=command, ok=int(ok), text=text[:most], at=at, published=0)
        self._run(row.on_conflict_do_nothing())

    def results_published(self, commands: Sequence[str]) -> None:
        """A long text is not kept beside that: who asks again is told what is known then."""
        if commands:
            short = func.substr(schema.commands.c.text, 1, TEXT_KEPT)
            self._run(update(schema.commands).where(schema.commands.c.id.in_(commands)).values(published=1, text=short))

    # ------------------------------------------------------------ what workers wrote

    def output_wanted(self, worker: str, pool: str, handle: str, at: int) -> None:
        """Its backend is to be asked, unless enough of this pool are waiting for that already."""
        of = schema.outputs
        waiting = select(func.count()).where(of.c.pool == pool, of.c.text.is_(None)).select_from(of)
        if self._run(waiting).scalar_one() < OUTPUTS_AT_ONCE:
            row = upsert(of).values(worker=worker, pool=pool, handle=handle, at=at)
            self._run(row.on_conflict_do_nothing())

    def output(self, worker: str, pool: str, handle: str, text: str, at: int) -> None:
        """What was kept before is kept where now there is nothing."""
        row = upsert(schema.outputs).values(worker=worker, pool=pool, handle=handle, text=text, at=at)
        kept = {"text": func.coalesce(func.nullif(text, ""), schema.outputs.c.text, "")}
        self._run(row.on_conflict_do_update(index_elements=["worker"], set_=kept))

    # ------------------------------------------------------------ keeping it small

    def purge(self, before: int, failures_before: int, at_most: int = 1_000) -> None:
        """Removes at most `at_most` old rows of each kind: called often, it never holds the file for long."""
        for table, old in (
            (schema.decisions, schema.decisions.c.at < before),
            (schema.failures, schema.failures.c.at < failures_before),
            (schema.commands, (schema.commands.c.at < before) & (schema.commands.c.published == 1)),
            (schema.intents, schema.intents.c.closed_at < before),
            (schema.outputs, schema.outputs.c.at < before),
            (schema.submissions, (schema.submissions.c.ended_at < before)),
        ):
            key = next(iter(table.primary_key.columns))
            self._run(delete(table).where(key.in_(select(key).where(old).limit(at_most))))
        newest = select(schema.outputs.c.worker).order_by(schema.outputs.c.at.desc()).limit(OUTPUTS_KEPT)
        self._run(delete(schema.outputs).where(schema.outputs.c.worker.not_in(newest)))
