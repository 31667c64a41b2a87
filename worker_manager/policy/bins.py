"""Rows of workers with room, and the search for the tightest of them that still holds a job.

Equal workers that stand next to each other in a row are one bin class, and a group of jobs takes from a class in one
step, however many jobs it has. The classes stand in buckets by free GPUs and CPUs, in each by free memory: a search
for room that is not there looks at the buckets only, never at the workers.
"""

from bisect import bisect_left, insort
from collections.abc import Callable

from worker.protocol import Shape, fits

UNLIMITED = 1 << 40

Took = Callable[[int, int, int], None]  # from worker number, so many workers, so many jobs on each


class Bins:
    """Some equal workers, next to each other in their row, and what is free on each."""

    __slots__ = ("count", "cpus", "custom", "disk", "gpus", "kind", "memory", "runs", "start")

    def __init__(self, start: int, count: int, free: Shape, runs: int) -> None:
        self.start = start
        self.count = count
        self.cpus = free.cpus
        self.memory = free.memory
        self.gpus = free.gpus
        self.disk = free.disk
        self.custom = free.custom
        self.kind = free  # of which only what is no amount is asked: tags, type of GPU, walltime
        self.runs = runs  # jobs that each may still take before it exits

    def holds(self, asks: Shape, at_most: int) -> int:
        """How many such jobs fit on each worker, by amounts alone."""
        count = min(at_most, self.runs)
        if asks.cpus > 0:
            count = min(count, self.cpus // asks.cpus)
        if asks.memory > 0:
            count = min(count, self.memory // asks.memory)
        if asks.gpus > 0:
            count = min(count, self.gpus // asks.gpus)
        if asks.disk > 0:
            count = min(count, self.disk // asks.disk)
        if asks.custom:
            has = dict(self.custom)
            count = min([count, *(has.get(name, 0) // amount for name, amount in asks.custom if amount > 0)])
        return max(count, 0)

    def split(self, skip: int, count: int, asks: Shape, jobs: int) -> "Bins":
        """`count` of these workers, after the first `skip`, each with `jobs` more jobs on it."""
        part = Bins.__new__(Bins)
        part.start, part.count = self.start + skip, count
        part.cpus = self.cpus - jobs * asks.cpus
        part.memory = self.memory - jobs * asks.memory
        part.gpus = self.gpus - jobs * asks.gpus
        part.disk = self.disk - jobs * asks.disk
        part.custom = self.custom
        if asks.custom and jobs:
            spent = dict(asks.custom)
            part.custom = tuple((name, has - jobs * spent.get(name, 0)) for name, has in self.custom)
        part.kind = self.kind
        part.runs = self.runs - jobs
        return part


class Suits:
    """Whether a job and a worker go together in all that is no amount. Asked once for each pair of kinds."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], bool] = {}

    def __call__(self, asks: Shape, has: Shape) -> bool:
        asked = (asks.gpu_type if asks.gpus else "", asks.walltime, asks.tags, asks.can)
        pair = (asked, has.gpu_type, has.walltime, has.tags, has.exclusive, has.can)
        known = self._known.get(pair)
        if known is None:
            kind = Shape(cpus=0, walltime=asks.walltime, tags=asks.tags, can=asks.can)
            known = not fits(kind, has) and (not asked[0] or asked[0] == has.gpu_type)
            self._known[pair] = known
        return known


class Row:
    """The workers of one kind in one pool, being filled."""

    def __init__(self, suits: Suits) -> None:
        self._suits = suits
        self._keys: list[tuple[int, int]] = []
        self._buckets: dict[tuple[int, int], list[tuple[int, int, Bins]]] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, bins: Bins) -> None:
        if bins.count <= 0 or bins.runs <= 0 or bins.cpus < 0 or bins.memory < 0:
            return
        key = (bins.gpus, bins.cpus)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = []
            insort(self._keys, key)
        insort(bucket, (bins.memory, bins.start, bins))

    def fill(self, asks: Shape, jobs: int, took: Took) -> int:
        """Put up to `jobs` jobs onto the tightest workers that hold them. Returns how many found no room."""
        changed: list[Bins] = []
        for key in self._keys[bisect_left(self._keys, (asks.gpus, asks.cpus)) :]:
            if jobs <= 0:
                break
            bucket = self._buckets[key]
            if key[1] < asks.cpus or bucket[-1][0] < asks.memory:
                continue
            jobs = self._from(bucket, asks, jobs, took, changed)
            if not bucket:
                del self._buckets[key]
                self._keys.remove(key)
        for bins in changed:
            self.add(bins)
        return jobs

    def _from(
        self, bucket: list[tuple[int, int, Bins]], asks: Shape, jobs: int, took: Took, changed: list[Bins]
    ) -> int:
        at = bisect_left(bucket, (asks.memory,))
        while jobs > 0 and at < len(bucket):
            bins = bucket[at][2]
            each = bins.holds(asks, jobs) if self._suits(asks, bins.kind) else 0
            if not each:
                at += 1
                continue
            del bucket[at]
            jobs = _load(bins, asks, each, jobs, took, changed)
        return jobs


def _load(bins: Bins, asks: Shape, each: int, jobs: int, took: Took, changed: list[Bins]) -> int:
    """`each` jobs on every worker of a class, or on as many of them as there are jobs for."""
    full = min(bins.count, jobs // each)
    rest = jobs - full * each if full < bins.count else 0
    took(bins.start, full, each)
    changed.append(bins.split(0, full, asks, each))
    if rest:
        took(bins.start + full, 1, rest)
        changed.append(bins.split(full, 1, asks, rest))
    loaded = full + (1 if rest else 0)
    changed.append(bins.split(loaded, bins.count - loaded, asks, 0))
    return jobs - full * each - rest
