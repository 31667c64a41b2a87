"""After many failed starts in a row no more workers are thrown at a pool: one probe at a time, and ever more rarely.

How long the row is stays in a note, for probes come more rarely than failures are kept.
"""

from dataclasses import dataclass

from worker_manager.policy.limits.backoff import FORGOTTEN_AFTER_MS, by_kind
from worker_manager.policy.limits.base import Held
from worker_manager.policy.model import Note
from worker_manager.policy.reasons import because
from worker_manager.policy.standing import Standing

OWNER = "limit:breaker"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Row:
    """Failed starts without one that registered in between."""

    failures: int = 0
    last_at: int = 0
    text: str = ""


def breaker(standing: Standing, _count: int) -> Held | None:
    """Open: none. Half open, once the pause is over: one. Closed again by the first worker that registers."""
    limits = standing.pool.limits
    row = failed_starts(standing)
    if row.failures < limits.breaker_after:
        return None
    doublings = min(row.failures - limits.breaker_after, 10)
    probe_at = row.last_at + min(limits.backoff_cap_ms, limits.backoff_ms << doublings)
    if standing.now < probe_at:
        left = probe_at - standing.now
        why = because("breaker-open", failures=row.failures, kind="boot", left_ms=left, text=row.text)
        return Held(0, why, probe_at)
    return Held(max(0, 1 - len(standing.launching)), because("breaker-probe"))


def remembered(standing: Standing) -> Note | None:
    """The row as long as it keeps the breaker from closing."""
    row = failed_starts(standing)
    if row.failures < standing.pool.limits.breaker_after:
        return None
    value = {"failures": row.failures, "last_at": row.last_at, "text": row.text}
    return Note(standing.pool.name, OWNER, VERSION, value)


def failed_starts(standing: Standing) -> Row:
    """Those of the note, if it still counts, and those that came since."""
    before = _noted(standing)
    since = [boot for boot in by_kind(standing).get("boot", []) if boot.at > before.last_at]
    if not since:
        return before
    return Row(before.failures + len(since), since[-1].at, since[-1].text)


def _noted(standing: Standing) -> Row:
    note = standing.notes.get(OWNER)
    if note is None or note.version != VERSION:
        return Row()
    row = Row(int(note.value["failures"]), int(note.value["last_at"]), str(note.value["text"]))
    over = max(standing.pool.history.last_success_at or 0, standing.now - FORGOTTEN_AFTER_MS)
    return row if row.last_at > over else Row()
