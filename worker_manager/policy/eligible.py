"""Which pool could serve which job group at all, and how well. Cheap: equal questions are asked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.protocol import Misfit, Shape, fits, how_many
from worker_manager.policy.model import JobGroup, PoolView
from worker_manager.policy.reasons import Reason, because

_AMOUNTS = {"cpus": "cpus", "memory": "bytes", "disk": "bytes", "walltime": "ms"}
_PLAIN = ("gpus", "gpu_type", "tags")
FULL_SCORE_JOBS = 1 << 30


@dataclass(frozen=True, slots=True)
class Offer:
    """A pool that could serve a group: how many of its jobs one new worker holds, and how good the match is."""

    pool: str
    per_worker: int
    score: tuple[int, int, float, str]  # the smaller the better


class Eligibility:
    """Answers for one snapshot. `shapes` are those of new workers."""

    def __init__(self, pools: Sequence[PoolView], shapes: Mapping[str, Shape]) -> None:
        self.pools = tuple(pools)
        self._shapes = shapes
        self._offers: dict[tuple[Shape, str, str], tuple[Offer, ...]] = {}
        self._refusals: dict[tuple[Shape, str, str, str], tuple[Reason, ...]] = {}

    def offers(self, group: JobGroup) -> tuple[Offer, ...]:
        """The pools that could serve the group, best first."""
        question = (group.asks, group.owner, group.queue)
        if question not in self._offers:
            found = [self._offer(group, pool) for pool in self.pools if not self.refusals(group, pool)]
            self._offers[question] = tuple(sorted(found, key=lambda offer: offer.score))
        return self._offers[question]

    def refusals(self, group: JobGroup, pool: PoolView) -> tuple[Reason, ...]:
        """Every reason why the pool can never serve the group; empty when it can."""
        question = (group.asks, group.owner, group.queue, pool.name)
        if question not in self._refusals:
            shape = self._shapes[pool.name]
            self._refusals[question] = (
                *_not_for(group, pool),
                *(_misfit(misfit) for misfit in fits(group.asks, shape)),
            )
        return self._refusals[question]

    def _offer(self, group: JobGroup, pool: PoolView) -> Offer:
        shape, asks = self._shapes[pool.name], group.asks
        runs = pool.runs_per_worker or FULL_SCORE_JOBS
        per_worker = max(1, how_many(asks, shape, runs))
        wasted_gpus = int(shape.gpus > 0 and asks.gpus == 0)
        unasked_tags = len(set(shape.tags) - set(asks.tags))
        return Offer(pool.name, per_worker, (wasted_gpus, unasked_tags, -_used(asks, shape, per_worker), pool.name))


def _used(asks: Shape, shape: Shape, jobs: int) -> float:
    """The mean share of a worker, over what it has, that as many such jobs as fit make use of."""
    pairs = [(asks.cpus, shape.cpus), (asks.memory, shape.memory), (asks.gpus, shape.gpus)]
    shares = [min(1.0, jobs * asked / has) for asked, has in pairs if has > 0]
    return round(sum(shares) / len(shares), 6) if shares else 0.0


def _not_for(group: JobGroup, pool: PoolView) -> tuple[Reason, ...]:
    reasons = []
    if pool.owners and group.owner not in pool.owners:
        reasons.append(because("owner", owners=", ".join(pool.owners), owner=group.owner))
    if pool.queues and group.queue not in pool.queues:
        reasons.append(because("queue", queues=", ".join(pool.queues), queue=group.queue))
    return tuple(reasons)


def _misfit(misfit: Misfit) -> Reason:
    name = misfit.resource
    if name in _AMOUNTS:
        unit = _AMOUNTS[name]
        return because(name, **{f"asked_{unit}": misfit.asked, f"has_{unit}": misfit.has})
    if name in _PLAIN:
        return because(name, asked=misfit.asked, has=misfit.has)
    return because("custom", resource=name, asked=misfit.asked, has=misfit.has)
