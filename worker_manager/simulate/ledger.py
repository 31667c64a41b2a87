"""The manager's memory in a simulation: what the ledger keeps, in dictionaries."""

from dataclasses import replace
from typing import Any

from worker_manager.policy.facts import IntentFact, Memory, PoolMemory
from worker_manager.policy.model import Failure, History, Note

KEPT_MS = 3 * 3_600_000
MOST_FAILURES = 100
STARTS_KEPT = 20


class SimLedger:
    def __init__(self, pools: tuple[str, ...]) -> None:
        self.intents: dict[str, IntentFact] = {}
        self._histories = {pool: History() for pool in pools}
        self._notes: tuple[Note, ...] = ()

    def memory(self) -> Memory:
        pools = {name: PoolMemory(history) for name, history in self._histories.items()}
        return Memory(tuple(self.intents.values()), pools, self._notes)

    def write(self, intent: IntentFact) -> None:
        self.intents[intent.id] = intent

    def update(self, id: str, **changes: Any) -> None:
        if id in self.intents:
            self.intents[id] = replace(self.intents[id], **changes)

    def close(self, id: str) -> None:
        self.intents.pop(id, None)

    def keep(self, notes: tuple[Note, ...]) -> None:
        self._notes = notes

    def remember(self, pool: str, **changes: Any) -> None:
        self._histories[pool] = replace(self._histories[pool], **changes)

    def started(self, pool: str, took_ms: int, now: int) -> None:
        starts = (*self._histories[pool].starts, took_ms)[-STARTS_KEPT:]
        self.remember(pool, last_success_at=now, starts=starts)

    def failed(self, pool: str, failure: Failure) -> None:
        kept = [one for one in self._histories[pool].failures if one.at > failure.at - KEPT_MS]
        self.remember(pool, failures=(*kept, failure)[-MOST_FAILURES:])
