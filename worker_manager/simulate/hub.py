"""A job service without wires: it queues, hands out, loses and requeues jobs as the hub does, by the virtual clock."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from worker.protocol import Shape, how_many
from worker_manager.policy.facts import BacklogFact, WorkerFact
from worker_manager.policy.model import JobGroup
from worker_manager.simulate.world import SimJob

LEASE_MS = 60_000
SMOOTHING = 0.2  # weight of the newest run

Kind = tuple[int, str, str, Shape]


@dataclass(eq=False)
class Job:
    spec: SimJob
    queued_at: int
    epoch: int = 0  # only the current one may report
    starts: int = 0
    started_at: int | None = None
    done: bool = False


@dataclass
class Worker:
    id: str
    pool: str
    shape: Shape
    free: Shape
    ready_at: int
    config: str
    state: str = "ready"
    jobs: list[Job] = field(default_factory=list)
    runs: int = 0
    idle_since: int | None = None
    silent_since: int | None = None
    drain_code: str = ""
    drain_deadline: int | None = None


class SimHub:
    def __init__(self, runs_per_worker: Mapping[str, int | None]) -> None:
        self.workers: dict[str, Worker] = {}
        self._runs_per_worker = runs_per_worker
        self._queues: dict[Kind, deque[Job]] = {}
        self._revoked: set[str] = set()
        self._run_ms: dict[Kind, float] = {}  # moving average, as the hub keeps it
        self.version = 0

    # ------------------------------------------------ jobs

    def submit(self, spec: SimJob, now: int) -> Job:
        job = Job(spec, now)
        self._queue(job)
        return job

    def waiting(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def hand_out(self, now: int) -> Iterator[tuple[Worker, Job]]:
        """Gives waiting jobs to workers with room, the fullest workers first."""
        for kind in sorted(self._queues, key=lambda kind: (kind[0], self._queues[kind][0].queued_at, kind[1:3])):
            queue = self._queues[kind]
            for worker in sorted(self.workers.values(), key=lambda worker: (worker.free.cpus, worker.id)):
                while queue and self._takes(worker, kind[-1]):
                    yield worker, self._start(worker, queue.popleft(), now)
            if not queue:
                del self._queues[kind]

    def finish(self, worker: Worker, job: Job, epoch: int, now: int) -> bool:
        """Whether the result counts: it does not when the job was taken from the worker meanwhile."""
        if worker.state not in ("ready", "draining") or worker.silent_since is not None or job.epoch != epoch:
            return False
        job.done = True
        self._measure(job.spec)
        self._drop(worker, job, now)
        worker.runs += 1
        self.version += 1
        return True

    # ------------------------------------------------ workers

    def register(self, id: str, pool: str, shape: Shape, config: str, now: int) -> bool:
        """False when its token was revoked, or used."""
        if id in self._revoked or id in self.workers:
            return False
        self.workers[id] = Worker(id, pool, shape, shape, now, config, idle_since=now)
        self.version += 1
        return True

    def silence(self, id: str, now: int) -> None:
        """It is not heard any more."""
        worker = self.workers.get(id)
        if worker is not None and worker.silent_since is None:
            worker.silent_since = now

    def expire(self, now: int) -> None:
        """Workers that were silent for a lease are lost, and their jobs go back."""
        for worker in self.workers.values():
            silent = worker.silent_since is not None and now - worker.silent_since >= LEASE_MS
            if silent and worker.state in ("ready", "draining"):
                self._leave(worker, "lost", now)

    def gone(self, id: str, now: int) -> None:
        """It said goodbye, or is known to be dead."""
        worker = self.workers.get(id)
        if worker is not None and worker.state != "gone":
            self._leave(worker, "gone", now)

    def bury(self, id: str) -> bool:
        """False when it has registered."""
        if id in self.workers:
            return False
        self._revoked.add(id)
        return True

    def cordon(self, id: str, code: str, deadline: int) -> bool:
        """False when it is busy or does not answer any more."""
        worker = self.workers.get(id)
        if worker is None or worker.state != "ready" or worker.jobs:
            return False
        worker.state, worker.drain_code, worker.drain_deadline = "draining", code, deadline
        self.version += 1
        return True

    def uncordon(self, id: str) -> bool:
        worker = self.workers.get(id)
        if worker is None or worker.state != "draining":
            return False
        worker.state, worker.drain_code, worker.drain_deadline = "ready", "", None
        self.version += 1
        return True

    def forget(self, id: str) -> None:
        worker = self.workers.get(id)
        if worker is not None and worker.state in ("gone", "lost"):
            del self.workers[id]

    # ------------------------------------------------ what the manager sees

    def fact(self, now: int) -> BacklogFact:
        running = Counter(_kind(job.spec) for worker in self.workers.values() for job in worker.jobs)
        groups = tuple(
            JobGroup(
                key=repr(kind),
                asks=kind[-1],
                count=len(queue),
                oldest=queue[0].queued_at,
                owner=kind[1],
                queue=kind[2],
                priority=-kind[0],
                run_ms=round(self._run_ms[kind]) if kind in self._run_ms else None,
                running=running[kind],
            )
            for kind, queue in self._queues.items()
        )
        return BacklogFact(self.version, groups, tuple(_fact(worker, now) for worker in self.workers.values()))

    # ------------------------------------------------ steps

    def _queue(self, job: Job) -> None:
        self._queues.setdefault(_kind(job.spec), deque()).append(job)
        self.version += 1

    def _measure(self, spec: SimJob) -> None:
        before = self._run_ms.get(_kind(spec), spec.run_ms)
        self._run_ms[_kind(spec)] = before + (spec.run_ms - before) * SMOOTHING

    def _takes(self, worker: Worker, asks: Shape) -> bool:
        if worker.state != "ready" or worker.silent_since is not None:
            return False
        most = self._runs_per_worker.get(worker.pool)
        if most is not None and worker.runs + len(worker.jobs) >= most:
            return False
        return how_many(asks, worker.free, 1) == 1

    def _start(self, worker: Worker, job: Job, now: int) -> Job:
        worker.jobs.append(job)
        worker.free = worker.free.less(job.spec.asks)
        worker.idle_since = None
        job.epoch += 1
        job.starts += 1
        if job.started_at is None:
            job.started_at = now
        self.version += 1
        return job

    def _drop(self, worker: Worker, job: Job, now: int) -> None:
        worker.jobs.remove(job)
        worker.free = worker.free.plus(job.spec.asks)
        if not worker.jobs:
            worker.idle_since = now

    def _leave(self, worker: Worker, state: str, now: int) -> None:
        worker.state = state
        worker.silent_since = worker.silent_since if worker.silent_since is not None else now
        for job in tuple(worker.jobs):
            self._drop(worker, job, now)
            job.epoch += 1  # a late result is refused
            self._queue(job)
        self.version += 1


def _kind(spec: SimJob) -> Kind:
    return (-spec.priority, spec.owner, spec.queue, spec.asks)


def _fact(worker: Worker, now: int) -> WorkerFact:
    return WorkerFact(
        id=worker.id,
        pool=worker.pool,
        state=worker.state,
        shape=worker.shape,
        free=worker.free,
        running=len(worker.jobs),
        assigned=0,
        runs=worker.runs,
        ready_at=worker.ready_at,
        seen_at=now if worker.silent_since is None else worker.silent_since,
        idle_since=worker.idle_since,
        drain_deadline=worker.drain_deadline,
        drain_code=worker.drain_code,
        config=worker.config,
    )
