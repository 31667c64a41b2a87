"""What is done about a worker that its platform is about to end: it takes no more jobs, has what time there is to
finish those that it has, and hands back the rest while somebody still hears it.

That is not for a limit to hold back, nor for a freeze: the platform ends it whatever we decide. A worker that is warned
is no longer counted as one that works, so the same plan replaces it where it is needed.
"""

from worker.protocol import WorkerState
from worker_manager.policy.model import Drain, Warned, WorkerView
from worker_manager.policy.reasons import Reason, because
from worker_manager.policy.standing import Standing

MARGIN_MS = 30_000  # between the last job's end and the platform's: agents give a job 10 s to end, and then report it
SHARE = 3  # of a short notice at most so much of it is margin
SAME_MS = 5_000  # a deadline that came back from the source's clock may be off by so much

HOLD, RELEASE, GIVE_UP, WAIT = "hold", "release", "give up", "wait"


def heed(standing: Standing) -> tuple[Drain, ...]:
    """Those that are to drain now, or sooner than they do."""
    drains = []
    for worker in standing.warned:
        deadline = deadline_of(standing, worker)
        if worker.drain_deadline is None or worker.drain_deadline > deadline + SAME_MS:
            why = because("platform-notice", text=_words(worker), left_ms=deadline - standing.now)
            drains.append(Drain(worker.pool, worker.id, why, deadline, only_if_idle=False))
    return tuple(drains)


def deadline_of(standing: Standing, worker: WorkerView) -> int:
    """When its jobs are to be back. A platform that waits, for an answer or for long, is kept waiting no longer than
    any drain may take."""
    latest = standing.now + standing.pool.limits.drain_timeout_ms
    at = worker.notice.deadline if worker.notice else None
    return latest if at is None else min(latest, at - min(MARGIN_MS, max(0, at - standing.now) // SHARE))


def told(standing: Standing) -> tuple[Reason, ...]:
    """For the pool's line."""
    warned = [worker for worker in standing.workers if worker.notice is not None]
    if not warned:
        return ()
    return (because("platform-notices", workers=len(warned), text=_words(warned[0])),)


def _words(worker: WorkerView) -> str:
    return worker.notice.reason if worker.notice else ""


def answer(notice: Warned, worker: WorkerView | None, looked_for: bool) -> str:
    """What the platform is told about a notice now. `worker`: whom it means; `looked_for`: where there is none, it is
    certain that there is none."""
    if not notice.handle:
        return RELEASE
    if worker is None:
        return RELEASE if looked_for else WAIT
    if worker.left or worker.state in (WorkerState.LOST, WorkerState.STUCK):
        return RELEASE
    if worker.ready_at is not None:
        return HOLD
    return GIVE_UP if worker.registers else WAIT


__all__ = ("GIVE_UP", "HOLD", "RELEASE", "WAIT", "answer", "deadline_of", "heed", "told")
