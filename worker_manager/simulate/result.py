"""What a simulation comes to."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Waits:
    """From submission to start, in milliseconds, over the jobs that started."""

    each: tuple[int, ...]

    def quantile(self, share: float) -> int:
        return sorted(self.each)[min(len(self.each) - 1, int(share * len(self.each)))] if self.each else 0

    @property
    def p50(self) -> int:
        return self.quantile(0.5)

    @property
    def p95(self) -> int:
        return self.quantile(0.95)


@dataclass
class Result:
    ended_at: int = 0  # ms after the start
    ticks: int = 0
    jobs: int = 0
    done: int = 0
    attempts: int = 0  # starts of jobs
    waits: Waits = Waits(())
    worker_ms: Counter[str] = field(default_factory=Counter)  # by pool, from its machine on
    busy_ms: Counter[str] = field(default_factory=Counter)  # by pool, in which a worker had jobs
    most: Counter[str] = field(default_factory=Counter)  # workers that existed at once, by pool
    launched: Counter[str] = field(default_factory=Counter)  # workers asked for, by pool
    drained: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)  # through the backend, by reason
    failures: Counter[str] = field(default_factory=Counter)  # by kind
    reasons: Counter[str] = field(default_factory=Counter)  # by code: ticks at which it was given
    cost: float = 0.0
    busy_ended: int = 0  # working workers that the manager ended: never
    left: int = 0  # workers that still exist at the end
    last_done_at: int = 0
    last_gone_at: int = 0
