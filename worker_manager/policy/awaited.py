"""Workers that were launched and have not registered: what their platform says of each, and of all of them together."""

from collections import Counter

from worker.protocol import WorkerState
from worker_manager.policy.model import Awaited, WorkerView
from worker_manager.policy.reasons import Reason, because
from worker_manager.policy.standing import Standing

TOLD = 50  # of a pool: they are told again and again, and a person reads a few
TEXT_TOLD = 500  # of each
SENTENCE_TOLD = 200
_COMING = (WorkerState.REQUESTED, WorkerState.SUBMITTED, WorkerState.STARTING, WorkerState.UNKNOWN, WorkerState.STUCK)


def awaited(standing: Standing) -> tuple[Awaited, ...]:
    """Those first of which the platform says why; then those that wait longest."""
    waiting = [worker for worker in standing.workers if _waits(worker)]
    waiting.sort(key=lambda worker: (worker.refusal is None, not worker.detail, worker.requested_at, worker.id))
    return tuple(
        Awaited(
            worker=worker.id,
            state=worker.state,
            since=worker.requested_at,
            refusal=worker.refusal,
            text=shortened(worker.detail, TEXT_TOLD),
        )
        for worker in waiting[:TOLD]
    )


def held_by_platform(standing: Standing, code: str = "platform-holds", **numbers: int) -> Reason | None:
    """What the platform says most often of workers that it lets wait."""
    held = [worker for worker in standing.workers if _waits(worker) and worker.refusal is not None]
    if not held:
        return None
    says = Counter((str(worker.refusal), shortened(worker.detail, SENTENCE_TOLD)) for worker in held)
    (kind, text), _ = min(says.items(), key=lambda item: (-item[1], item[0]))
    return because(code, workers=len(held), **numbers, kind=kind, text=text or "it does not say why")


def shortened(text: str, most: int) -> str:
    """In one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _waits(worker: WorkerView) -> bool:
    return worker.ready_at is None and worker.state in _COMING and worker.registers
