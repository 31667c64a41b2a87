"""Launches of managers: claims with join tokens and coverage, and burials."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from worker_manager.hub.contract import EVERYONE, Claim
from worker_manager.hub.match import Serves
from worker_manager.hub.refusals import Conflict, CoverageTaken, Invalid
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.tables import coverage, groups, intents
from worker_manager.hub.store.values import serves_text

_OF_SUBMISSION = select(intents).where(intents.c.submission == bindparam("of")).order_by(intents.c.worker)
# What open intents of others still cover: in proportion to those of the submission that have not come yet, rounded up.
_SHARE = (coverage.c.jobs * coverage.c.open + coverage.c.workers - 1) // coverage.c.workers
_COVERED = (
    select(coverage.c.group_key, func.sum(_SHARE))
    .where(coverage.c.manager != bindparam("but"), coverage.c.open > 0)
    .group_by(coverage.c.group_key)
)
_COUNTS = select(groups.c.key, groups.c.queued + groups.c.unstarted).where(
    groups.c.key.in_(bindparam("wanted", expanding=True))
)


def covered_by_others(connection: Any, manager: str) -> dict[str, int]:
    """Group key → jobs that other managers launch for."""
    return {key: int(jobs) for key, jobs in connection.execute(_COVERED, {"but": manager})}


def claim_launch(moves: Moves, manager: str, owner: str, claim: Claim) -> None:
    tokens = _tokens(claim)
    before = moves.connection.execute(_OF_SUBMISSION, {"of": claim.submission}).all()
    if before:
        _same(manager, claim, tokens, before)
        return
    taken = moves.connection.execute(select(intents.c.worker).where(intents.c.worker.in_(claim.workers))).first()
    if taken:
        raise Conflict(f"{taken.worker} is the name of another launch's worker", code="worker-exists")
    known = moves.connection.execute(select(intents.c.worker).where(intents.c.token_sha256.in_(tokens))).first()
    if known:
        raise Conflict("a token of this claim is another launch's: each worker has one of its own", code="token-exists")
    _refuse_covered(moves, manager, claim)
    moves.connection.execute(
        insert(intents),
        [
            {
                "worker": worker,
                "submission": claim.submission,
                "manager": manager,
                "pool": claim.pool,
                "owner": owner,
                "token_sha256": token,
                "state": "open",
                "call_deadline": claim.call_deadline,
                "serves": serves_text(_served(claim, owner)),
                "created_ms": moves.batch.now,
                "joins_by": claim.identity or None,
            }
            for worker, token in zip(claim.workers, tokens, strict=True)
        ],
    )
    covers: dict[str, int] = {}
    for key, jobs in claim.covers:
        covers[key] = covers.get(key, 0) + jobs
    if covers:
        moves.connection.execute(
            insert(coverage),
            [
                {
                    "submission": claim.submission,
                    "group_key": key,
                    "manager": manager,
                    "jobs": jobs,
                    "workers": len(claim.workers),
                    "open": len(claim.workers),
                }
                for key, jobs in covers.items()
            ],
        )
        moves.batch.backlog_changed = True  # for the other managers
    moves.event("launch.claimed", claim.submission, manager=manager, pool=claim.pool, workers=len(claim.workers))


def _tokens(claim: Claim) -> tuple[str, ...]:
    """What stands for each worker's token; for one that joins by its identity something that no hash is like."""
    if not claim.workers or len(claim.token_hashes) != (0 if claim.identity else len(claim.workers)):
        raise Invalid("a claim names at least one worker, and a token hash for each or, by identity, for none")
    return claim.token_hashes or tuple(
        f"identity-{sha256(worker.encode()).hexdigest()}"[:64] for worker in claim.workers
    )


def _served(claim: Claim, owner: str) -> Serves:
    """A pool that does not say whom it serves serves its manager's owner."""
    owners = claim.owners or ((owner,) if owner else ())
    return Serves(() if EVERYONE in owners else owners, claim.queues)


def _same(manager: str, claim: Claim, tokens: Sequence[str], before: Sequence[Any]) -> None:
    known = {row.worker: row.token_sha256 for row in before}
    if known != dict(zip(claim.workers, tokens, strict=True)) or before[0].manager != manager:
        raise Conflict(f"{claim.submission} was claimed before, with other workers", code="submission-exists")


def _refuse_covered(moves: Moves, manager: str, claim: Claim) -> None:
    """Only what *another* manager covers stands in the way: a manager knows its own launches."""
    others = covered_by_others(moves.connection, manager)
    wanted = [key for key, _ in claim.covers if key in others]
    if not wanted:
        return
    counts = {row[0]: int(row[1]) for row in moves.connection.execute(_COUNTS, {"wanted": wanted})}
    for key, jobs in claim.covers:
        there = counts.get(key, 0)
        if key in others and others[key] + jobs > there:
            raise CoverageTaken(
                f"of {there} jobs of group {key} another manager launches for {others[key]} already: "
                f"{jobs} more are not there"
            )


def close_coverage(moves: Moves, submission: str, workers: int) -> None:
    """So many of its workers are not awaited any more: they came, or were given up."""
    moves.connection.execute(
        update(coverage).where(coverage.c.submission == submission).values(open=coverage.c.open - workers)
    )
    moves.connection.execute(delete(coverage).where(coverage.c.submission == submission, coverage.c.open <= 0))


def bury(moves: Moves, manager: str, names: Sequence[str], reason: str) -> list[str]:
    """Those that are given up now or were before; none that has registered."""
    if not names:
        return []
    known = moves.connection.execute(select(intents).where(intents.c.worker.in_(names))).all()
    rows = [row for row in known if row.manager == manager]
    opened = [row for row in rows if row.state == "open"]
    for row in opened:
        moves.connection.execute(update(intents).where(intents.c.worker == row.worker).values(state="buried"))
        close_coverage(moves, row.submission, 1)
        moves.event("launch.buried", row.worker, manager=manager, reason=reason)
    if opened:
        moves.batch.backlog_changed = True
    unknown = sorted(set(names) - {row.worker for row in known})
    for name in unknown:
        _bury_unknown(moves, manager, name)
    given_up = {*unknown, *(row.worker for row in rows if row.state != "registered")}
    return [name for name in names if name in given_up]


def _bury_unknown(moves: Moves, manager: str, name: str) -> None:
    """An intent that never reached the hub: a claim that comes late, from a leader that slept, is refused."""
    moves.connection.execute(
        insert(intents),
        {
            "worker": name,
            "submission": f"buried-{name}",
            "manager": manager,
            "pool": "",
            "owner": "",
            "token_sha256": f"buried-{name}",
            "state": "buried",
            "call_deadline": 0,
            "serves": serves_text(Serves()),
            "created_ms": moves.batch.now,
        },
    )
