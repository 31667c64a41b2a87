"""Which of the jobs at the head of a queue go first to a worker: those whose inputs it holds. Pure.

Only among the first few of the queue, within one priority, and never for ever: a job that so many others have overtaken
is due, and is overtaken no more. Jobs of which the worker holds equally much keep their order.
"""

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker.files import input_digest, input_key, input_scope
from worker_manager.hub.inventory import Mark, mark_of

WINDOW = 64  # jobs at the head of a queue that may go first
MOST_PASSES = 64  # jobs that may overtake one of them
INPUTS = "inputs"  # what a worker must be able to do for a job that has some
REMEMBERED = 100_000  # jobs that were overtaken


class Want(NamedTuple):
    """One input, as the inventory marks it."""

    mark: Mark
    size: int | None  # unknown


class Share(NamedTuple):
    """How much of a job's inputs a worker holds."""

    permille: int = 0
    held: int = 0  # bytes


NONE_HELD = Share()


@dataclass(frozen=True, slots=True)
class Turn:
    """One job, or array, at the head of a queue."""

    job: Hashable
    priority: int
    share: Share = NONE_HELD
    passed: int = 0  # jobs that have overtaken it


def wants_of(inputs: Iterable[Mapping[str, Any]], owner: str) -> tuple[Want, ...]:
    """Those inputs of which it is known what they are; the others may be anything."""
    found = {}
    for one in inputs:
        digest = input_digest(one)
        if digest:
            scope = input_scope(str(one.get("source") or ""), owner)
            mark = mark_of(scope, input_key(digest, bool(one.get("unpack"))))
            found[mark] = Want(mark, one.get("size"))
    return tuple(found.values())


def share_of(wants: Sequence[Want], holds: Mapping[Mark, int]) -> Share:
    """An input that is not there and whose size nobody knows counts like the mean of the others."""
    there = [holds[want.mark] for want in wants if want.mark in holds]
    if not there:
        return NONE_HELD
    away = [want.size for want in wants if want.mark not in holds]
    held, known = sum(there), [size for size in away if size is not None]
    mean = (held + sum(known)) // (len(there) + len(known))
    whole = held + sum(known) + mean * (len(away) - len(known))
    part = held * 1000 // whole if whole else len(there) * 1000 // len(wants)
    return Share(max(1, part), held)


def in_order(turns: Sequence[Turn]) -> list[int]:
    """The indexes of these, which stand as in the queue, in the order in which they are offered."""

    def place(index: int) -> tuple[int, int, int]:
        turn = turns[index]
        return (-turn.priority, 0, 0) if turn.passed >= MOST_PASSES else (-turn.priority, 1, -turn.share.permille)

    return sorted(range(len(turns)), key=place)


def overtaken(turns: Sequence[Turn], taken: Mapping[int, int]) -> dict[int, int]:
    """Of those that were not taken: by how many jobs each was overtaken. `taken`: index → jobs of it that were (an
    array gives several)."""
    found: dict[int, int] = {}
    behind = 0
    for index in range(len(turns) - 1, -1, -1):
        if index in taken:
            behind += taken[index]
        elif behind:
            found[index] = behind
    return found


class Patience:
    """By how many jobs each waiting job was overtaken. Kept in memory: a hub that starts again counts anew."""

    def __init__(self, at_most: int = REMEMBERED) -> None:
        self._at_most = at_most
        self._passed: OrderedDict[Hashable, int] = OrderedDict()

    def of(self, job: Hashable) -> int:
        return self._passed.get(job, 0)

    def took(self, jobs: Collection[Hashable]) -> None:
        if self._passed:
            for job in jobs:
                self._passed.pop(job, None)

    def passed(self, job: Hashable, by: int) -> None:
        self._passed[job] = self._passed.get(job, 0) + by
        self._passed.move_to_end(job)
        if len(self._passed) > self._at_most:
            self._passed.popitem(last=False)
