"""The run of a simulation: jumps from event to event, plays the agents, ticks the manager when something changed."""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from backends.base import WorkerPhase
from backends.memory import VirtualWorker
from worker_manager.clock import ManualClock
from worker_manager.policy.model import Plan, Snapshot
from worker_manager.simulate.fleet import Site
from worker_manager.simulate.hub import LEASE_MS, Job, SimHub, Worker
from worker_manager.simulate.manager import SimManager
from worker_manager.simulate.result import Result, Waits
from worker_manager.simulate.world import Chance, Faults, Price, SimJob, SimPool, free_of_charge

LOOK_AGAIN_MS = 15_000  # while only listings will tell
EXIT_MS = (1_000, 5_000)  # from a cordon to the exit of the agent


@dataclass(frozen=True)
class Moment:
    """One tick, for whoever watches: what the manager saw and decided, and how it really is afterwards."""

    now: int
    snapshot: Snapshot
    plan: Plan
    alive: Mapping[str, int]  # workers that exist, by pool
    hub: SimHub


Watch = Callable[[Moment], None]


def simulate(
    pools: Sequence[SimPool],
    jobs: Iterable[SimJob],
    faults: Faults | None = None,
    *,
    seed: int = 0,
    until: int,
    price: Price = free_of_charge,
    watch: Watch | None = None,
) -> Result:
    """Run these pools on these jobs for `until` milliseconds. The same arguments give the same result."""
    return _Run(pools, jobs, faults or Faults(), seed, until, price, watch).result()


