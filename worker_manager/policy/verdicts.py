"""What becomes of every job group in every pool: what `explain` shows.

A pair may have several rows: one for each share of the group's jobs that fares alike, and where the pool can never
serve the group one for each reason why not.
"""

from collections.abc import Iterator, Mapping, Sequence

from worker_manager.policy.awaited import held_by_platform
from worker_manager.policy.eligible import Eligibility
from worker_manager.policy.model import Verdict
from worker_manager.policy.packing import Placement
from worker_manager.policy.reasons import Reason, because
from worker_manager.policy.room import COMING, HELD, NEW, READY, RECALLED, SOON, Placed


def verdicts(
    placement: Placement,
    eligibility: Eligibility,
    launched: Mapping[str, int],
    held: Mapping[str, Reason],
) -> tuple[Verdict, ...]:
    """By group key, then by pool. `held` says for each pool why it launches no more than it does."""
    telling = _Telling(placement, eligibility, launched, held)
    groups = sorted(placement.groups, key=lambda placed: placed.group.key)
    return tuple(verdict for placed in groups for verdict in telling.of(placed))


class _Telling:
    def __init__(
        self,
        placement: Placement,
        eligibility: Eligibility,
        launched: Mapping[str, int],
        held: Mapping[str, Reason],
    ) -> None:
        self._eligibility = eligibility
        self._launched = launched
        self._held = held
        self._covered = {
            pool: dict(placement.covers(pool, count, count)[0]) if count else {} for pool, count in launched.items()
        }
        self._coming = {pool: len(placement.used(pool, COMING)) for pool in launched}
        self._platform = {pool: held_by_platform(placement.rooms[pool].standing, "room-held") for pool in launched}
        self._start_ms = {pool: placement.rooms[pool].standing.start_ms for pool in launched}
        self._elsewhere = {pool: because("elsewhere", pool=pool) for pool in launched}

    def of(self, placed: Placed) -> Iterator[Verdict]:
        group, key = placed.group, placed.group.key
        started = {pool: self._covered[pool].get(key, 0) for pool in placed.by_pool}
        waiting = placed.left + sum(jobs[NEW] - started[pool] for pool, jobs in placed.by_pool.items())
        offering = {offer.pool for offer in self._eligibility.offers(group)}
        for pool in self._eligibility.pools:
            name = pool.name
            jobs = placed.by_pool.get(name)
            if jobs:
                yield from self._placed(key, name, jobs, started[name])
            if name in offering:
                if waiting:
                    yield Verdict(key, name, "waiting", waiting, self._held[name])
                elif not jobs:
                    host = max(placed.by_pool, key=lambda pool: (sum(placed.by_pool[pool]), pool))
                    yield Verdict(key, name, "elsewhere", group.count, self._elsewhere[host])
            elif not jobs or (placed.left and not offering):
                for reason in self._eligibility.refusals(group, pool):
                    yield Verdict(key, name, "never", placed.left or group.count, reason)

    def _placed(self, key: str, pool: str, jobs: Sequence[int], started: int) -> Iterator[Verdict]:
        here, coming = jobs[HELD] + jobs[READY] + jobs[RECALLED], jobs[COMING]
        if here:
            yield Verdict(key, pool, "served", here, because("room-now", jobs=here))
        if coming:
            reason = because("room-coming", jobs=coming, workers=self._coming[pool])
            yield Verdict(key, pool, "launching", coming, self._platform[pool] or reason)
        if jobs[SOON]:
            reason = because("soon-done", jobs=jobs[SOON], start_ms=self._start_ms[pool])
            yield Verdict(key, pool, "served", jobs[SOON], reason)
        if started:
            reason = because("launching", workers=self._launched[pool], jobs=started)
            yield Verdict(key, pool, "launching", started, reason)
