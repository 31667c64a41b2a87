"""Says in sentences what becomes of a job group and of a pool. Pure: from verdicts and pool plans, as published."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker_manager.policy.model import PoolPlan, Verdict

# Whoever asks wants to know why not: what holds any of its jobs back comes before what helps the others.
_RANK = ("waiting", "launching", "served", "elsewhere", "never")
_OPENING = {
    "served": "There is room for it now",
    "launching": "Workers for it are on their way",
    "waiting": "It waits",
    "never": "No pool can ever run it",
    "unknown": "No pool has been asked yet",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """`status` for programs: served, launching, waiting, never, or unknown where there is no verdict yet."""

    status: str
    text: str  # one sentence
    lines: tuple[str, ...]  # one for each pool


def explain_group(verdicts: Sequence[Verdict]) -> Explanation:
    """Of one group's verdicts, from however many pools and managers."""
    status = _status(verdicts)
    lines: dict[str, list[str]] = {}
    for verdict in verdicts:
        lines.setdefault(verdict.pool, []).append(verdict.reason.text)
    told = tuple(f"{pool}: {'; '.join(texts)}" for pool, texts in sorted(lines.items()))
    deciding = next((verdict for verdict in verdicts if verdict.status == status), None)
    text = _OPENING[status]
    if deciding is not None:
        others = f" (and {len(told) - 1} more pools)" if status == "never" and len(told) > 1 else ""
        text = f"{text}: pool {deciding.pool}: {deciding.reason.text}{others}"
    return Explanation(status, f"{text}.", told)


def explain_pool(line: PoolPlan) -> Explanation:
    """Why a pool has as many workers as it has."""
    counts = f"{line.wanted} wanted, {line.requested} requested, {line.observed} observed"
    doing = [f"launches {line.launch}"] if line.launch else []
    doing += [f"drains {line.drain}"] if line.drain else []
    text = f"Pool {line.pool}: {counts}; {' and '.join(doing) if doing else 'changes nothing'}."
    status = "launching" if line.launch else "draining" if line.drain else "steady"
    return Explanation(status, text, tuple(reason.text for reason in line.reasons))


def _status(verdicts: Sequence[Verdict]) -> str:
    found = {verdict.status for verdict in verdicts}
    best = next((status for status in _RANK if status in found), "unknown")
    return "served" if best == "elsewhere" else best
