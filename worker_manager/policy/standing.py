"""How one pool stands: its workers by what may be hoped of them, counted once for laws, limits and retirement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from worker.protocol import WorkerState
from worker_manager.policy.model import Note, PoolView, Snapshot, WorkerView

LAUNCHING = (WorkerState.REQUESTED, WorkerState.SUBMITTED, WorkerState.STARTING, WorkerState.UNKNOWN)
IDLE_DRAINS = ("idle",)  # drains of ours that may be undone; an operator's may not


@dataclass(frozen=True)
class Standing:
    now: int
    pool: PoolView
    workers: tuple[WorkerView, ...]  # every one that is not gone
    notes: Mapping[str, Note]  # by owner

    @property
    def have(self) -> int:
        """All that exist or may exist: what the maximum counts."""
        return len(self.workers)

    @cached_property
    def ready(self) -> tuple[WorkerView, ...]:
        return tuple(w for w in self._staying if w.state == WorkerState.READY)

    @cached_property
    def launching(self) -> tuple[WorkerView, ...]:
        """On their way: capacity to come."""
        return tuple(w for w in self._staying if w.state in LAUNCHING)

    @cached_property
    def warned(self) -> tuple[WorkerView, ...]:
        """The platform is about to end them, and they still answer."""
        return tuple(
            w
            for w in self.workers
            if w.notice is not None
            and w.state in (WorkerState.READY, WorkerState.DRAINING)
            and w.registers
            and w.ready_at is not None
            and not w.left
        )

    @cached_property
    def _staying(self) -> tuple[WorkerView, ...]:
        """Those of which nobody has said that they shall end."""
        return tuple(w for w in self.workers if w.end_asked_at is None and w.notice is None)

    @cached_property
    def recallable(self) -> tuple[WorkerView, ...]:
        """They drain only because they were idle, and still answer: cheaper to keep than new ones to launch."""
        return tuple(
            w
            for w in self._staying
            if w.state == WorkerState.DRAINING
            and w.drain_code in IDLE_DRAINS
            and w.ready_at is not None
            and (w.drain_deadline is None or w.drain_deadline > self.now)  # else it is being ended
        )

    @property
    def live(self) -> int:
        """Those that work or will: what the minimum counts."""
        return len(self.ready) + len(self.launching)

    @property
    def start_ms(self) -> int | None:
        """How long a worker takes to start here: the median of the last ones. None where none has."""
        starts = sorted(self.pool.history.starts)
        return starts[len(starts) // 2] if starts else None

    @property
    def coming_in_ms(self) -> int:
        """In how long the last of those on their way is ready, as starts usually go."""
        last = max((worker.requested_at for worker in self.launching), default=self.now)
        return max(0, (self.start_ms or 0) - (self.now - last))

    @property
    def deficit(self) -> int:
        """How many the minimum lacks."""
        return max(0, self.pool.limits.min_workers - self.live)

    @property
    def closed(self) -> bool:
        """Nothing at all is decided about it."""
        return not self.pool.readable or self.frozen

    @property
    def frozen(self) -> bool:
        return self.pool.frozen_until is not None and self.pool.frozen_until > self.now


def observed(worker: WorkerView) -> bool:
    """The backend or the source has seen it; until then it is only requested."""
    return bool(worker.listed) or worker.ready_at is not None


def standings(snapshot: Snapshot) -> dict[str, Standing]:
    """By pool name, in a fixed order whatever the snapshot's."""
    workers: dict[str, list[WorkerView]] = {pool.name: [] for pool in snapshot.pools}
    for worker in snapshot.workers:
        if worker.pool in workers and worker.state != WorkerState.GONE:
            workers[worker.pool].append(worker)
    notes: dict[str, dict[str, Note]] = {pool.name: {} for pool in snapshot.pools}
    for note in snapshot.notes:
        if note.pool in notes:
            notes[note.pool][note.owner] = note
    return {
        pool.name: Standing(snapshot.now, pool, _ordered(workers[pool.name]), notes[pool.name])
        for pool in sorted(snapshot.pools, key=lambda pool: pool.name)
    }


def _ordered(workers: Sequence[WorkerView]) -> tuple[WorkerView, ...]:
    return tuple(sorted(workers, key=lambda worker: worker.id))
