"""What ledger, listings and source say of each intent, brought together: adopted, registered, over.

Everything is decided by `policy.closing`; here it is told to the source and written down. The source comes first: a
token is revoked before its intent is forgotten, and a worker that registered in that moment is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from worker_manager.clock import Clock
from worker_manager.control.ids import prefix_of
from worker_manager.control.ledger import Ledger
from worker_manager.control.pool import ManagedPool, Reach
from worker_manager.control.writer import Writer
from worker_manager.errors import WorkerManagerError
from worker_manager.policy.closing import Closing, closings, note_listing
from worker_manager.policy.facts import (
    BacklogFact,
    IntentFact,
    Memory,
    PoolMemory,
    PoolSettings,
    Sight,
    Sights,
    WorkerFact,
)
from worker_manager.sources.base import Source

LIVE = ("ready", "draining")
STARTS_KEPT = 20  # of a pool: enough for a median that follows the weather of a platform
SEEN_AGAIN_MS = 60_000  # how often "still listed" is worth a write


class Reconciler:
    def __init__(self, manager: str, ledger: Ledger, source: Source, clock: Clock, reach: Reach) -> None:
        self._prefix = prefix_of(manager) + "-"
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._reach = reach

    def note(self, pools: Mapping[str, ManagedPool], news: Mapping[str, Sights], backlog: BacklogFact) -> None:
        """What new listings and the source tell about open intents. One commit, or none when there is nothing new."""
        now = self._clock.now_ms()
        memory = self._ledger.memory()
        heard = {fact.id: fact for fact in backlog.workers}
        seen = {name: {sight.id: sight for sight in sights.seen} for name, sights in news.items()}
        changes = []
        for intent in memory.intents:
            pool = pools.get(intent.pool)
            if pool is not None:
                listing = news.get(intent.pool)
                sight = seen.get(intent.pool, {}).get(intent.id)
                found = changes_of(intent, pool.settings, listing, sight, heard.get(intent.id), now)
                if found:
                    changes.append((intent.id, found))
        strangers = self._strangers(pools, {intent.id for intent in memory.intents}, backlog)
        if not changes and not strangers:
            return
        registered = {worker: int(found["registered_at"]) for worker, found in changes if "registered_at" in found}
        with self._ledger.write() as write:
            write.intents(changes)
            for name, took in starts_of(memory.intents, registered).items():
                before = memory.pools.get(name, PoolMemory()).history.starts
                write.started(name, (*before, *took)[-STARTS_KEPT:], now)
            for fact in strangers:
                write.adopt(fact.id, fact.pool, fact.shape, fact.config, now, fact.ready_at)

    def close(
        self, pools: Mapping[str, ManagedPool], sights: Mapping[str, Sights], backlog: BacklogFact
    ) -> BacklogFact | None:
        """Ends the intents that are over. Afterwards the source must be asked anew (None), because it may have kept a
        worker that registered in that moment; what it said before still holds when nothing was over. When it could
        not be told, they stay open, and what it said counts as unread: a plan would replace them already."""
        now = self._clock.now_ms()
        settings = [pool.settings for pool in pools.values()]
        over = closings(now, settings, self._ledger.memory(), sights, backlog)
        if not over:
            return backlog
        try:
            certain, came = self._told(over)
        except WorkerManagerError as error:
            return replace(backlog, failed=f"it could not be told of workers that are gone: {error}")
        self._reach("buried")
        with self._ledger.write() as write:
            write.intents([(worker, {"registered_at": now}) for worker in came])
            handles = {intent.id: intent.handle for intent in self._ledger.memory().intents}
            for closing in certain:
                _write(write, closing, now)
                handle = handles.get(closing.intent)
                if closing.bury and handle:
                    write.output_wanted(closing.intent, closing.pool, handle, now)
        self._reach("closed")
        return None

    def _told(self, over: Sequence[Closing]) -> tuple[list[Closing], list[str]]:
        """Those of which the source knows now that they are over, and those that it did not bury: they did come, if
        only while nobody watched, and are live or gone as it says when it is asked anew."""
        to_bury = [closing.intent for closing in over if closing.bury]
        dead = [closing.intent for closing in over if closing.dead]
        buried = set(self._source.bury(to_bury, "it never came")) if to_bury else set()
        if dead:
            self._source.declare_gone(dead, "the backend confirms that it has ended")
        certain = [closing for closing in over if not closing.bury or closing.intent in buried]
        return certain, [worker for worker in to_bury if worker not in buried]

    def _strangers(self, pools: Mapping[str, ManagedPool], known: set[str], backlog: BacklogFact) -> list[WorkerFact]:
        """Live workers that bear our name and that this ledger does not know: it is younger than they are."""
        return [
            fact
            for fact in backlog.workers
            if fact.state in LIVE and fact.id not in known and fact.pool in pools and fact.id.startswith(self._prefix)
        ]


def foreseen(
    memory: Memory,
    pools: Mapping[str, ManagedPool],
    sights: Mapping[str, Sights],
    backlog: BacklogFact,
    now: int,
) -> Memory:
    """What the ledger would hold after this tick's news. Pure, for a plan that nothing comes of."""
    heard = {fact.id: fact for fact in backlog.workers}
    seen = {name: {sight.id: sight for sight in listing.seen} for name, listing in sights.items()}
    intents = []
    for intent in memory.intents:
        pool = pools.get(intent.pool)
        if pool is not None:
            listing, sight = sights.get(intent.pool), seen.get(intent.pool, {}).get(intent.id)
            found = changes_of(intent, pool.settings, listing, sight, heard.get(intent.id), now)
            intent = replace(intent, **found)
        intents.append(intent)
    after = replace(memory, intents=tuple(intents))
    settings = [pool.settings for pool in pools.values()]
    over = {closing.intent for closing in closings(now, settings, after, sights, backlog)}
    return replace(after, intents=tuple(intent for intent in intents if intent.id not in over))


