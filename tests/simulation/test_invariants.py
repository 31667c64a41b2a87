"""The promises of the manager, over virtual hours with faults of every kind.

The sample runs always; the sweep, over more seeds and thousands of hours, is `make soak`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from worker.protocol import Shape
from worker_manager.policy.facts import PoolSettings
from worker_manager.policy.model import Launch, Limits
from worker_manager.simulate import Faults, Moment, Result, SimJob, SimPool, Span, simulate

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
GiB = 2**30
SMALL, LARGE = Shape(cpus=4000, memory=16 * GiB), Shape(cpus=16000, memory=64 * GiB)

CALM = Faults()
ROUGH = Faults(
    refused=0.1,
    unanswered=0.1,
    dead_at_boot=0.1,
    crashes_an_hour=0.05,
    vanishings_an_hour=0.03,
    silences_an_hour=0.05,
    unreadable_backend=0.03,
    torn_listing=0.05,
    unreadable_backlog=0.03,
    unanswered_ends=0.2,
)
STORM = Faults(
    refused=0.5,
    unanswered=0.3,
    dead_at_boot=0.5,
    crashes_an_hour=1.0,
    vanishings_an_hour=0.5,
    silences_an_hour=1.0,
    unreadable_backend=0.3,
    torn_listing=0.3,
    unreadable_backlog=0.3,
    unanswered_ends=0.5,
)
WEATHERS = {"calm": CALM, "rough": ROUGH, "storm": STORM}


@dataclass
class Witness:
    """Looks at every tick and keeps what must not be."""

    most: dict[str, int]
    wrongs: list[str] = field(default_factory=list)

    def __call__(self, moment: Moment) -> None:
        for name, most in self.most.items():
            self._at_most(moment, name, most)
        self._launches_only_on_what_was_read(moment)
        self._reasons_everywhere(moment)

    def _at_most(self, moment: Moment, name: str, most: int) -> None:
        known = sum(1 for worker in moment.snapshot.workers if worker.pool == name)
        asked = sum(a.count for a in moment.plan.actions if isinstance(a, Launch) and a.pool == name)
        if asked and known + asked > most:
            self.wrongs.append(f"{moment.now}: {name} has {known} and asks for {asked} more, of {most}")
        if moment.alive[name] > most:
            self.wrongs.append(f"{moment.now}: {name} has {moment.alive[name]} of {most}")

    def _launches_only_on_what_was_read(self, moment: Moment) -> None:
        if moment.plan.actions and not moment.snapshot.backlog_readable:
            self.wrongs.append(f"{moment.now}: acts on a backlog that was not read")
        unread = {pool.name for pool in moment.snapshot.pools if not pool.readable}
        for action in moment.plan.actions:
            if action.pool in unread:
                self.wrongs.append(f"{moment.now}: acts on {action.pool}, which was not read")

    def _reasons_everywhere(self, moment: Moment) -> None:
        for line in moment.plan.pools:
            if not line.reasons or not all(reason.text for reason in line.reasons):
                self.wrongs.append(f"{moment.now}: {line.pool} decides without a reason")
        if moment.plan.next_due is not None and moment.plan.next_due <= moment.now:
            self.wrongs.append(f"{moment.now}: is due in the past")


def bursts(seed: int, hours: int, an_hour: float, shapes: Sequence[Shape]) -> list[SimJob]:
    """Quiet spells, single jobs and bursts of like ones."""
    dice = random.Random(seed)  # noqa: S311
    jobs: list[SimJob] = []
    at = 0.0
    while (at := at + dice.expovariate(an_hour / 5) * HOUR) < hours * HOUR:
        size = dice.choice((1, 1, 1, 2, 5, 20))
        shape, longest = dice.choice(shapes), dice.choice((MINUTE, 10 * MINUTE, 2 * HOUR))
        jobs += [SimJob(int(at), dice.randint(SECOND, longest), shape, priority=dice.choice((0, 0, 1)))] * size
    return jobs


ASKS = (Shape(cpus=1000, memory=GiB), Shape(cpus=500), Shape(cpus=4000, memory=8 * GiB))
ASKS_LARGE = (*ASKS, Shape(cpus=8000, memory=32 * GiB))


def world(kind: str) -> list[SimPool]:
    slow, quick = Span(MINUTE, 5 * MINUTE), Span(5 * SECOND, 30 * SECOND)
    small, large = Limits(max_workers=5), Limits(max_workers=3, cooldown_up_ms=MINUTE, cooldown_down_ms=MINUTE)
    return {
        "one pool": lambda: [SimPool(PoolSettings("p", "memory", SMALL, small), boot=quick)],
        "two pools": lambda: [
            SimPool(PoolSettings("p", "memory", SMALL, small, max_batch=4), boot=quick),
            SimPool(PoolSettings("q", "memory", LARGE, large), queue=Span(0, 30 * MINUTE), boot=slow, quota=2),
        ],
        "step": lambda: [
            SimPool(PoolSettings("p", "memory", SMALL, Limits(max_workers=4, cooldown_up_ms=MINUTE), law="step"))
        ],
        "few runs": lambda: [SimPool(PoolSettings("p", "memory", SMALL, small, runs_per_worker=3), boot=quick)],
        "less than promised": lambda: [
            SimPool(PoolSettings("p", "memory", SMALL, small), boot=quick, really=Shape(cpus=4000, memory=15 * GiB))
        ],
    }[kind]()


WORLDS = ("one pool", "two pools", "step", "few runs", "less than promised")


def run(kind: str, weather: str, seed: int, hours: int) -> tuple[Result, Witness, list[SimJob]]:
    pools = world(kind)
    jobs = bursts(seed, hours, 6, ASKS_LARGE if kind == "two pools" else ASKS)
    witness = Witness({pool.settings.name: pool.settings.limits.max_workers for pool in pools})
    # The storm passes with the last jobs, so that it can be seen that nothing was lost in it.
    faults = Faults(**{**vars(WEATHERS[weather]), "until": hours * HOUR})
    until = (hours + 40 * 24) * HOUR
    return simulate(pools, jobs, faults, seed=seed, until=until, watch=witness), witness, jobs


def check(kind: str, weather: str, seed: int, hours: int) -> None:
    result, witness, jobs = run(kind, weather, seed, hours)
    assert witness.wrongs == []
    assert result.busy_ended == 0, "a working worker was ended"
    assert result.done == len(jobs), "every job runs in the end"
    assert result.left == 0, "no worker is left when nothing is to be done"
    # Idle limit, exit, a hung worker found out and forced, and the listings that confirm it.
    assert result.last_gone_at - result.last_done_at <= 75 * MINUTE
    died = result.failures.total() + result.attempts - result.done + sum(result.ended.values())
    assert result.launched.total() <= len(jobs) + 3 * died + 10, "no flapping"


@pytest.mark.parametrize("weather", WEATHERS)
@pytest.mark.parametrize("kind", WORLDS)
def test_the_promises_hold(kind: str, weather: str) -> None:
    check(kind, weather, seed=7, hours=20 if weather == "storm" else 60)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weather", WEATHERS)
@pytest.mark.parametrize("kind", WORLDS)
def test_the_promises_hold_over_thousands_of_hours(kind: str, weather: str, seed: int) -> None:
    check(kind, weather, seed, hours={"calm": 2000, "rough": 1000, "storm": 200}[weather])


def test_the_same_seed_gives_the_same_run() -> None:
    first, second, other = (run("two pools", "rough", seed, 30)[0] for seed in (3, 3, 4))
    assert vars(first) == vars(second)
    assert vars(first) != vars(other)


@pytest.mark.parametrize("weather", ["calm", "rough"])
def test_the_minimum_is_kept_but_for_boot_and_failures(weather: str) -> None:
    limits = Limits(min_workers=2, max_workers=5, cooldown_up_ms=10 * MINUTE)
    pool = SimPool(PoolSettings("p", "memory", SMALL, limits), boot=Span(30 * SECOND, 90 * SECOND))
    below: list[tuple[int, int]] = []

    def watch(moment: Moment) -> None:
        live = sum(1 for worker in moment.hub.workers.values() if worker.state == "ready")
        below.append((moment.now, live))

    jobs = bursts(5, 200, 6, ASKS)
    result = simulate([pool], jobs, WEATHERS[weather], seed=5, until=200 * HOUR, watch=watch)
    since: int | None = None
    longest = 0
    for now, live in below:
        if live >= 2:
            since = None
        else:
            since = now if since is None else since
            longest = max(longest, now - since)
    assert result.done > 0
    assert longest <= (90 * SECOND if weather == "calm" else 90 * MINUTE)
    assert result.left >= 2 if weather == "calm" else result.left >= 0


def test_without_faults_a_worker_is_launched_for_jobs_only() -> None:
    jobs = [SimJob(n * HOUR, MINUTE) for n in range(50)]
    pool = SimPool(PoolSettings("p", "memory", SMALL, Limits(max_workers=5)), boot=Span(SECOND, SECOND))
    result = simulate([pool], jobs, until=60 * HOUR)
    assert result.launched["p"] == 50
    assert result.waits.p95 == SECOND
    assert result.most["p"] == 1
    assert result.last_gone_at - result.last_done_at <= 10 * MINUTE + 5 * SECOND


def test_short_jobs_get_no_workers_that_would_come_too_late_for_them() -> None:
    """Each burst is done by the one worker that stays, before another could start: only the first ones, of which
    nothing was known, are launched for."""
    limits = Limits(min_workers=1, max_workers=20)
    pool = SimPool(PoolSettings("p", "memory", SMALL, limits), boot=Span(MINUTE, MINUTE))
    jobs = [SimJob(HOUR * burst + n, SECOND) for burst in range(1, 40) for n in range(100)]
    jobs.append(SimJob(HOUR // 2, SECOND))  # the first that is measured
    result = simulate([pool], jobs, until=60 * HOUR)
    assert result.done == len(jobs)
    assert result.launched["p"] == 1
    assert result.waits.p95 <= 100 * SECOND / 4


def test_long_jobs_behind_short_ones_are_launched_for() -> None:
    pool = SimPool(PoolSettings("p", "memory", SMALL, Limits(min_workers=1, max_workers=20)), boot=Span(MINUTE, MINUTE))
    jobs = [SimJob(HOUR * n, SECOND if n % 2 else HOUR // 2) for n in range(1, 21)]
    jobs += [SimJob(30 * HOUR, SECOND)] * 2000
    result = simulate([pool], jobs, until=60 * HOUR)
    assert result.done == len(jobs)
    assert result.launched["p"] > 1
    assert result.waits.quantile(1.0) <= 3 * MINUTE


def test_the_price_of_a_run() -> None:
    pool = SimPool(PoolSettings("p", "memory", SMALL, Limits(max_workers=1)), boot=Span(0, 0))
    result = simulate([pool], [SimJob(0, HOUR)], until=3 * HOUR, price=lambda _pool, ms: 2.0 * ms / HOUR)
    assert result.busy_ms["p"] == HOUR
    assert 2.0 * (1 + 1 / 6) <= result.cost <= 2.0 * (1 + 1 / 6 + 5 / 3600)


def test_a_worker_that_has_less_than_promised_does_not_make_one_after_another() -> None:
    """The job that fits the promise only is told so, after one worker."""
    really = Shape(cpus=4000, memory=15 * GiB)
    pool = SimPool(PoolSettings("p", "memory", SMALL, Limits(max_workers=5)), really=really)
    result = simulate([pool], [SimJob(0, MINUTE, Shape(cpus=1000, memory=16 * GiB))], until=100 * HOUR)
    assert result.launched["p"] == 1
    assert result.done == 0
    assert result.left == 0


def test_workers_that_never_boot_open_the_breaker() -> None:
    pool = SimPool(PoolSettings("p", "memory", SMALL, Limits(max_workers=20)), boot=Span(SECOND, SECOND))
    jobs = [SimJob(0, MINUTE, Shape(cpus=4000))] * 12
    result = simulate([pool], jobs, Faults(dead_at_boot=1.0), until=24 * HOUR)
    assert result.reasons["breaker-open"] > 0
    assert result.launched["p"] <= 12 + 24 * 2 + 2, "one probe each half hour"
    assert result.done == 0
