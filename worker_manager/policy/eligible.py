"""Which pool could serve which job group at all, and how well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.protocol import Misfit, Shape, fits
from worker_manager.policy.bins import UNLIMITED, Bins, Suits
from worker_manager.policy.model import JobGroup, PoolView
from worker_manager.policy.reasons import Reason, because

_AMOUNTS = {"cpus": "cpus", "memory": "bytes", "disk": "bytes", "walltime": "ms"}
_PLAIN = ("gpus", "gpu_type", "tags", "can")


@dataclass(frozen=True, slots=True)
class Offer:
    """A pool that could serve a group: how many of its jobs one new worker holds."""

    pool: str
    per_worker: int


class Eligibility:
    """Answers for one snapshot, each worked out once. `shapes` are those of new workers."""

    def __init__(self, pools: Sequence[PoolView], shapes: Mapping[str, Shape], suits: Suits) -> None:
        self.pools = tuple(pools)
        self._shapes = shapes
        self._suits = suits
        self._empty = {
            pool.name: Bins(0, 1, shapes[pool.name], pool.runs_per_worker or UNLIMITED) for pool in self.pools
        }
        self._offers: dict[str, tuple[Offer, ...]] = {}
        self._of_kind: dict[tuple[Shape, str, str], tuple[Offer, ...]] = {}  # most groups ask what others ask

    def offers(self, group: JobGroup) -> tuple[Offer, ...]:
        """The pools that could serve the group, the best match first."""
        offers = self._offers.get(group.key)
        if offers is None:
            kind = (group.asks, group.owner, group.queue)
            if kind not in self._of_kind:
                self._of_kind[kind] = self._rated(group)
            offers = self._offers[group.key] = self._of_kind[kind]
        return offers

    def _rated(self, group: JobGroup) -> tuple[Offer, ...]:
        found = [(pool, self._per_worker(group, pool)) for pool in self.pools if serves(pool, group)]
        rated = [(self._score(group.asks, pool, count), count) for pool, count in found if count]
        return tuple(Offer(score[-1], count) for score, count in sorted(rated))

    def refusals(self, group: JobGroup, pool: PoolView) -> tuple[Reason, ...]:
        """Every reason why the pool can never serve the group."""
        reasons = []
        if pool.owners and group.owner not in pool.owners:
            reasons.append(because("owner", owners=", ".join(pool.owners), owner=group.owner))
        if pool.queues and group.queue not in pool.queues:
            reasons.append(because("queue", queues=", ".join(pool.queues), queue=group.queue))
        return (*reasons, *(_misfit(misfit) for misfit in fits(group.asks, self._shapes[pool.name])))

    def _per_worker(self, group: JobGroup, pool: PoolView) -> int:
        if not self._suits(group.asks, self._shapes[pool.name]):
            return 0
        return self._empty[pool.name].holds(group.asks, UNLIMITED)

    def _score(self, asks: Shape, pool: PoolView, per_worker: int) -> tuple[int, int, float, str]:
        """The smaller the better: no GPU wasted, no tag that nobody asked for, a worker well used; then the name."""
        shape = self._shapes[pool.name]
        wasted_gpus = int(shape.gpus > 0 and asks.gpus == 0)
        unasked_tags = len(set(shape.tags).difference(asks.tags)) if shape.tags else 0
        return (wasted_gpus, unasked_tags, -_used(asks, shape, per_worker), pool.name)


def serves(pool: PoolView, group: JobGroup) -> bool:
    return (not pool.owners or group.owner in pool.owners) and (not pool.queues or group.queue in pool.queues)


def _used(asks: Shape, shape: Shape, jobs: int) -> float:
    """The mean share of a worker, over what it has, that as many such jobs as fit make use of."""
    pairs = [(asks.cpus, shape.cpus), (asks.memory, shape.memory), (asks.gpus, shape.gpus)]
    shares = [min(1.0, jobs * asked / has) for asked, has in pairs if has > 0]
    return round(sum(shares) / len(shares), 6) if shares else 0.0


def _misfit(misfit: Misfit) -> Reason:
    name = misfit.resource
    if name in _AMOUNTS:
        unit = _AMOUNTS[name]
        return because(name, **{f"asked_{unit}": misfit.asked, f"has_{unit}": misfit.has})
    if name in _PLAIN:
        return because(name, asked=misfit.asked, has=misfit.has)
    return because("custom", resource=name, asked=misfit.asked, has=misfit.has)