def starts_of(intents: Sequence[IntentFact], registered: Mapping[str, int]) -> dict[str, list[int]]:
    """How long the workers that registered at these instants took from their request on, by pool."""
    took: dict[str, list[int]] = {}
    for intent in intents:
        if intent.id in registered:
            took.setdefault(intent.pool, []).append(max(0, registered[intent.id] - intent.requested_at))
    return took


def changes_of(
    intent: IntentFact,
    pool: PoolSettings,
    listing: Sights | None,
    sight: Sight | None,
    fact: WorkerFact | None,
    now: int,
) -> dict[str, Any]:
    """The columns of an intent that a new listing or the source's word changes. Pure."""
    found: dict[str, Any] = {}
    if listing is not None and listing.failed is None:
        after = note_listing(intent, listing, pool.list_lag_ms)
        if after.missed_listings != intent.missed_listings:
            found["missed_listings"] = after.missed_listings
        if sight is not None:
            if sight.handle and sight.handle != intent.handle:
                found["handle"] = sight.handle
            if intent.seen_listed_at is None or listing.at - intent.seen_listed_at >= SEEN_AGAIN_MS:
                found["seen_listed_at"] = listing.at
    came = fact is not None and fact.state in LIVE
    if came and fact is not None and intent.registered_at is None:
        found["registered_at"] = fact.ready_at
    if intent.state != "submitted" and (sight is not None or came):
        found |= {"state": "submitted", "submitted_at": intent.submitted_at or now}
    return found


def _write(write: Writer, closing: Closing, now: int) -> None:
    write.close(closing.intent, f"{closing.how}: {closing.text}", now)
    if closing.failure is not None:
        failure = closing.failure
        write.failed(closing.pool, failure.kind, failure.text, failure.at, failure.retry_after_ms)
    write.decided(now, closing.pool, "close", closing.intent, closing.reason, "closed", closing.detail)
