"""How long jobs run: a cautious guess for each program, from what its runs took. Pure, kept in memory.

A *program* is one owner's command under one name: tasks of an array share it, and so do equal jobs sent one by one. Of
a program that never ended a run nothing is known, and nothing is guessed. The guess is a tail, not the mean: 19 of 20
runs were shorter, and runs that go on for longer already count with them. A restart forgets it all; the next runs teach
it again.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

PROGRAMS = 50_000  # kept; then the longest unused half is forgotten
WINDOW = 256  # runs that count; then older ones weigh half
OUTSIDE = 20  # one run in so many may be longer than the guess
LEAST_US = 500  # a run of 0 ms


def program_of(owner: str, name: str, command: Sequence[str]) -> int:
    """A number that fits into 63 bits."""
    text = json.dumps((owner, name, *command), separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Runs:
    """What the runs of one program took, in powers of two of microseconds."""

    __slots__ = ("_counts", "_total", "tail_us")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0
        self.tail_us = 0

    def add(self, run_us: int) -> None:
        _count(self._counts, run_us)
        self._total += 1
        if self._total > WINDOW:
            self._counts = {power: count // 2 for power, count in self._counts.items() if count > 1}
            self._total = sum(self._counts.values())
        self.tail_us = _tail(self._counts, self._total)

    def tail_with(self, more: Sequence[int]) -> int:
        """As if runs that have not ended yet had ended now."""
        counts = dict(self._counts)
        for run_us in more:
            _count(counts, run_us)
        return max(self.tail_us, _tail(counts, self._total + len(more)))


def _count(counts: dict[int, int], run_us: int) -> None:
    power = max(LEAST_US, run_us - 1).bit_length()
    counts[power] = counts.get(power, 0) + 1


def _tail(counts: dict[int, int], total: int) -> int:
    longer = 0
    for power in sorted(counts, reverse=True):
        longer += counts[power]
        if longer > total // OUTSIDE:
            return 1 << power
    return 0


class RunTimes:
    """All programs' runs, and what the newest job looked at in each group was guessed at. One thread uses it."""

    def __init__(self) -> None:
        self._programs: dict[int, Runs] = {}
        self._late: dict[int, int] = {}
        self._heads: dict[int, int | None] = {}

    def ran(self, program: int | None, run_ms: int) -> None:
        if program is None:
            return
        runs = self._programs.pop(program, None) or Runs()
        self._programs[program] = runs  # the newest used stands last
        if len(self._programs) > PROGRAMS:
            for old in list(self._programs)[: PROGRAMS // 2]:
                del self._programs[old]
        runs.add(run_ms * 1000)

    def usual_us(self, program: int | None) -> int | None:
        """For a job that runs: how long after its start it ends, as ended runs tell. None: unknown."""
        runs = None if program is None else self._programs.get(program)
        return None if runs is None else runs.tail_us

    def guess_us(self, program: int | None) -> int | None:
        """For a job that has not started: what goes on for longer than usual counts too. None: unknown."""
        if program is None or (runs := self._programs.get(program)) is None:
            return None
        return self._late.get(program, 0) or runs.tail_us

    def go_on(self, running: Iterable[tuple[int, int]]) -> None:
        """(program, microseconds so far) of everything that runs now, in place of what was said before."""
        longer: dict[int, list[int]] = {}
        for program, so_far_us in running:
            runs = self._programs.get(program)
            if runs is not None and so_far_us > runs.tail_us:
                longer.setdefault(program, []).append(so_far_us)
        self._late = {program: self._programs[program].tail_with(late) for program, late in longer.items()}

    # How many jobs of a group are worth a look for working ahead depends on how long they run, which is only known once
    # they are looked at: the last look tells.

    def head_us(self, group: int) -> int | None:
        return self._heads.get(group)

    def looked(self, group: int, run_us: int | None) -> None:
        if run_us is None:
            self._heads.pop(group, None)
        else:
            if len(self._heads) > PROGRAMS:
                self._heads.clear()
            self._heads[group] = run_us
