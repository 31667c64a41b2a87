"""What people see of the manager's work: pools, verdicts, decisions and results, sent to the source.

Never in the way of acting: one report is under way at a time, and what came up meanwhile goes with the next one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from worker_manager.clock import Clock
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.ledger import Ledger
from worker_manager.control.orders import Orders
from worker_manager.policy.model import Action, Launch, Plan, PoolPlan, Verdict
from worker_manager.policy.reasons import Reason
from worker_manager.sources.base import Source

PAUSE_MS = 500  # numbers that count down change at every tick: nobody reads faster
SOON_MS = 50  # while one is under way
AGAIN_MS = 15_000  # an unchanged report is repeated, so that the source knows that we live
DECISIONS_AT_ONCE = 500
CALL_LIMIT_MS = 30_000


class Publisher:
    def __init__(self, ledger: Ledger, source: Source, clock: Clock, lane: Lane, orders: Orders) -> None:
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._lane = lane
        self._orders = orders
        self._call: Call[None] | None = None
        self._sent: dict[str, Any] = {}
        self._plan: Plan | None = None
        self._held = False
        self._heard: dict[str, Any] = {}
        self._sent_at: int | None = None
        self._decision: int | None = None  # the newest that the source has

    def publish(self, plan: Plan) -> None:
        self._plan = plan
        self.flush()

    def flush(self) -> None:
        """Sends what there is to say, unless something was said a moment ago."""
        self.harvest()
        self._held = self._call is not None or self._since_last() < PAUSE_MS
        if self._plan is None or self._held:
            return
        plans = {
            "pools": [pool_wire(pool) for pool in self._plan.pools],
            "verdicts": [verdict_wire(verdict) for verdict in self._plan.verdicts],
        }
        report = {**plans, "decisions": self._new_decisions(), "results": self._orders.results()}
        news = bool(report["decisions"] or report["results"]) or plans != self._heard
        if news or self._since_last() >= AGAIN_MS:
            self._sent, self._sent_at = report, self._clock.boot_ms()
            self._call = self._lane.start("a report", lambda: self._source.publish(report), CALL_LIMIT_MS)
            self.harvest()

    def next_at(self) -> int | None:
        """When to flush what was held back, by the clock that never jumps."""
        return self._clock.boot_ms() + max(SOON_MS, PAUSE_MS - self._since_last()) if self._held else None

    def harvest(self) -> None:
        """What the source has heard is not sent again."""
        if self._call is None or not self._call.over:
            return
        heard, self._call = self._call.error is None, None
        if heard:
            self._heard = {name: self._sent[name] for name in ("pools", "verdicts")}
            if self._sent["decisions"]:
                self._decision = self._sent["decisions"][-1]["id"]
            self._orders.heard(self._sent["results"])

    def under_way(self) -> list[Call[None]]:
        return [self._call] if self._call is not None else []

    def _new_decisions(self) -> list[dict[str, Any]]:
        if self._decision is None:  # just started: the source keeps what was said before
            self._decision = max(0, self._ledger.last_decision() - DECISIONS_AT_ONCE)
        return list(self._ledger.decisions(self._decision, DECISIONS_AT_ONCE))

    def _since_last(self) -> int:
        return AGAIN_MS if self._sent_at is None else self._clock.boot_ms() - self._sent_at


def pool_wire(pool: PoolPlan) -> dict[str, Any]:
    wire = {**asdict(pool), "reasons": [reason.to_wire() for reason in pool.reasons]}
    until, text = wire.pop("frozen_until"), wire.pop("freeze_text")
    frozen = None if until is None else {"until_ms": until, "text": text}
    return {**wire, "next_due_ms": wire.pop("next_due"), "frozen": frozen}


def verdict_wire(verdict: Verdict) -> dict[str, Any]:
    return {
        "group": verdict.group,
        "pool": verdict.pool,
        "status": verdict.status,
        "jobs": verdict.jobs,
        "reason": verdict.reason.to_wire(),
    }


def action_wire(action: Action) -> dict[str, Any]:
    wire = {"action": type(action).__name__.lower(), **asdict(action), "reason": action.reason.to_wire()}
    return {**wire, "limited": limits_wire(action.limited)} if isinstance(action, Launch) else wire


def limits_wire(limits: Sequence[Reason]) -> list[dict[str, Any]]:
    return [limit.to_wire() for limit in limits]


def plan_wire(plan: Plan) -> Mapping[str, Any]:
    """A whole plan, for a dry run's output."""
    return {
        "now_ms": plan.now,
        "backlog_version": plan.backlog_version,
        "actions": [action_wire(action) for action in plan.actions],
        "pools": [pool_wire(pool) for pool in plan.pools],
        "verdicts": [verdict_wire(verdict) for verdict in plan.verdicts],
        "next_due_ms": plan.next_due,
    }
