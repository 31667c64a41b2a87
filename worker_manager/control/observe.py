"""Everything that is seen of the world, as facts for the policy.

What cannot be read is said to be unread: a failed listing or a silent source is never an empty one. Listings are taken
in the background as often as their pool asks, so a tick uses the newest there is and no launch waits for one.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from backends.base import Listing, Seen
from worker_manager.clock import Clock
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.pool import ManagedPool
from worker_manager.policy.facts import BacklogFact, Sight, Sights
from worker_manager.sources.base import Observation, Source

LONGEST_PAUSE_MS = 120_000
TEXT_KEPT = 500


def look(source: Source, seen_version: int | None = None, wait_ms: int = 0) -> Observation:
    """What the source says, or why it says nothing."""
    try:
        return source.observe(seen_version, wait_ms)
    except Exception as error:  # a foreign queue's SDK may raise anything: all of it means "not read"
        return Observation(BacklogFact(registers=source.registers, failed=sentence(error)))


def sights_of(listing: Listing, at: int) -> Sights:
    return Sights(at=at, seen=tuple(_sight(seen) for seen in listing.seen), complete=listing.complete)


def _sight(seen: Seen) -> Sight:
    if not seen.submission or seen.index < 0:
        raise ValueError(f"a worker without a submission or with index {seen.index}")
    return Sight(
        id=f"{seen.submission}-{seen.index}",
        phase=str(seen.phase.value),
        handle=seen.handle,
        started_at=seen.started_at,
        refusal=seen.refusal.value if seen.refusal else None,
        detail=seen.detail,
        identity=seen.identity,
    )


def sentence(error: Exception) -> str:
    text = str(error).strip()[:TEXT_KEPT]
    ours = type(error).__module__.partition(".")[0] in ("worker_manager", "backends")
    return text if ours and text else f"{type(error).__name__}: {text}"


@dataclass
class _Pool:
    """The listings of one pool."""

    under_way: Call[Sights] | None = None
    newest: Sights | None = None
    next_at: int = 0  # by the clock that never jumps
    relaxed: bool = False  # the next one was planned while the pool had no workers
    failures: int = 0


class Listings:
    def __init__(self, clock: Clock, chance: random.Random | None = None) -> None:
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries in time, guards nothing
        self._pools: dict[str, _Pool] = {}

    def refresh(self, pool: ManagedPool, lane: Lane, has_workers: bool, now_please: bool = False) -> None:
        """Begins a listing where one is due. Never two at once for a pool."""
        state = self._pools.setdefault(pool.name, _Pool())
        if state.under_way is not None or lane.stuck():
            return
        now = self._clock.boot_ms()
        if has_workers and state.relaxed:
            state.next_at = min(state.next_at, now + pool.list_every_ms)
            state.relaxed = False
        if now < state.next_at and not now_please:
            return
        state.relaxed = not has_workers
        state.next_at = now + (pool.list_every_ms if has_workers else pool.list_idle_ms)
        state.under_way = lane.start("a listing", lambda: self._list(pool), pool.call_timeout_ms)

    def _list(self, pool: ManagedPool) -> Sights:
        at = self._clock.now_ms()  # from before the call: what begins meanwhile may be missing
        return sights_of(pool.backend.list(), at)

    def harvest(self, pools: Mapping[str, ManagedPool]) -> dict[str, Sights]:
        """The listings that came in since the last harvest."""
        news = {}
        for name, pool in pools.items():
            state = self._pools.setdefault(name, _Pool())
            call = state.under_way
            if call is not None and call.over:
                state.under_way = None
                state.newest = news[name] = self._result(state, pool, call)
        return news

    def _result(self, state: _Pool, pool: ManagedPool, call: Call[Sights]) -> Sights:
        try:
            sights = call.value()
        except Exception as error:
            state.failures += 1
            state.relaxed = False
            pause = min(LONGEST_PAUSE_MS, pool.list_every_ms * 2 ** min(state.failures, 10))
            state.next_at = self._clock.boot_ms() + int(pause * self._chance.uniform(0.5, 1.0))
            return Sights(at=self._clock.now_ms(), failed=sentence(error))
        state.failures = 0
        return sights

    def sights(self, lanes: Mapping[str, Lane]) -> dict[str, Sights]:
        """The newest of each pool. A backend that does not answer in time counts as unread until it does."""
        found = {}
        for name, state in self._pools.items():
            stuck = lanes[name].stuck() if name in lanes else None
            if stuck:
                found[name] = Sights(at=self._clock.now_ms(), failed=stuck)
            elif state.newest is not None:
                found[name] = state.newest
        return found

    def under_way(self) -> list[Call[Sights]]:
        return [state.under_way for state in self._pools.values() if state.under_way is not None]

    def next_at(self, lanes: Mapping[str, Lane]) -> int | None:
        """When the next listing is due, by the clock that never jumps."""
        waiting = [state.next_at for name, state in self._pools.items() if not state.under_way and lanes[name].idle()]
        return min(waiting, default=None)

    def forget(self, pool: str) -> None:
        """It was taken out of the configuration."""
        self._pools.pop(pool, None)
