"""What people see of the manager's work: pools, verdicts, decisions and results, sent to the source.

Never in the way of acting: one report is under way at a time, and what came up meanwhile goes with the next one.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from worker_manager.clock import Clock
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.ledger import Ledger, StoreBusy
from worker_manager.control.orders import Orders
from worker_manager.policy.model import Action, Launch, Plan, PoolPlan, Verdict
from worker_manager.policy.reasons import Reason
from worker_manager.sources.base import Source

PAUSE_MS = 100  # between two reports: nobody reads faster
SHARE = 4  # reports take at most a quarter of the time: large ones are made more rarely
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
        self._call: Call[int] | None = None
        self._sent: dict[str, Any] = {}
        self._plan: Plan | None = None
        self._since: int | None = None  # when the oldest plan came up that was not sent yet
        self._held_until: int | None = None
        self._heard: dict[str, Any] = {}
        self._sent_at: int | None = None
        self._took = 0  # ms, the last report, from its making to the source's answer
        self._decision: int | None = None  # the newest that the source has

    def publish(self, plan: Plan, launching: bool = False, last: bool = False) -> None:
        """While a launch is under way a report waits a little, for it is not to cost the new worker any time; most
        often it then tells at once what the launch has come to. The `last` one of a pass waits for nothing: nobody
        would come back to send it."""
        now = self._clock.boot_ms()
        self._since = now if self._since is None else self._since
        self._plan = plan
        if launching and not last and now - self._since < PAUSE_MS:
            self._held_until = self._since + PAUSE_MS
        else:
            self.flush(at_once=last)

    def flush(self, at_once: bool = False) -> None:
        """Sends what there is to say, unless something was said a moment ago."""
        self.harvest()
        now = self._clock.boot_ms()
        self._held_until = None if at_once and self._call is None else self._pause(now)
        if self._plan is None or self._held_until is not None:
            return
        self._since = None
        plans = {
            "pools": [pool_wire(pool) for pool in self._plan.pools],
            "verdicts": [verdict_wire(verdict) for verdict in self._plan.verdicts],
        }
        report = {**plans, "decisions": self._new_decisions(), "results": self._orders.results()}
        news = bool(report["decisions"] or report["results"]) or plans != self._heard
        if news or self._sent_at is None or now - self._sent_at >= AGAIN_MS:
            self._sent, self._sent_at = report, now
            self._call = self._lane.start("a report", lambda: self._send(report, now), CALL_LIMIT_MS)
            self.harvest()
            if len(report["decisions"]) == DECISIONS_AT_ONCE:
                self._held_until = now + PAUSE_MS  # there may be more

    def next_at(self) -> int | None:
        """When to flush what was held back, by the clock that never jumps."""
        return self._held_until

    def harvest(self) -> None:
        """What the source has heard is not sent again, not even by the next manager."""
        if self._call is None or not self._call.over:
            return
        call, self._call = self._call, None
        if call.error is not None:
            return
        self._took = call.value()
        self._heard = {name: self._sent[name] for name in ("pools", "verdicts")}
        decisions, results = self._sent["decisions"], self._sent["results"]
        if decisions:
            self._decision = decisions[-1]["id"]
        if decisions or results:
            with suppress(StoreBusy), self._ledger.write() as write:  # else it is said twice: no harm
                write.reported(self._decision or 0)
                self._orders.heard(write, results)

    def under_way(self) -> list[Call[int]]:
        return [self._call] if self._call is not None else []

    def _send(self, report: Mapping[str, Any], begun_at: int) -> int:
        self._source.publish(report)
        return self._clock.boot_ms() - begun_at

    def _pause(self, now: int) -> int | None:
        """Until when nothing more is said, if that is later than now."""
        if self._call is not None:
            return now + SOON_MS
        again = now if self._sent_at is None else self._sent_at + max(PAUSE_MS, SHARE * self._took)
        return again if again > now else None

    def _new_decisions(self) -> list[dict[str, Any]]:
        if self._decision is None:
            self._decision = self._ledger.reported()
        return list(self._ledger.decisions(self._decision, DECISIONS_AT_ONCE))


def pool_wire(pool: PoolPlan) -> dict[str, Any]:
    wire = {**asdict(pool), "reasons": [reason.to_wire() for reason in pool.reasons]}
    until, text, due = wire.pop("frozen_until"), wire.pop("freeze_text"), wire.pop("next_due")
    frozen = None if until is None else {"until_ms": until, "text": text}
    return {**wire, "next_due_ms": due, "frozen": frozen}


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