class _Run:
    def __init__(
        self,
        pools: Sequence[SimPool],
        jobs: Iterable[SimJob],
        faults: Faults,
        seed: int,
        until: int,
        price: Price,
        watch: Watch | None,
    ) -> None:
        self._clock = ManualClock()
        self._start = self._clock.now_ms()
        self._until = self._start + until
        self._faults = faults
        self._chance = Chance(seed)
        self._price = price
        self._watch = watch
        self._result = Result()
        self._sites = {
            pool.settings.name: Site(pool, self._clock.now_ms, self._chance, self._faults_now) for pool in pools
        }
        self._hub = SimHub({pool.settings.name: pool.settings.runs_per_worker for pool in pools})
        self._manager = SimManager(self._sites, self._hub, self._result, self._on_cordon)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._jobs: list[Job] = []
        self._met: set[str] = set()  # workers whose agent began
        self._next_tick: int | None = self._start
        self._seen: object = None  # how the world was at the last tick
        for spec in jobs:
            self._at(self._start + spec.at, partial(self._submit, spec))

    def result(self) -> Result:
        while (at := self._next()) is not None and at <= self._until:
            self._pass_to(at)
            while self._events and self._events[0][0] <= at:
                heapq.heappop(self._events)[2]()
            self._play_agents()
            while self._due(at) or self._state() != self._seen:
                self._tick()
                self._play_agents()
        return self._total()

    # ------------------------------------------------ time

    def _at(self, at: int, what: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (at, self._serial, what))

    def _next(self) -> int | None:
        now = self._clock.now_ms()
        found = [at for site in self._sites.values() if (at := site.platform.next_change(now)) is not None]
        found += [self._events[0][0]] if self._events else []
        found += [self._next_tick] if self._next_tick is not None else []
        return max(now, min(found)) if found else None

    def _due(self, at: int) -> bool:
        return self._next_tick is not None and at >= self._next_tick

    def _pass_to(self, at: int) -> None:
        """Let time pass, and write down who used it."""
        now = self._clock.now_ms()
        for name, site in self._sites.items():
            for id, worker in site.alive().items():
                if worker.phase(now) is not WorkerPhase.PENDING:
                    self._result.worker_ms[name] += at - now
                    agent = self._hub.workers.get(id)
                    self._result.busy_ms[name] += at - now if agent is not None and agent.jobs else 0
        self._clock.advance(at - now)

    def _faults_now(self) -> Faults:
        over = self._faults.until is not None and self._clock.now_ms() - self._start > self._faults.until
        return Faults() if over else self._faults

    # ------------------------------------------------ jobs and agents

    def _submit(self, spec: SimJob) -> None:
        self._jobs.append(self._hub.submit(spec, self._clock.now_ms()))

    def _play_agents(self) -> None:
        """What agents and hub do by themselves at this instant."""
        now = self._clock.now_ms()
        for name, site in self._sites.items():
            alive = site.alive()
            for id, worker in alive.items():
                self._begin(name, site, id, worker, now)
                if worker.phase(now) is WorkerPhase.ENDING:
                    self._hub.gone(id, now)
            self._result.most[name] = max(self._result.most[name], len(alive))
            self._notice_dead(name, alive)
        self._hub.expire(now)
        for agent, job in self._hub.hand_out(now):
            self._at(now + job.spec.run_ms, partial(self._finish, agent, job, job.epoch))

    def _begin(self, pool: str, site: Site, id: str, worker: VirtualWorker, now: int) -> None:
        if id in self._met or worker.phase(now) is not WorkerPhase.RUNNING:
            return
        self._met.add(id)
        settings = site.pool.settings
        if not self._hub.register(id, pool, site.pool.really or settings.shape, settings.config, now):
            site.platform.leave(id, detail="its token was revoked")
            return
        faults = self._faults_now()
        for rate, what in (
            (faults.crashes_an_hour, site.platform.leave),
            (faults.vanishings_an_hour, site.platform.vanish),
            (faults.silences_an_hour, self._silence),
        ):
            after = self._chance.after(rate)
            if after is not None:
                self._at(now + after, partial(what, id))

    def _notice_dead(self, pool: str, alive: Mapping[str, VirtualWorker]) -> None:
        for agent in self._hub.workers.values():
            if agent.pool == pool and agent.id not in alive and agent.silent_since is None:
                self._silence(agent.id)

    def _silence(self, id: str) -> None:
        now = self._clock.now_ms()
        self._hub.silence(id, now)
        self._at(now + LEASE_MS, lambda: None)

    def _state(self) -> object:
        """What the manager is woken for when it changes."""
        now = self._clock.now_ms()
        phases = [(id, worker.phase(now)) for site in self._sites.values() for id, worker in site.alive().items()]
        return self._hub.version, phases

    def _finish(self, worker: Worker, job: Job, epoch: int) -> None:
        now = self._clock.now_ms()
        if self._hub.finish(worker, job, epoch, now):
            self._result.done += 1
            self._result.last_done_at = now - self._start
            most = self._sites[worker.pool].pool.settings.runs_per_worker
            if most is not None and worker.runs >= most and not worker.jobs:
                self._exit(worker.id)

    def _on_cordon(self, id: str) -> None:
        self._at(self._clock.now_ms() + self._chance.dice.randint(*EXIT_MS), partial(self._exit_if_draining, id))

    def _exit_if_draining(self, id: str) -> None:
        agent = self._hub.workers.get(id)
        if agent is not None and agent.state == "draining" and agent.silent_since is None:
            self._exit(id)

    def _exit(self, id: str) -> None:
        agent = self._hub.workers[id]
        self._hub.gone(id, self._clock.now_ms())
        self._sites[agent.pool].platform.leave(id)

    # ------------------------------------------------ the manager

    def _tick(self) -> None:
        now = self._clock.now_ms()
        failed = self._chance.happens(self._faults_now().unreadable_backlog)
        self._next_tick = None
        snapshot, plan = self._manager.tick(now, failed)
        self._result.ticks += 1
        self._seen = self._state()
        alive = {name: site.alive() for name, site in self._sites.items()}
        for name, workers in alive.items():
            self._result.most[name] = max(self._result.most[name], len(workers))
        again = failed or bool(plan.actions) or not all(pool.readable for pool in snapshot.pools)
        everyone = {id: worker for workers in alive.values() for id, worker in workers.items()}
        again = again or self._manager.unsettled(everyone)
        due = [at for at in (plan.next_due, now + LOOK_AGAIN_MS if again else None) if at is not None]
        self._next_tick = min(due, default=None)
        if everyone or plan.actions:
            self._result.last_gone_at = now - self._start
        if self._watch is not None:
            counts = {name: len(workers) for name, workers in alive.items()}
            self._watch(Moment(now, snapshot, plan, counts, self._hub))

    def _total(self) -> Result:
        result = self._result
        now = min(self._clock.now_ms(), self._until)
        result.ended_at = now - self._start
        result.jobs = len(self._jobs)
        result.attempts = sum(job.starts for job in self._jobs)
        result.waits = Waits(tuple(job.started_at - job.queued_at for job in self._jobs if job.started_at is not None))
        result.cost = sum(self._price(name, ms) for name, ms in result.worker_ms.items())
        result.left = sum(len(site.alive()) for site in self._sites.values())
        return result
