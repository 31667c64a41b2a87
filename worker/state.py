"""What the agent decides: events and the time go in, orders come out. No socket, no clock, no process.

    hub's answers ┐
    keeper's events ├─→ State ─→ orders for the keeper, reports for the hub, and at last: leave
    signals, time ┘

Standing, from the best to the last:

| standing | takes jobs | how it goes on |
|---|---|---|
| working | yes | a drain, a stop, a lost lease |
| draining | no: gives unstarted ones back | leaves when nothing runs; works again when the hub takes its drain back |
| stopping | no: ends and gives back everything | leaves when nothing runs |
| leaving | no | the last report is acknowledged: exit 0 |
| refused | no | the hub does not know this session any more: everything is ended at once, exit 3 |

A lease that comes near its end without an answer of the hub *fences* in any standing: every job is ended and given
back. A hub that answers later in the same session finds a worker that is free again.
"""

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set

from worker.blackhole import BlackHole
from worker.happened import Ended, Event, GpusLeft, Hooked, Offered, Progressed, Started, Usage
from worker.held import Held
from worker.hooks.told import FAILED as HOOK_FAILED
from worker.intake import Intake, key_of
from worker.lease import Lease
from worker.orders import (
    FAILED,
    OK,
    REFUSED,
    Cancel,
    EndAll,
    Exit,
    Extend,
    HandBackBy,
    Key,
    LookAtGpus,
    Order,
    Recall,
    Say,
    Start,
)
from worker.outbox import Outbox
from worker.protocol import Assignment, Outcome, Phase, Polled, Registered, Report, Reported, Shape
from worker.terms import (
    FAREWELL_MS,
    KILL_GRACE_MS,
    LAST_MARGIN_MS,
    LAST_STRETCH_MS,
    SAME_SIGNAL_MS,
    SETTLE_MS,
    SHAPE_MS,
    Terms,
)
from worker.usage import Rates

KEEPER_DIED = "keeper-died"


class Drain(NamedTuple):
    reason: str
    by_hub: bool
    deadline: Optional[int] = None  # by our own clock
    text: str = ""  # why, in a sentence: a notice's


