"""What becomes of every job group in every pool: what `explain` shows.

A pair may have several rows: one for each share of the group's jobs that fares alike, and where the pool can never
serve the group one for each reason why not.
"""

from collections.abc import Iterator, Mapping

from worker_manager.policy.eligible import Eligibility
from worker_manager.policy.model import Verdict
from worker_manager.policy.packing import COMING, NEW, READY, RECALLED, Placed, Placement
from worker_manager.policy.reasons import Reason, because


def verdicts(
    placement: Placement,
    eligibility: Eligibility,
    launched: Mapping[str, int],
    held: Mapping[str, Reason],
) -> tuple[Verdict, ...]:
    """By group key, then by pool. `held` says for each pool why it launches no more than it does."""
    covered = {pool: dict(placement.covers(pool, 0, count)) for pool, count in launched.items()}
    coming = {pool: len(placement.used(pool, COMING)) for pool in launched}
    rows: list[Verdict] = []
    for placed in sorted(placement.groups, key=lambda placed: placed.group.key):
        rows += _group(placed, eligibility, launched, held, covered, coming)
    return tuple(rows)


def _group(
    placed: Placed,
    eligibility: Eligibility,
    launched: Mapping[str, int],
    held: Mapping[str, Reason],
    covered: Mapping[str, Mapping[str, int]],
    coming: Mapping[str, int],
) -> Iterator[Verdict]:
    group = placed.group
    key = group.key
    started = {pool: covered[pool].get(key, 0) for pool in placed.by_pool}
    waiting = placed.left + sum(jobs[NEW] - started[pool] for pool, jobs in placed.by_pool.items())
    host = max(placed.by_pool, key=lambda pool: (sum(placed.by_pool[pool]), pool), default="")
    for pool in eligibility.pools:
        name = pool.name
        jobs = placed.by_pool.get(name, (0, 0, 0, 0))
        here = jobs[READY] + jobs[RECALLED]
        if here:
            yield Verdict(key, name, "served", here, because("room-now", jobs=here))
        if jobs[COMING]:
            reason = because("room-coming", jobs=jobs[COMING], workers=coming[name])
            yield Verdict(key, name, "launching", jobs[COMING], reason)
        if started.get(name):
            reason = because("launching", workers=launched[name], jobs=started[name])
            yield Verdict(key, name, "launching", started[name], reason)
        refusals = eligibility.refusals(group, pool)
        if refusals:
            if not any(jobs):
                for reason in refusals:
                    yield Verdict(key, name, "never", group.count, reason)
        elif waiting:
            yield Verdict(key, name, "waiting", waiting, held[name])
        elif not any(jobs):
            yield Verdict(key, name, "elsewhere", group.count, because("elsewhere", pool=host))
