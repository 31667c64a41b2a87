"""Platforms that say beforehand which worker they are about to end: listened to, and answered.

    notices    asked for as often as a pool is listed; what is open stands in every snapshot until it is taken back
    drain      is the plan's (policy.notices): its worker is cordoned, and hands back what it cannot finish
    hold       about every half minute, while its worker is heard: it still has jobs, or is leaving
    release    once its worker has gone, or where there never was one of ours

Nothing of this is remembered on disk: the platform tells a restarted manager the same again. A worker that has not
registered yet loses the right to first, so that no job reaches a machine that is about to go.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from backends.base import EndOutcome, GivesNotice, Notice
from worker_manager.clock import Clock
from worker_manager.control.ending import spoken
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.ledger import Ledger
from worker_manager.control.observe import sentence
from worker_manager.control.pool import ManagedPool
from worker_manager.errors import WorkerManagerError
from worker_manager.policy.facts import Sights
from worker_manager.policy.model import Warned, WorkerView
from worker_manager.policy.notices import GIVE_UP, HOLD, RELEASE, WAIT, answer
from worker_manager.policy.reasons import because
from worker_manager.sources.base import Source

HOLD_EVERY_MS = 30_000
AGAIN_MS = 10_000  # after an answer that did not arrive
TEXT_KEPT = 300

Pools = Mapping[str, ManagedPool]
Lanes = Mapping[str, Lane]


@dataclass
class _Answers:
    """What became of one open notice."""

    since: int  # first seen, UTC
    next_at: int = 0  # by the clock that never jumps
    call: Call[EndOutcome] | None = None
    gave: str = ""  # the answer under way, or the last one
    about: str = ""  # the worker, or what is known instead of it
    said: tuple[str, str, str] = ("", "", "")


@dataclass
class _Pool:
    """One platform, as far as it speaks of one pool."""

    call: Call[tuple[Notice, ...]] | None = None
    asked_at: int = 0
    next_at: int = 0  # by the clock that never jumps
    relaxed: bool = False
    failed: str = ""  # why it could not be asked the last time
    failed_said: str = ""
    open: dict[str, Notice] = field(default_factory=dict)
    answers: dict[str, _Answers] = field(default_factory=dict)


class Notices:
    def __init__(self, ledger: Ledger, source: Source, clock: Clock) -> None:
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._pools: dict[str, _Pool] = {}

    # ------------------------------------------------------------ listening

    def refresh(self, pool: ManagedPool, lane: Lane, has_workers: bool) -> None:
        """Asks where it is time to. Never twice at once."""
        if not pool.capabilities.notices:
            return
        state = self._pools.setdefault(pool.name, _Pool())
        if state.call is not None or lane.stuck():
            return
        now = self._clock.boot_ms()
        if has_workers and state.relaxed:
            state.next_at = min(state.next_at, now + pool.list_every_ms)
        if now < state.next_at:
            return
        state.relaxed = not has_workers
        state.next_at = now + (pool.list_every_ms if has_workers else pool.list_idle_ms)
        state.asked_at = self._clock.now_ms()
        backend = cast(GivesNotice, pool.backend)
        state.call = lane.start("a look for notices", backend.notices, pool.call_timeout_ms)

    def harvest(self, pools: Pools) -> None:
        """What the platforms have said. One that could not be asked has taken nothing back."""
        for name, state in self._pools.items():
            call = state.call
            if name not in pools or call is None or not call.over:
                continue
            state.call = None
            try:
                found = {notice.id: notice for notice in call.value()}
            except Exception as error:  # whatever a backend or its SDK raises: nothing was learnt
                state.failed = sentence(error)
                continue
            state.failed, state.open = "", found
            known = state.answers
            state.answers = {id: known.get(id) or _Answers(state.asked_at) for id in found}

    def open(self) -> dict[str, tuple[Warned, ...]]:
        """By pool, for the snapshot."""
        return {name: tuple(map(_warned, state.open.values())) for name, state in self._pools.items() if state.open}

    # ------------------------------------------------------------ answering

    def carry_out(self, views: Sequence[WorkerView], pools: Pools, lanes: Lanes, sights: Mapping[str, Sights]) -> None:
        """Says to each platform what it is to hear now. After the drains, so that none is let go before."""
        for name, state in self._pools.items():
            if name not in pools or not state.open or lanes[name].stuck():
                continue
            of = {view.handle: view for view in views if view.pool == name and view.handle}
            for id, notice in state.open.items():
                answers = state.answers[id]
                if answers.call is None:
                    looked_for = _looked_for(sights.get(name), answers.since, pools[name].settings.list_lag_ms)
                    self._answer(pools[name], lanes[name], notice, of.get(notice.handle), answers, looked_for)

    def _answer(
        self,
        pool: ManagedPool,
        lane: Lane,
        notice: Notice,
        view: WorkerView | None,
        answers: _Answers,
        looked_for: bool,
    ) -> None:
        what = answer(_warned(notice), view, looked_for)
        if what == WAIT or (what == answers.gave and self._clock.boot_ms() < answers.next_at):
            return
        if what == GIVE_UP and (view is None or not self._gives_up(view.id)):
            return
        backend = cast(GivesNotice, pool.backend)
        act: Callable[[Notice], EndOutcome] = backend.hold if what == HOLD else backend.release
        answers.gave, answers.about = what, (view.id if view else notice.handle or notice.id)[:64]
        answers.next_at = self._clock.boot_ms() + HOLD_EVERY_MS
        answers.call = lane.start(f"an answer ({what})", lambda: act(notice), pool.call_timeout_ms)

    def _gives_up(self, worker: str) -> bool:
        """It is not to register any more. Not so when it has done so in this moment."""
        try:
            buried = self._source.bury([worker], "its platform ends it before it registered")
        except WorkerManagerError:
            return False
        if worker in buried:
            with self._ledger.write() as write:  # an end that was foreseen says nothing against the pool
                write.intent(worker, end_asked_at=self._clock.now_ms())
        return worker in buried

    # ------------------------------------------------------------ what people see

    def record(self) -> None:
        """Writes down what came of asking and answering: each once, until it comes to something else."""
        for name, state in self._pools.items():
            self._record_asking(name, state)
            for id, answers in state.answers.items():
                if answers.call is not None and answers.call.over:
                    self._record_answer(name, state.open[id], answers, answers.call)

    def _record_asking(self, pool: str, state: _Pool) -> None:
        if state.failed and state.failed != state.failed_said:
            reason = because("notices-unreadable", text=state.failed)
            with self._ledger.write() as write:
                write.decided(self._clock.now_ms(), pool, "notices", pool, reason, "unreadable", "")
        state.failed_said = state.failed

    def _record_answer(self, pool: str, notice: Notice, answers: _Answers, call: Call[EndOutcome]) -> None:
        answers.call = None
        outcome, text = spoken(call)
        if outcome == "ended":
            outcome = "held" if answers.gave == HOLD else "released"
        else:
            answers.next_at = min(answers.next_at, self._clock.boot_ms() + AGAIN_MS)
        if answers.said != (answers.gave, outcome, text):
            answers.said = (answers.gave, outcome, text)
            action = HOLD if answers.gave == HOLD else RELEASE
            reason = because("platform-ends", text=notice.reason[:TEXT_KEPT])
            with self._ledger.write() as write:
                write.decided(self._clock.now_ms(), pool, action, answers.about, reason, outcome, text)

    # ------------------------------------------------------------ when

    def asking(self) -> list[Call[tuple[Notice, ...]]]:
        return [state.call for state in self._pools.values() if state.call is not None]

    def answering(self) -> list[Call[EndOutcome]]:
        answers = (one for state in self._pools.values() for one in state.answers.values())
        return [one.call for one in answers if one.call is not None]

    def next_at(self, lanes: Lanes) -> int | None:
        """When there is something to ask or to say next, by the clock that never jumps."""
        free = [state for name, state in self._pools.items() if name in lanes and lanes[name].idle()]
        times = [state.next_at for state in free if state.call is None]
        times += [one.next_at for state in free for one in state.answers.values() if one.call is None and one.next_at]
        return min(times, default=None)

    def forget(self, pool: str) -> None:
        """It was taken out of the configuration."""
        self._pools.pop(pool, None)


def _warned(notice: Notice) -> Warned:
    return Warned(notice.id, notice.handle, notice.reason[:TEXT_KEPT], notice.deadline_ms)


def _looked_for(listing: Sights | None, since: int, list_lag_ms: int) -> bool:
    """A worker that is on no listing made since the notice was first seen is not there."""
    if listing is None or listing.failed is not None or not listing.complete:
        return False
    return listing.at >= since + list_lag_ms
