"""Pools that were taken out of the configuration while they had workers.

They stay in sight until the last intent is closed: their workers take no more jobs, finish those that they have and go;
nothing is launched. As long as this process knows the pool's backend it is listed and asked as before. After a restart
nobody knows the backend any more: then what the source says has to do, and a worker that never registered loses its
token, so that it is refused should it still come.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from backends.base import (
    Capabilities,
    EndOutcome,
    Finding,
    LaunchOutcome,
    Listing,
    RefusalKind,
    Refused,
    Submission,
)
from worker.protocol import Shape
from worker_manager.control.pool import ManagedPool
from worker_manager.policy.facts import Memory, PoolSettings
from worker_manager.policy.model import Limits

Pools = Mapping[str, ManagedPool]


def left_over(memory: Memory, configured: Pools, before: Pools) -> dict[str, ManagedPool]:
    """The pools of open intents that are not configured; `before` are those that were in sight until now."""
    shapes = {intent.pool: intent.shape for intent in memory.intents if intent.pool not in configured}
    return {
        name: _wound_up(before[name]) if name in before else _forsaken(name, shape)
        for name, shape in sorted(shapes.items())
    }


def _wound_up(pool: ManagedPool) -> ManagedPool:
    limits = replace(
        pool.settings.limits, min_workers=0, max_workers=0, stabilise_ms=0, cooldown_down_ms=0, step_down=None
    )
    return replace(pool, settings=replace(pool.settings, limits=limits, configured=False))


def _forsaken(name: str, shape: Shape) -> ManagedPool:
    settings = PoolSettings(name=name, backend="", shape=shape, limits=Limits(), configured=False, confirms_end=False)
    return _wound_up(ManagedPool(settings, _Nobody(name), Capabilities(confirms_end=False)))


@dataclass(frozen=True)
class _Nobody:
    """Stands where a backend was. It shows nothing, and so confirms nothing: `policy.closing` knows it by its name."""

    pool: str

    def launch(self, submission: Submission) -> LaunchOutcome:  # noqa: ARG002 - nobody starts anything
        return Refused(RefusalKind.CONFIG, self._why())

    def list(self) -> Listing:
        return Listing((), True)

    def terminate(self, handle: str, force: bool) -> EndOutcome:  # noqa: ARG002 - nor ends it
        return Refused(RefusalKind.CONFIG, self._why())

    def logs(self, handle: str, max_bytes: int) -> str:  # noqa: ARG002 - nor wrote anything down
        return ""

    def check(self) -> tuple[Finding, ...]:
        return ()

    def render(self, submission: Submission) -> str:  # noqa: ARG002
        return ""

    def _why(self) -> str:
        return f"pool {self.pool} is no longer configured, so its backend cannot be asked"
