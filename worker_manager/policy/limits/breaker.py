"""After many failed starts in a row no more workers are thrown at a pool: one probe at a time, and ever more rarely."""

from worker_manager.policy.limits.backoff import by_kind
from worker_manager.policy.limits.base import Held
from worker_manager.policy.reasons import because
from worker_manager.policy.standing import Standing


def breaker(standing: Standing, _count: int) -> Held | None:
    """Open: none. Half open, once the pause is over: one. Closed again by the first worker that registers."""
    limits = standing.pool.limits
    boots = by_kind(standing.now, standing.pool.history).get("boot", [])
    if len(boots) < limits.breaker_after:
        return None
    doublings = min(len(boots) - limits.breaker_after, 10)
    probe_at = boots[-1].at + min(limits.backoff_cap_ms, limits.backoff_ms << doublings)
    if standing.now < probe_at:
        left = probe_at - standing.now
        why = because("breaker-open", failures=len(boots), kind="boot", left_ms=left, text=boots[-1].text)
        return Held(0, why, probe_at)
    return Held(max(0, 1 - len(standing.launching)), because("breaker-probe"))