class State:
    """One session with the hub. `now` is CLOCK_BOOTTIME in ms everywhere."""

    def __init__(
        self,
        registered: Registered,
        terms: Terms,
        outbox: Outbox,
        asked_at: int,
        now: int,
        shape: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """`shape` is what was told at the registration."""
        self.session = registered["session"]
        self.terms = terms
        self.outbox = outbox
        self.held = Held()
        self._intake = Intake(self.held, outbox)
        self._black_hole = BlackHole(terms.black_hole)
        self._shape = dict(shape or {})
        self._shape_told_at = now
        self.drain: Optional[Drain] = None
        self.stopping = ""
        self.leaving = ""  # why; set once nothing is left but to say so
        self.fenced = False
        self.refused = ""
        self._ack = 0
        self._usage = Rates()
        self._reshaped = False
        self._offered: Optional[Offered] = None  # what its neighbours leave of it
        self._told_of_loss = False
        self.signals = 0
        self._signalled_at = now
        self.lease = Lease(registered["lease_ms"], asked_at)
        self._keeper_until = self.lease.ends  # the keeper ends everything then, itself too
        self._idle_since: Optional[int] = now
        self._drain_known_at: Optional[int] = None  # since when the hub knows of a drain of ours
        self._hands_back_at: Optional[int] = None  # as the keeper knows it
        self._leave_by: Optional[int] = None  # a stop that cannot be told to the hub ends here

    # ------------------------------------------------------------ the hub

    def poll(self) -> Dict[str, Any]:
        return {"session": self.session, "ack": self._ack}

    def polled(self, answer: Polled, asked_at: int, now: int) -> List[Order]:
        orders = self._heard(answer, asked_at)
        if self.is_news(answer):
            self._ack = answer["seq"]
            if answer.get("stop"):
                orders += self._stop("deleted", "the worker was told to stop", 0, now)
            orders += self._follow_drain(answer, now)
            orders += self._follow(answer, now)
        return orders + self.tick(now)

    def is_news(self, answer: Polled) -> bool:
        return answer.get("seq", 0) > self._ack

    def reported(self, answer: Reported, asked_at: int, now: int) -> List[Order]:
        orders = self._heard(answer, asked_at)
        report = self.outbox.acknowledged()
        if report.get("leaving"):
            return [*orders, Exit(self._farewell_code, report["leaving"])]
        if report.get("draining") and self._drains_itself and self._drain_known_at is None:
            self._drain_known_at = now
        if "cache" in (answer.get("tell") or ()):
            self.outbox.cache.tell_all()
        for job, epoch in answer.get("stale") or ():
            text = "it was given to another worker"
            orders.append(Cancel(job, epoch, "stale", text, Outcome.CANCELLED, grace_ms=0))
        return orders + self.tick(now)

    def hub_refused(self, status: int, code: str, text: str) -> List[Order]:
        """It does not want this session any more; a farewell that it does not want was heard."""
        under_way = self.outbox.under_way
        if under_way is not None and under_way.get("leaving"):
            return [Exit(self._farewell_code, under_way["leaving"])]
        self.refused = code or str(status)
        said = Say("refused", {"status": status, "code": code, "text": text})
        return [said, EndAll(0, self.refused, text), Exit(REFUSED, self.refused)]

    def _heard(self, answer: Mapping[str, Any], asked_at: int) -> List[Order]:
        """Any answer of the hub renews the lease, from the moment at which it was asked."""
        if not self.lease.renew(answer.get("lease_ms"), asked_at):
            return []
        orders: List[Order] = [self._extend(asked_at)]
        if self.fenced:
            self.fenced = False
            orders.append(Say("unfenced", {}))
        return orders

    def _extend(self, since: int) -> Extend:
        self._keeper_until = since + self.lease.ms
        return Extend(self.lease.ms, since)

    def _follow(self, answer: Polled, now: int) -> List[Order]:
        """Assignments, cancels and recalls. What is taken back in the same breath never starts."""
        cancels, recalls = answer.get("cancel") or (), answer.get("recall") or ()
        orders = self._take(answer.get("assign") or (), {key_of(each) for each in cancels}, now)
        for each in cancels:
            reason = each.get("reason") or "cancelled"
            orders.append(Cancel(each["job"], each["epoch"], reason, "", Outcome.CANCELLED))
        recalled = [key for key in map(key_of, recalls) if key in self.held.queued]
        if recalled:
            orders.append(Recall(recalled))
        return orders

    def _take(self, assignments: Sequence[Assignment], cancelled: Set[Key], now: int) -> List[Order]:
        held_nothing = self.held.nothing
        refusal = self.stopping or (self.drain.reason if self.drain else "max-runs")
        left = None if self.terms.ends_at is None else self.terms.ends_at + LAST_STRETCH_MS - now
        taken = self._intake.take(assignments, cancelled, self._room, refusal, now, left)
        if not taken:
            return []
        orders: List[Order] = [self._extend(self.lease.answered)] if held_nothing else []
        self._idle_since = None
        return [*orders, Start(taken)]

    @property
    def _room(self) -> Optional[int]:
        """How many more attempts it takes; None: any number."""
        if not self._accepts:
            return 0
        if self.terms.max_runs is None:
            return None
        return max(0, self.terms.max_runs - self.held.runs - len(self.held.queued))

    @property
    def _accepts(self) -> bool:
        """A drain by the hub means that it assigns no more, so what it still sends was meant."""
        return not (self._drains_itself or self.leaving or self.refused or self.fenced)

    def _follow_drain(self, answer: Polled, now: int) -> List[Order]:
        told = answer.get("drain")
        if told is None:
            if self.drain is not None and self.drain.by_hub and not self.leaving:
                self.drain = None
                return [Say("undrained", {})]
            return []
        deadline = told.get("deadline_ms")
        if deadline is not None:
            deadline = now + deadline - answer.get("now_ms", deadline)
        return self._begin_drain(Drain(_reason(told.get("reason")), True, deadline))

    def _begin_drain(self, drain: Drain) -> List[Order]:
        known = self.drain
        if known is not None:
            if drain.deadline is not None:
                self.drain = known._replace(deadline=drain.deadline)
            return []
        self.drain = drain
        self.outbox.tell()
        orders: List[Order] = [Say("draining", {"reason": drain.reason, "running": len(self.held.started)})]
        if self.held.queued:
            orders.append(Recall(sorted(self.held.queued)))
        return orders

    # ------------------------------------------------------------ the keeper

    def happened(self, events: Sequence[Event], now: int) -> List[Order]:
        outbox = self.outbox
        orders: List[Order] = []
        for event in events:
            if isinstance(event, Ended):
                result = event.result
                self.held.end((result["job"], result["epoch"]))
                outbox.result(result, now)
                orders += self._suspect(self._black_hole.saw(result, now))
            elif isinstance(event, Progressed):
                self.progressed(event.job, event.epoch, Phase.RUNNING, event.done, event.whole, event.text)
            elif isinstance(event, Offered):
                self._offered, self._reshaped = event, True
                outbox.tell()
            elif isinstance(event, Usage):
                outbox.usage = self._usage.of_jobs(event.jobs, now)
            elif isinstance(event, GpusLeft):
                orders.append(LookAtGpus(event.gpus))
            elif isinstance(event, Hooked):
                orders.append(_said(event))
            elif isinstance(event, Started):
                self.held.begin((event.job, event.epoch))
                outbox.start(event.job, event.epoch, event.started_ms, now)
            else:
                outbox.output(event.job, event.epoch, event.offset, event.data, now)
        if outbox.lost and not self._told_of_loss:
            self._told_of_loss = True
            orders.append(Say("output-lost", {"bytes": outbox.lost}))
        return orders + self.tick(now) if orders else self.tick(now)

    def _suspect(self, text: Optional[str]) -> List[Order]:
        """It takes no more jobs, and says why."""
        if text is None or self.drain is not None or self.stopping:
            return []
        return [Say("black-hole", {"text": text}), *self._begin_drain(Drain("black-hole", False, text=text))]

    def keeper_died(self, text: str, now: int) -> List[Order]:
        """Everything that it ran died with it."""
        self._intake.give_back(self.held.all, KEEPER_DIED, "the process that ran its jobs died", now)
        return [
            Say(KEEPER_DIED, {"text": text}),
            *self._stop(KEEPER_DIED, "its keeper died", 0, now),
            *self.tick(now),
        ]

    @property
    def _farewell_code(self) -> int:
        return FAILED if self.stopping == KEEPER_DIED else OK

    def reconcile(self, known: Iterable[Key], now: int) -> List[Order]:
        """After an error of our own: what the keeper does not know is given back, what only it knows is ended."""
        keys = set(known)
        self._intake.give_back(self.held.all - keys, "agent-error", "its worker made an error", now)
        unknown = sorted(keys - self.held.all)
        text = "its worker made an error"
        return [Cancel(job, epoch, "agent-error", text, Outcome.RETURNED, grace_ms=0) for job, epoch in unknown]

    def _now_has(self) -> Dict[str, Any]:
        if self._offered is None:
            return dict(self._shape)
        return self._offered.of(Shape.from_wire(self._shape)).to_wire()

    def reshaped(self, shape: Mapping[str, Any]) -> None:
        """What it has is less from now on: the hub hears it at once."""
        self._shape = dict(shape)
        self._reshaped = True
        self.outbox.tell()

    def measured(self, own: Mapping[str, Any]) -> None:
        """What the agent itself uses; it goes with what its jobs use."""
        self._usage.own = dict(own)

    def progressed(self, job: str, epoch: int, phase: str, done: int, whole: Optional[int], text: str) -> None:
        """How far an attempt that is held here is; the hub hears the newest of each, about once a second."""
        if (job, epoch) in self.held.started or (job, epoch) in self.held.queued:
            self.outbox.progress.learn(job, epoch, phase, done, whole, text)

    def cached(self, news: Mapping[str, Any]) -> None:
        """A `CacheNews`: what the cache holds now, since the last one; the hub hears it with the next report."""
        self.outbox.cache.learn(news)

    # ------------------------------------------------------------ signals

    def signalled(self, now: int) -> List[Order]:
        """TERM, INT or HUP: the first drains (or ends the jobs), the second hands everything back, the third exits."""
        if self.signals and now < self._signalled_at + SAME_SIGNAL_MS:
            return []
        self.signals += 1
        self._signalled_at = now
        if self.signals == 1 and self.terms.pass_down:
            orders = self._stop("signal", "its worker was told to stop", KILL_GRACE_MS, now)
        elif self.signals == 1:
            orders = self._begin_drain(Drain("signal", False))
            if self.drain is not None:
                self.drain = self.drain._replace(by_hub=False)  # it goes even when the hub takes its drain back
                self.outbox.tell()
        elif self.signals == 2:
            orders = self._stop("signal", "its worker was told to stop", 0, now)
        else:
            return [Exit(FAILED, "signal")]
        return orders + self.tick(now)

    def noticed(self, now: int) -> List[Order]:
        """USR2: the machine is taken away in a while, whatever was said of its walltime before."""
        ends_at = self._bring_nearer(now + self.terms.notice_ms)
        return [Say("notice", {"ends_in_ms": ends_at - now}), *self.tick(now)]

    def warned(self, reason: str, text: str, ends_in_ms: Optional[int], now: int) -> List[Order]:
        """The platform itself says that the machine goes: no more jobs, and what runs goes back before the end. Without
        an end it may finish."""
        if ends_in_ms is not None:
            ends_in_ms = self._bring_nearer(now + max(0, ends_in_ms)) - now
        orders: List[Order] = [Say("notice", {"reason": reason, "text": text, "ends_in_ms": ends_in_ms})]
        orders += self._begin_drain(Drain(reason, False, text=text))
        if self.drain is not None:
            self.drain = self.drain._replace(reason=reason, by_hub=False, text=text)
            self.outbox.tell()
        return orders + self.tick(now)

    def _bring_nearer(self, ends_at: int) -> int:
        if self.terms.ends_at is not None:
            ends_at = min(ends_at, self.terms.ends_at)
        self.terms = self.terms._replace(ends_at=ends_at)
        self._reshaped = True  # the hub hears of it at once: it must send nothing that takes longer
        self.outbox.tell()
        return ends_at

    def _stop(self, reason: str, text: str, grace_ms: int, now: int) -> List[Order]:
        self.stopping = self.stopping or reason
        self._leave_by = now + grace_ms + FAREWELL_MS
        self.outbox.tell()
        orders: List[Order] = [Say("stopping", {"reason": reason, "running": len(self.held.started)})]
        if not self.held.nothing:
            orders.append(EndAll(grace_ms, reason, text))
        return orders

    # ------------------------------------------------------------ time

    @property
    def _gives_up_at(self) -> int:
        return self.lease.answered + self.terms.gives_up_after(self.lease.ms)

    def wake_at(self, now: int) -> int:
        """When `tick` should come at the latest."""
        times = [self._gives_up_at if self.held.nothing else self.lease.fence_at if not self.fenced else now + 60_000]
        if self.held.nothing:
            times.append(self._keeper_until - self.lease.ms // 2)
        if self._drain_deadline is not None and not self.held.nothing:
            times.append(self._drain_deadline)
        if self.terms.ends_at is not None and self.drain is None and not self.stopping:
            times.append(self.terms.ends_at - LAST_STRETCH_MS - self.terms.early_ms)
        if self._drain_known_at is not None and self.held.nothing and not self.leaving:
            times.append(self._drain_known_at + SETTLE_MS)
        if self._leave_by is not None:
            times.append(self._leave_by)
        if self._idle_ends is not None:
            times.append(self._idle_ends)
        return min(times)

    @property
    def _drain_deadline(self) -> Optional[int]:
        """When what still runs is ended. However a drain began, the end of the walltime comes no later for it."""
        if self.drain is None or self.stopping:
            return None
        ends_at = self.terms.ends_at
        times = [self.drain.deadline, None if ends_at is None else ends_at - LAST_MARGIN_MS]
        return min((when for when in times if when is not None), default=None)

    def _when_it_hands_back(self) -> List[Order]:
        """Also before any drain: who saves for ten minutes must hear of the walltime's end before the last stretch."""
        if self.stopping:
            return []
        when = self._drain_deadline
        if when is None and self.terms.ends_at is not None:
            when = self.terms.ends_at - LAST_MARGIN_MS
        if when == self._hands_back_at:
            return []
        self._hands_back_at = when
        drain = self.drain or Drain("walltime", False)
        return [HandBackBy(when, drain.reason, drain.text or "its worker goes")]

    @property
    def _idle_ends(self) -> Optional[int]:
        """When this worker has been idle long enough to ask the hub whether it may go."""
        terms = self.terms
        if not terms.asks_to_leave or terms.idle_exit_ms is None or self.drain is not None or self.stopping:
            return None
        return None if self._idle_since is None or not self.held.nothing else self._idle_since + terms.idle_exit_ms

    def tick(self, now: int) -> List[Order]:
        """What time alone, or the sum of what happened, makes due."""
        orders: List[Order] = []
        if not self.held.nothing and not self.fenced and now >= self.lease.fence_at:
            self.fenced = True
            orders.append(Say("fenced", {"running": len(self.held.started), "silent_ms": self.lease.silent_for(now)}))
            orders.append(EndAll(0, "lease-lost", "its worker lost the hub"))
        orders += self._what_is_over(now)
        orders += self._when_it_hands_back()
        deadline = self._drain_deadline
        if deadline is not None and now >= deadline and not self.held.nothing:
            why = ("drained", "its worker was drained")
            if self.drain is not None and self.drain.text:
                why = (self.drain.reason, self.drain.text)
            orders += self._stop(*why, KILL_GRACE_MS, now)
        if self.held.nothing:
            self._idle_since = now if self._idle_since is None else self._idle_since
            if not self.leaving and self._may_leave(now):
                self.leaving = self.stopping or (self.drain.reason if self.drain else "") or "stopped"
                self.outbox.tell()
            if now >= self._keeper_until - self.lease.ms // 2:
                orders.append(self._extend(now))  # without jobs it has nothing to fence: it must outlive a long silence
            if now >= self._gives_up_at:
                orders.append(Exit(OK if self.outbox.empty else FAILED, "hub-unreachable"))
        if self._leave_by is not None and now >= self._leave_by:
            orders.append(Exit(FAILED, "hub-unreachable"))
        return orders

    def _what_is_over(self, now: int) -> List[Order]:
        """Reasons of our own to take no more."""
        if self.drain is not None or self.stopping:
            return []
        ends_at = self.terms.ends_at
        if ends_at is not None and now >= ends_at - LAST_STRETCH_MS - self.terms.early_ms:
            return self._begin_drain(Drain("walltime", False))
        if self.terms.max_runs is not None and self.held.runs >= self.terms.max_runs:
            return self._begin_drain(Drain("max-runs", False))
        idle_ends = self._idle_ends
        if idle_ends is not None and now >= idle_ends:
            return self._begin_drain(Drain("idle", False))
        return []

    def _may_leave(self, now: int) -> bool:
        if self.stopping:
            return True
        if self.drain is None:
            return False
        if self.drain.by_hub:
            return True
        return self._drain_known_at is not None and now >= self._drain_known_at + SETTLE_MS

    # ------------------------------------------------------------ reports

    def report_at(self) -> int:
        """When the next report should go; meaningless while one is under way."""
        return self.outbox.due_at(len(self.held.queued))

    def report(self, now: int) -> Report:
        report = self.outbox.take(now, len(self.held.started), self._drains_itself, self.leaving)
        if self.drain is not None and self.drain.text and report["draining"]:
            report["why"] = {"code": self.drain.reason, "text": self.drain.text}
        if self.terms.ends_at is not None and (self._reshaped or now >= self._shape_told_at + SHAPE_MS):
            self._shape_told_at = now
            report["shape"] = {**self._now_has(), "walltime": max(0, self.terms.ends_at - now)}
        elif self._reshaped:
            report["shape"] = self._now_has()
        self._reshaped = False
        return report

    @property
    def _drains_itself(self) -> bool:
        """What the hub ordered it need not be told, and may take back."""
        return bool(self.stopping) or (self.drain is not None and not self.drain.by_hub)


def _reason(told: Any) -> str:
    """The hub's reason is a word, or a reason code with its numbers."""
    return str(told.get("code", "drained")) if isinstance(told, dict) else str(told or "drained")


def _said(event: Hooked) -> Say:
    facts = {"hook": event.hook, "job": event.job, "epoch": event.epoch, "took_ms": event.took_ms}
    facts["output"] = event.output
    return Say(HOOK_FAILED, {**facts, "text": event.wrong}) if event.wrong else Say("hook", facts)
