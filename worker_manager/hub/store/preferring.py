"""Jobs and the workers that hold their inputs, read from the tables: what `preference` decides, put to work.

All of it is passed over for groups without inputs and for workers of whose cache nothing is known.
"""

from collections.abc import Sequence
from itertools import groupby

from sqlalchemy import bindparam, select

from worker_manager.hub.match import Candidate
from worker_manager.hub.preference import (
    INPUTS,
    WINDOW,
    Turn,
    in_order,
    overtaken,
    share_of,
)
from worker_manager.hub.store.choices import Choices, Chosen
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.queue import Head, queue_head
from worker_manager.hub.store.tables import HUNGRY_SQL, QUEUED_SQL, groups, workers
from worker_manager.hub.store.values import shape_of

GROUPS, HEADS, HOLDERS, ASKED = 16, 8, 4, 16  # how far workers are looked for that hold what the first jobs need

_FIRST_GROUPS = (
    select(groups.c.id, groups.c.asks)
    .where(QUEUED_SQL)
    .order_by(groups.c.priority.desc(), groups.c.oldest, groups.c.id)
    .limit(GROUPS)
)
_HUNGRY = select(workers.c.id).where(HUNGRY_SQL, workers.c.id.in_(bindparam("names", expanding=True)))


# ---------------------------------------------------------------- the jobs that a worker is offered


class Offer:
    """The head of a queue as one worker is offered it."""

    def __init__(self, heads: Sequence[Head], turns: Sequence[Turn], most: int) -> None:
        units = [list(each) for _, each in groupby(heads, key=_unit)]
        offered = [(index, head) for index in in_order(turns) for head in units[index]][:most]
        self.heads: list[Head] = [head for _, head in offered]
        self._of = [index for index, _ in offered]  # the turn of each head
        self._turns = turns

    def took(self, choices: Choices, worker: str, taken: Sequence[int]) -> None:
        """These of `heads`. Who was passed over for them is remembered."""
        by_turn: dict[int, int] = {}
        for index in taken:
            turn = self._of[index]
            by_turn[turn] = by_turn.get(turn, 0) + 1
            row, task = self.heads[index]
            held = self._turns[turn].share.held
            if held:
                epoch, idx = (row.epoch + 1, row.idx) if task is None else (1, task)
                choices.note(row.id, idx, Chosen(epoch, worker, held))
        passed = overtaken(self._turns, by_turn)
        choices.patience.took([self._turns[turn].job for turn in by_turn])
        for turn, by in passed.items():
            choices.patience.passed(self._turns[turn].job, by)
        first = min(passed, default=len(self._turns))
        choices.made += sum(count for turn, count in by_turn.items() if turn > first and self._turns[turn].share.held)


def offer(moves: Moves, worker: str, candidate: Candidate, most: int) -> Offer | None:
    """None: the queue's own order is right for this worker."""
    holds = moves.choices.inventory.held_by(worker)
    if not holds or INPUTS not in candidate.asks.can:
        return None
    heads = queue_head(moves, candidate.group, max(most, WINDOW))
    rows = [next(each)[0] for _, each in groupby(heads, key=_unit)]
    wants = moves.choices.wants(moves.connection, list({row.id: None for row in rows}))
    shares = {number: share_of(each, holds) for number, each in wants.items()}
    passed = moves.choices.patience.of
    turns = [Turn((row.id, row.idx), row.priority, shares[row.id], passed((row.id, row.idx))) for row in rows]
    return Offer(heads, turns, most)


def _unit(head: Head) -> tuple[int, int]:
    """Tasks of an array that are not opened yet go together."""
    return head[0].id, head[0].idx


# ---------------------------------------------------------------- the workers that are asked first


def hungry_holders(moves: Moves) -> list[str]:
    """Workers with room that hold what the first jobs of the first groups need; who holds most of it first."""
    inventory = moves.choices.inventory
    if inventory.is_empty:
        return []
    found: dict[str, None] = {}
    for group in moves.connection.execute(_FIRST_GROUPS).all():
        if INPUTS not in shape_of(group.asks).can:
            continue
        heads = queue_head(moves, group.id, HEADS)
        for wants in moves.choices.wants(moves.connection, list({row.id: None for row, _ in heads})).values():
            holders = inventory.holders_of(want.mark for want in wants)
            found.update(dict.fromkeys(sorted(holders, key=lambda name: (-holders[name], name))[:HOLDERS]))
    if not found:
        return []
    hungry = set(moves.connection.execute(_HUNGRY, {"names": list(found)}).scalars())
    return [name for name in found if name in hungry][:ASKED]
