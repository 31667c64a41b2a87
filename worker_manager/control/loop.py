"""The manager: `tick` decides and acts once, `run` only repeats and waits.

    observe    what source and backends say, as new as it is to be had; brought together with the ledger
    plan       worker_manager.policy.plan: pure
    apply      control.apply: the one place that acts
    publish    what people see of it

A tick never waits for a backend: calls run in lanes, and what they came to is recorded by the tick that follows.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from worker_manager.clock import Clock
from worker_manager.control.apply import Applier
from worker_manager.control.ids import NewId, new_submission_id
from worker_manager.control.lanes import Call, InlineLane, Lane, ThreadLane
from worker_manager.control.ledger import Ledger, StoreBusy
from worker_manager.control.leftover import left_over
from worker_manager.control.observe import Listings, look
from worker_manager.control.pool import ManagedPool, Reach, nothing_happens
from worker_manager.control.publish import Publisher
from worker_manager.control.watch import LeaseKeeper, Told, Watcher
from worker_manager.errors import LeaseHeld, StoreError
from worker_manager.policy.facts import BacklogFact, Sights
from worker_manager.policy.model import Plan
from worker_manager.policy.plan import plan as decide
from worker_manager.sources.base import Source

log = structlog.get_logger(__name__)

LEASE_MS = 30_000
BATCH_MS = 25  # what comes within this time is decided together
BREATH_MS = 5_000  # the longest wait, so that the heartbeat goes on
SOON_MS = 1_000  # after another manager covered the jobs that we meant; also between two ticks that only time asks for
FIRST_LISTINGS_MS = 300  # how long the first tick waits for them
LEDGER_AGAIN_MS = 5_000  # after the ledger could not be written
LAST_CALLS_MS = 5_000  # how long a manager that stops waits for calls under way


class Manager:
    """`holder` names this process for people. `tick_ms` is the longest time between two ticks. With `inline` every
    call is made in the caller's thread, for tests and simulations."""

    def __init__(
        self,
        manager: str,
        holder: str,
        clock: Clock,
        ledger: Ledger,
        source: Source,
        pools: Sequence[ManagedPool],
        *,
        tick_ms: int = 60_000,
        lease_ms: int = LEASE_MS,
        inline: bool = False,
        reach: Reach = nothing_happens,
        new_id: NewId = new_submission_id,
    ) -> None:
        self.manager = manager
        self.holder = holder
        self.last_plan: Plan | None = None
        self.heartbeat_ms = clock.boot_ms()  # for a watchdog: the loop moves it at least every few seconds
        self._clock = clock
        self._ledger = ledger
        self._source = source
        self._tick_ms = tick_ms
        self._lease_ms = lease_ms
        self._inline = inline
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._configured: Mapping[str, ManagedPool] = {}
        self._pools: Mapping[str, ManagedPool] = {}  # and those that are no longer configured, while they have workers
        self._lanes: dict[str, Lane] = {}
        self._reloaded: Sequence[ManagedPool] | None = pools
        self._listings = Listings(clock)
        self._applier = Applier(manager, ledger, source, clock, reach, new_id)
        self._publisher = Publisher(ledger, source, clock, self._lane("reports", _nobody), self._applier.orders)
        self._watcher: Watcher | None = None
        self._told_last = -1
        self._began = 0
        self._next_tick = 0

    # ------------------------------------------------------------ from outside, from any thread

    def stop(self) -> None:
        """`run` returns soon. Workers go on; the next manager finds them."""
        self._stopping.set()
        self._wake.set()

    def reload(self, pools: Sequence[ManagedPool]) -> None:
        """These are the pools from the next tick on. A pool that is not among them any more is wound up."""
        self._reloaded = pools
        self._wake.set()

    # ------------------------------------------------------------ one tick

    def tick(self, settle: bool = False) -> Plan:
        """Observe, plan, apply, publish. With `settle` it is one whole pass, which waits for listings and calls."""
        self._take_new_pools()
        self._applier.record()
        told, news = self._observe(settle)
        sights = self._listings.sights(self._lanes)
        told, backlog = self._bring_together(told, news, sights)
        snapshot = self._applier.snapshot(self._pools, sights, backlog)
        plan = decide(snapshot)
        anew, self._told_last = told.number != self._told_last, told.number
        agreed = self._applier.apply(plan, snapshot, told.observation, anew, self._pools, self._lanes)
        self._applier.answer(snapshot, sights, self._pools, self._lanes)
        if settle:
            self._wait_for(self._applier.under_way())
        came = self._applier.record()
        self._publish(plan, settle)
        self.last_plan = plan
        self._next_tick = self._due(plan, agreed and not came)
        return plan

    def _bring_together(
        self, told: Told, news: dict[str, Sights], sights: dict[str, Sights]
    ) -> tuple[Told, BacklogFact]:
        """What the source said before we told it of ends is no ground for a plan: it is asked once more then."""
        for _ in range(2):
            backlog = self._applier.bring_together(self._pools, news, sights, told.observation.backlog)
            if backlog is not None:
                return told, backlog
            told, news = self._told(), {}
        return told, told.observation.backlog

    def preview(self) -> Plan:
        """What a tick would decide now. Changes nothing and needs no lease."""
        self._take_new_pools()
        told, _ = self._observe(settle=True)
        sights = self._listings.sights(self._lanes)
        return decide(self._applier.foreseen(self._pools, sights, told.observation.backlog))

    def _observe(self, settle: bool) -> tuple[Told, dict[str, Sights]]:
        self._list(settle)
        if settle:
            self._wait_for([*self._listings.under_way(), *self._applier.notices.asking()])
        self._applier.notices.harvest(self._pools)
        news = self._listings.harvest(self._pools)
        return self._told(), news

    def _list(self, now_please: bool = False) -> None:
        """Begins the listings that are due."""
        with_workers = {intent.pool for intent in self._ledger.memory().intents}
        for name, pool in self._pools.items():
            self._listings.refresh(pool, self._lanes[name], name in with_workers, now_please)
            self._applier.notices.refresh(pool, self._lanes[name], name in with_workers)

    def _told(self) -> Told:
        """The source's newest word; asked anew when we have changed something there since."""
        told = self._watcher.newest() if self._watcher else None
        if told is not None and told.at > self._applier.source_changed_at:
            return told
        observation = look(self._source)
        if self._watcher:
            return self._watcher.take(observation)
        return Told(observation, self._clock.boot_ms(), self._told_last + 1)

    def _publish(self, plan: Plan, settle: bool) -> None:
        self._publisher.publish(self._applier.as_it_is_now(plan), bool(self._applier.launches.under_way()), last=settle)
        if settle:
            self._wait_for(self._publisher.under_way())
            self._publisher.harvest()

    def _due(self, plan: Plan, agreed: bool) -> int:
        """When time alone asks for the next tick, by the clock that never jumps."""
        now, boot = self._clock.now_ms(), self._clock.boot_ms()
        dues = [boot + self._tick_ms]
        dues += [boot + due - now for due in (plan.next_due, self._applier.next_force) if due is not None]
        asking = (self._listings.next_at(self._lanes), self._applier.notices.next_at(self._lanes))
        dues += [at for at in asking if at is not None]
        calls = (*self._applier.under_way(), *self._listings.under_way(), *self._applier.notices.asking())
        dues += [overdue for call in calls if (overdue := call.overdue_at()) is not None]
        again = self._applier.launches.again_at()
        dues += [again] if again is not None else []
        dues += [] if agreed else [boot + SOON_MS]
        return max(min(dues), boot + min(SOON_MS, self._tick_ms))

    def _take_new_pools(self) -> None:
        """Those of the configuration, and those that it has no more while they have workers."""
        pools, self._reloaded = self._reloaded, None
        if pools is not None:
            self._configured = {pool.name: pool for pool in pools}
        left = left_over(self._ledger.memory(), self._configured, self._pools)
        if pools is None and {*self._configured, *left} == set(self._pools):
            return
        self._pools = {**self._configured, **left}
        self._source.serve(tuple(self._pools))
        for name in self._pools:
            if name not in self._lanes:
                self._lanes[name] = self._lane(name, self._wake.set)
        for name in [name for name in self._lanes if name not in self._pools]:
            self._lanes.pop(name).close()
            self._listings.forget(name)
            self._applier.notices.forget(name)

    def _lane(self, name: str, done: Callable[[], None]) -> Lane:
        return InlineLane(self._clock) if self._inline else ThreadLane(name, self._clock, done)

    def _wait_for(self, calls: Sequence[Call[Any]]) -> None:
        """Until each is over, or overdue, or stands behind one that is."""
        slowest = max((pool.call_timeout_ms for pool in self._pools.values()), default=0)
        until = self._clock.boot_ms() + 2 * slowest + SOON_MS
        for call in calls:
            while not call.wait(0.05) and not call.overdue_ms() and not self._stopping.is_set():
                self.heartbeat_ms = self._clock.boot_ms()
                if self.heartbeat_ms > until:
                    return

    # ------------------------------------------------------------ repeating it

    def once(self) -> Plan:
        """One whole pass, as from cron. Raises LeaseHeld when another manager leads."""
        with self._leading(stand_by=False):
            return self.tick(settle=True)

    def run(self, stand_by: bool = False) -> None:
        """Until `stop`. Raises LeaseHeld when another leads (unless it stands by) or takes over."""
        with self._leading(stand_by) as keeper:
            self._watcher = Watcher(self._source, self._clock, self._wake.set)
            try:
                self._take_new_pools()
                self._watcher.start()
                self._list()  # beside the source's first word
                self._began = self._clock.boot_ms()
                while not self._stopping.is_set():
                    if keeper.lost is not None:
                        raise keeper.lost
                    self._turn()
                    self._sleep()
            finally:
                self._watcher.stop()
                self._last_words()

    def _turn(self) -> None:
        wait = self._before_the_first_tick()
        if wait is not None:
            self._next_tick = wait
            return
        try:
            self.tick()
        except StoreBusy as error:
            log.warning("The ledger cannot be written, so nothing is launched.", action="wait", why=str(error))
            self._next_tick = self._clock.boot_ms() + LEDGER_AGAIN_MS

    def _before_the_first_tick(self) -> int | None:
        """Until when to wait for the source's first word and, for a moment, for the first listings: without them the
        first plan that people see would decide nothing. Each of them wakes us."""
        boot = self._clock.boot_ms()
        if self.last_plan is not None or self._watcher is None:
            return None
        if self._watcher.newest() is None:
            return boot + SOON_MS
        until = self._began + FIRST_LISTINGS_MS
        listed = all(call.over for call in self._listings.under_way())
        return None if listed or boot >= until else until

    def _sleep(self) -> None:
        """Until something has happened, or time alone asks for a tick."""
        while not self._stopping.is_set():
            boot = self.heartbeat_ms = self._clock.boot_ms()
            left = self._next_tick - boot
            if left <= 0:
                return
            report = self._publisher.next_at()
            until_report = BREATH_MS if report is None else max(0, report - boot)
            if self._wake.wait(min(BREATH_MS, left, until_report) / 1000):
                self._stopping.wait(BATCH_MS / 1000)
                self._wake.clear()
                return
            with suppress(StoreBusy):
                self._publisher.flush()

    def _last_words(self) -> None:
        """What calls under way come to is worth a moment: else the next manager has to find out."""
        until = self._clock.boot_ms() + LAST_CALLS_MS
        for call in self._applier.under_way():
            call.wait(max(0, until - self._clock.boot_ms()) / 1000)
        with suppress(StoreError, LeaseHeld):
            self._applier.record()

    @contextmanager
    def _leading(self, stand_by: bool) -> Iterator[LeaseKeeper]:
        keeper = LeaseKeeper(self._ledger, self._lease_ms, self._wake.set)
        self._take_lease(stand_by)
        if self._ledger.epoch is not None:
            keeper.start()
        try:
            yield keeper
        finally:
            keeper.stop()
            if self._ledger.epoch is not None:
                self._ledger.release()

    def _take_lease(self, stand_by: bool) -> None:
        while not self._stopping.is_set():
            try:
                epoch = self._ledger.acquire(self.holder, self._lease_ms)
            except (LeaseHeld, StoreBusy) as held:  # busy: a leader that was stopped while it wrote keeps it locked
                if not stand_by:
                    raise
                log.info("Another manager leads; this one stands by.", action="stand by", why=str(held))
                self.heartbeat_ms = self._clock.boot_ms()
                self._stopping.wait(self._lease_ms / 6000)
            else:
                log.info("This manager leads.", action="lead", manager=self.manager, epoch=epoch)
                return


def _nobody() -> None:
    """Nobody waits for a report to be heard."""
