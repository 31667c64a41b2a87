"""A worker goes only when it was not wanted for a while: the target for going down is the largest of the window.

The window is a note: the peaks that may still count, each with its instant, highest first. It is never longer than
the pool's idle limit, which says how long a worker may be kept for nothing.
"""

from worker_manager.policy.limits.base import Held
from worker_manager.policy.model import Note
from worker_manager.policy.reasons import because
from worker_manager.policy.standing import Standing

OWNER = "limit:stabilise"
VERSION = 1


def window_ms(standing: Standing) -> int:
    return min(standing.pool.limits.stabilise_ms, standing.pool.limits.idle_ms)


def remembered(standing: Standing, wanted: int) -> Note | None:
    """The note with this tick's target in it, to be stored. None where there is no window."""
    window = window_ms(standing)
    if window <= 0:
        return None
    peaks = [(at, count) for at, count in _peaks(standing) if at > standing.now - window and count > wanted]
    return Note(
        standing.pool.name, OWNER, VERSION, {"peaks": [list(peak) for peak in [*peaks, (standing.now, wanted)]]}
    )


def stabilise(standing: Standing, count: int) -> Held | None:
    """As many may go as leave the largest target of the window."""
    window = window_ms(standing)
    peaks = [(at, peak) for at, peak in _peaks(standing) if at > standing.now - window]
    if not peaks:
        return None
    at, peak = max(peaks, key=lambda one: one[1])
    spare = max(0, standing.live - peak)
    if count <= spare:
        return None
    return Held(spare, because("stabilise", peak=peak, window_ms=window), at + window)


def _peaks(standing: Standing) -> list[tuple[int, int]]:
    note = standing.notes.get(OWNER)
    if note is None or note.version != VERSION:
        return []
    return [(int(at), int(count)) for at, count in note.value["peaks"]]
