"""The one place that acts: what was seen is brought together, and what was planned is carried out.

In this order, which breaks ties toward having workers: call back what drains, launch, drain, end.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from worker.protocol import WorkerState
from worker_manager.clock import Clock
from worker_manager.control.ending import Ends
from worker_manager.control.identities import Identities
from worker_manager.control.ids import NewId
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.launching import Launches
from worker_manager.control.ledger import Ledger
from worker_manager.control.notices import Notices
from worker_manager.control.orders import Orders
from worker_manager.control.outputs import Outputs
from worker_manager.control.pool import ManagedPool, Reach
from worker_manager.control.reconcile import Reconciler, foreseen
from worker_manager.policy.derive import derive
from worker_manager.policy.facts import BacklogFact, Sights
from worker_manager.policy.model import Drain, End, Launch, Plan, PoolPlan, Snapshot, Undrain, WorkerView
from worker_manager.sources.base import Observation, Source

KEEP_MS = 30 * 86_400_000  # decisions and closed intents
KEEP_FAILURES_MS = 3 * 3_600_000
PURGE_EVERY_MS = 600_000

Pools = Mapping[str, ManagedPool]
Lanes = Mapping[str, Lane]


class Applier:
    def __init__(self, manager: str, ledger: Ledger, source: Source, clock: Clock, reach: Reach, new_id: NewId) -> None:
        self._ledger = ledger
        self._clock = clock
        self._reach = reach
        self.launches = Launches(manager, ledger, source, clock, reach, new_id)
        self.ends = Ends(ledger, source, clock, reach)
        self.orders = Orders(ledger, self.ends, clock)
        self._outputs = Outputs(ledger, clock)
        self._reconciler = Reconciler(manager, ledger, source, clock, reach)
        self._identities = Identities(source, clock)
        self.notices = Notices(ledger, source, clock)
        self.source_changed_at = -1  # by us, by the clock that never jumps: what it said before is out of date
        self.next_force: int | None = None
        self._open = Counter[str]()  # intents, by pool, as the last snapshot counts them
        self._drained = Counter[str]()
        self._idle_drained = Counter[str]()
        self._undrained = Counter[str]()
        self._purged_at: int | None = None

    # ------------------------------------------------------------ before the plan

    def record(self) -> bool:
        """What an earlier manager left open, and what calls have come to. Whether a launch has come to anything: a plan
        from before does not know it."""
        self.launches.settle()
        came = self.launches.harvest()
        self.orders.harvest()
        self.ends.harvest()
        self.notices.record()
        self._outputs.harvest()
        return came

    def bring_together(
        self, pools: Pools, news: Mapping[str, Sights], sights: Mapping[str, Sights], backlog: BacklogFact
    ) -> BacklogFact | None:
        """What the plan may build on of what the source said; None: ask it anew, for we have changed something."""
        self._reconciler.note(pools, news, backlog)
        self._identities.tell(self._ledger.memory(), pools, sights)
        still = self._reconciler.close(pools, sights, backlog)
        if still is None:
            self._source_changed()
        return still

    def snapshot(self, pools: Pools, sights: Mapping[str, Sights], backlog: BacklogFact) -> Snapshot:
        settings = [pool.settings for pool in pools.values()]
        memory = self._ledger.memory()
        self._open = Counter(intent.pool for intent in memory.intents)
        return derive(self._clock.now_ms(), settings, memory, sights, backlog, self.notices.open())

    def foreseen(self, pools: Pools, sights: Mapping[str, Sights], backlog: BacklogFact) -> Snapshot:
        """The snapshot of a tick of which nothing comes."""
        now = self._clock.now_ms()
        settings = [pool.settings for pool in pools.values()]
        memory = foreseen(self._ledger.memory(), pools, sights, backlog, now)
        return derive(now, settings, memory, sights, backlog, self.notices.open())

    # ------------------------------------------------------------ after it

    def apply(
        self, plan: Plan, snapshot: Snapshot, told: Observation, told_anew: bool, pools: Pools, lanes: Lanes
    ) -> bool:
        """False when there is reason to observe and plan again soon: the source wants it, or a launch is over already,
        and what came of it, a refusal perhaps, is new to the plan."""
        views = {view.id: view for view in snapshot.workers}
        self.orders.carry_out(told.commands, views, pools, lanes, told_anew)
        self.next_force = self.orders.force_what_is_due(views, pools, lanes)
        undrains = [action for action in plan.actions if isinstance(action, Undrain)]
        drains = [action for action in plan.actions if isinstance(action, Drain)]
        ends = [action for action in plan.actions if isinstance(action, End)]
        self._undrained = self.ends.undrain(undrains)
        agreed = self._launch(plan, snapshot, pools, lanes)
        self._drained, self._idle_drained = drained(drains, self.ends.drain(drains), views)
        self.ends.end(ends, views, pools, lanes)
        self._outputs.fetch(pools, lanes)
        if undrains or drains or ends:
            self._source_changed()
        self._purge()
        return agreed

    def answer(self, snapshot: Snapshot, sights: Mapping[str, Sights], pools: Pools, lanes: Lanes) -> None:
        """Platforms that said which workers they are about to end: after the drains, so that none is let go before."""
        self.notices.carry_out(snapshot.workers, pools, lanes, sights)

    def as_it_is_now(self, plan: Plan) -> Plan:
        """For people: the plan with each pool's counts as they are after what was done, not as they were before."""
        opened = Counter(intent.pool for intent in self._ledger.memory().intents)
        opened.subtract(self._open)
        lines = [
            after(
                line,
                opened[line.pool],
                self._drained[line.pool],
                self._undrained[line.pool],
                self._idle_drained[line.pool],
            )
            for line in plan.pools
        ]
        return replace(plan, pools=tuple(lines))

    def under_way(self) -> list[Call[Any]]:
        ending = (self.ends.under_way(), self.notices.answering())
        calls = (self.launches.under_way(), *ending, self._outputs.under_way(), self.orders.reading())
        return [call for some in calls for call in some]

    def _launch(self, plan: Plan, snapshot: Snapshot, pools: Pools, lanes: Lanes) -> bool:
        """Notes and announcements are remembered in one commit, and only when there is something new."""
        drafts = self.launches.draft([action for action in plan.actions if isinstance(action, Launch)], pools)
        new_notes = set(map(repr, plan.notes)) != set(map(repr, snapshot.notes))
        if drafts or new_notes:
            with self._ledger.write() as write:
                if new_notes:
                    write.notes(plan.notes)
                self.launches.note(write, drafts)
            self._reach("noted")
        if not drafts:
            return True
        agreed = self.launches.carry_out(drafts, plan.backlog_version, lanes)
        return not self.launches.harvest() and agreed

    def _source_changed(self) -> None:
        self.source_changed_at = self._clock.boot_ms()

    def _purge(self) -> None:
        boot = self._clock.boot_ms()
        if self._purged_at is None or boot - self._purged_at >= PURGE_EVERY_MS:
            self._purged_at = boot
            now = self._clock.now_ms()
            with self._ledger.write() as write:
                write.purge(now - KEEP_MS, now - KEEP_FAILURES_MS)


def drained(
    drains: Sequence[Drain], done: set[str], views: Mapping[str, WorkerView]
) -> tuple[Counter[str], Counter[str]]:
    """How many of each pool drain that did not before, and how many of them were idle."""
    fresh = [views[one.worker] for one in drains if one.worker in done and one.worker in views]
    fresh = [view for view in fresh if view.state == WorkerState.READY]
    return Counter(view.pool for view in fresh), Counter(view.pool for view in fresh if not view.busy)


def after(line: PoolPlan, opened: int, drained: int, undrained: int, idle_drained: int) -> PoolPlan:
    """A pool's line after a tick that opened so many intents more than it closed: a worker that was just asked for is
    requested, and nothing of it is observed yet."""
    turned = undrained - drained
    return replace(
        line,
        requested=max(0, line.requested + opened),
        ready=line.ready + turned,
        idle=line.idle + undrained - idle_drained,
        draining=line.draining - turned,
        launch=min(line.launch, max(0, opened)),
        drain=drained,
    )
