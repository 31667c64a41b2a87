"""Job groups: jobs alike in everything that matters for placing them share a key. Pure.

A key is coarse (amounts rounded up), but a group keeps the exact bounds of its members: `asks` is the largest of each
amount among them, `floor` the smallest. So a group of equal jobs is exact, and a mixed one errs upward.
When there are too many groups, new ones are rounded more and more coarsely; what cannot be merged (owner, queue, tags,
kinds of GPU) is then refused rather than mixed up.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from worker.protocol import Shape

VERSION = 1
LEVELS = 4
_STEPS = (8, 1, 1, 1)  # roundings between a power and the next
_BASE = (1, 1, 2, 4)  # log2 of the power, by level
_FULL_AT = (80, 90, 95, 100)  # per cent of all groups from which on this level opens no new one
_WALLTIMES = (60_000, 600_000, 3_600_000, 4 * 3_600_000, 24 * 3_600_000, 7 * 24 * 3_600_000)
_PRIORITY_STEP = (1, 1, 25, 100)


@dataclass(frozen=True, slots=True)
class Kind:
    """What of a job decides its group."""

    owner: str
    queue: str
    priority: int
    shape: Shape


def round_up(amount: int, level: int) -> int:
    """The next of the amounts that this level knows: eight in every octave at level 0, then powers of 2, 4 and 16."""
    if amount <= 0:
        return 0
    base, steps = _BASE[level], _STEPS[level]
    exponent = (amount - 1).bit_length()
    exponent += -exponent % base
    upper = 1 << exponent
    if steps == 1 or upper <= steps:
        return upper if steps == 1 else amount
    lower = upper >> base
    step = max(1, (upper - lower) // steps)
    return lower + -(-(amount - lower) // step) * step


def walltime_class(walltime: int | None, level: int) -> int:
    """−1: unlimited, which never mixes with a limit; else the class's number."""
    if walltime is None:
        return -1
    if level >= 2:
        return 0
    exact = next((i for i, upper in enumerate(_WALLTIMES) if walltime <= upper), len(_WALLTIMES))
    return exact if level == 0 else exact // 3


def priority_class(priority: int, level: int) -> int:
    step = _PRIORITY_STEP[level]
    return -(-priority // step) * step


def key_of(kind: Kind, level: int = 0) -> str:
    shape = kind.shape
    alike = (
        kind.owner,
        kind.queue,
        priority_class(kind.priority, level),
        round_up(shape.cpus, level),
        round_up(shape.memory, level),
        round_up(shape.gpus, level),
        shape.gpu_type,
        round_up(shape.disk, level),
        walltime_class(shape.walltime, level),
        shape.tags,
        [(name, round_up(count, level)) for name, count in shape.custom],
        *((shape.can,) if shape.can else ()),
    )
    digest = hashlib.sha256(json.dumps(alike, separators=(",", ":")).encode()).hexdigest()
    return f"g{VERSION}.{level}.{digest[:20]}"


def place(kind: Kind, known: Callable[[str], bool], groups: int, limit: int) -> str | None:
    """The key of the group for it: the finest that is known already or may still be opened; None when it is full."""
    for level in range(LEVELS):
        key = key_of(kind, level)
        if known(key) or groups * 100 < limit * _FULL_AT[level]:
            return key
    return None


def bound(asks: Shape, shape: Shape) -> Shape:
    """The smallest shape that both fit into."""
    if asks == shape:
        return asks
    return _merged(asks, shape, max)


def floor(least: Shape, shape: Shape) -> Shape:
    """The largest shape that fits into both."""
    if least == shape:
        return least
    return _merged(least, shape, min)


def _merged(a: Shape, b: Shape, pick: Callable[[int, int], int]) -> Shape:
    walltime = None if a.walltime is None or b.walltime is None else pick(a.walltime, b.walltime)
    mine, theirs = dict(a.custom), dict(b.custom)
    custom = tuple((n, pick(mine.get(n, 0), theirs.get(n, 0))) for n in sorted({*mine, *theirs}))
    return replace(
        a,
        cpus=pick(a.cpus, b.cpus),
        memory=pick(a.memory, b.memory),
        gpus=pick(a.gpus, b.gpus),
        disk=pick(a.disk, b.disk),
        walltime=walltime,
        custom=custom,
    )


def smoothed(average: int | None, runs: int, total_ms: int) -> int | None:
    """The moving average of a group's run time after `runs` more jobs that took `total_ms` together. Microseconds,
    so that jobs of a millisecond are told from jobs of none."""
    if runs <= 0:
        return average
    mean = total_ms * 1000 // runs
    if average is None:
        return mean
    kept = 0.8 ** min(runs, 50)
    return round(average * kept + mean * (1 - kept))
