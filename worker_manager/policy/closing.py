"""Which intents are over, and why: pure, like the plan, and applied by the same hand.

An intent is closed when its worker is certainly gone, and buried when it certainly never came. Nothing is certain
before the deadline of its create call and the backend's list lag have passed, for until then a late call may still
make a worker; and a worker that the source hears from is not gone because a listing does not show it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from worker_manager.policy.derive import ABSENT, UNREAD, VANISHED, certain_from, phase_of, source_of
from worker_manager.policy.facts import BacklogFact, IntentFact, Memory, PoolSettings, Sight, Sights, WorkerFact
from worker_manager.policy.model import End, Failure
from worker_manager.policy.reasons import Reason, because

# Ends that say something about the pool: later launches are to be held back.
_FAILED_ENDS = {"never-registered": "boot", "queued-too-long": "capacity"}


@dataclass(frozen=True, slots=True)
class Closing:
    """One intent that is over. Revoke its token first where `bury`: if the source then says that it has registered
    meanwhile, it stays open."""

    intent: str
    pool: str
    how: str  # a reason's code: ended | never-started | vanished | never-came | left | forsaken
    detail: str  # the platform's words
    bury: bool  # it never registered: its token must become worthless
    dead: bool  # the platform confirms that its processes are dead: its jobs go back at once
    failure: Failure | None = None  # to be remembered of the pool

    @property
    def reason(self) -> Reason:
        return because(self.how)

    @property
    def text(self) -> str:
        """One sentence for people."""
        return f"{self.reason.text}: {self.detail}" if self.detail else self.reason.text


def note_listing(intent: IntentFact, listing: Sights, list_lag_ms: int) -> IntentFact:
    """The intent after one more listing of its pool: what the ledger keeps of it."""
    if listing.failed is not None:
        return intent
    if any(sight.id == intent.id for sight in listing.seen):
        return replace(intent, missed_listings=0, seen_listed_at=listing.at)
    if not listing.complete or listing.at <= certain_from(intent, list_lag_ms):
        return intent
    return replace(intent, missed_listings=intent.missed_listings + 1)


def closings(
    now: int,
    pools: Sequence[PoolSettings],
    memory: Memory,
    sights: Mapping[str, Sights],
    backlog: BacklogFact,
) -> tuple[Closing, ...]:
    """Every open intent that is over. None while the source or the pool's backend cannot be read."""
    if backlog.failed is not None:
        return ()
    settings = {pool.name: pool for pool in pools}
    heard = {fact.id: fact for fact in backlog.workers}
    seen = {
        name: {sight.id: sight for sight in listing.seen} if listing.failed is None else {}
        for name, listing in sights.items()
    }
    found = []
    for intent in memory.intents:
        pool = settings.get(intent.pool)
        listing = sights.get(intent.pool, UNREAD)
        if pool is None or listing.failed is not None:
            continue
        sight = seen[intent.pool].get(intent.id)
        fact = heard.get(intent.id)
        phase = phase_of(intent, sight, listing, fact, pool.list_lag_ms)
        how = _how(now, intent, pool, phase, source_of(intent, fact, backlog))
        if how:
            found.append(_closing(now, intent, pool, how, sight, fact, backlog.registers))
    return tuple(found)


def failure_of(now: int, end: End) -> Failure | None:
    """What the end of a worker, once it is carried out, says against its pool."""
    kind = _FAILED_ENDS.get(end.reason.code)
    return Failure(now, kind, f"{end.worker}: {end.reason.text}") if kind else None


def _how(now: int, intent: IntentFact, pool: PoolSettings, phase: str, source: str) -> str:
    certain = intent.state == "submitted" or now > intent.call_deadline + pool.list_lag_ms
    if phase == "ended":
        return "ended" if certain else ""
    if phase == ABSENT and source == "gone":
        return "left"
    if phase == VANISHED and source not in ("ready", "draining"):
        if source == "gone":
            return "left"
        if intent.state == "submitted" or intent.seen_listed_at is not None:
            return "vanished"
        return "never-came" if certain else ""
    return ""


def _closing(
    now: int,
    intent: IntentFact,
    pool: PoolSettings,
    how: str,
    sight: Sight | None,
    fact: WorkerFact | None,
    registers: bool,
) -> Closing:
    came = intent.registered_at is not None or fact is not None
    listed = bool(pool.backend)
    failed = listed and registers and not came and intent.end_asked_at is None and how in ("ended", "vanished")
    closing = Closing(
        intent=intent.id,
        pool=intent.pool,
        how=_code(pool, how, failed),
        detail=sight.detail if sight is not None else "",
        bury=registers and not came,
        dead=came and pool.confirms_end and how in ("ended", "vanished"),
    )
    if not failed:
        return closing
    kind = (sight.refusal if sight is not None else None) or "boot"
    return replace(closing, failure=Failure(now, kind, f"{intent.id}: {closing.text}"))


def _code(pool: PoolSettings, how: str, failed: bool) -> str:
    if not pool.backend:
        return "forsaken"
    return "never-started" if failed and how == "ended" else how
