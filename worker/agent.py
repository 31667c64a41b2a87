"""The agent's loop: one thread that waits for the hub, the keeper, signals and time, and carries out what `state` says.

Two lines lead to the hub: on one a poll always waits, on the other reports go. Only this file has effects; everything
that is decided is decided in `state` and `outbox`.
"""

import json
import os
import select
import sys
import time
from dataclasses import replace
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from worker import answers, here, orders
from worker.host import memory_in_use
from worker.journal import Journal, utc_ms
from worker.link import client
from worker.link.connection import Unreachable
from worker.link.http1 import request
from worker.link.joining import Joined
from worker.link.line import Dialer, Line
from worker.options import Options
from worker.orders import Order
from worker.outbox import Outbox
from worker.protocol import Shape
from worker.runner import KeeperDied
from worker.signals import Signals
from worker.spool import Spool
from worker.stages.layer import Stages
from worker.stages.stagernews import FILE_WAYS, Cached, NoMoreFiles, Progress
from worker.state import State
from worker.terms import Terms, early
from worker.usage import Own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.checkpoints import Janitor
    from worker.gpu.watch import GpuWatch
    from worker.notices.watch import Watch

POLL_SLACK_MS = 15_000  # beyond the time that the hub may let a poll wait
POLL_PAUSE_MS = 100  # a hub that does not let a poll wait is not asked without a pause
REPORT_TIMEOUT_MS = 20_000  # at the most: a line on which nothing comes any more must not cost the whole lease
LEAST_TIMEOUT_MS = 1000
ALIVE_MS = 60_000
USAGE_MS, USAGE_LEAD_MS = 1000, 150  # no oftener; so long before a heartbeat that the keeper has answered
MISHAP_PAUSE_S = 0.5
MOST_COMPLAINTS = 8


def boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Agent:
    def __init__(
        self,
        options: Options,
        shape: Shape,
        joined: Joined,
        runner: Stages,
        work_dir: str,
        signals: Signals,
        journal: Journal,
        gpus: Sequence[str] = (),
        janitor: "Optional[Janitor]" = None,
    ) -> None:
        now = boot_ms()
        self._janitor = janitor
        told = joined.registered
        self._options = options
        self._runner: Optional[Stages] = runner
        self._signals = signals
        self._journal = journal
        self._credential = joined.credential
        self._worker = told.get("worker") or options.worker
        self._poll_ms = told["poll_ms"]
        heartbeat_ms = min(told["heartbeat_ms"], options.heartbeat_ms or told["heartbeat_ms"])
        self._spool = Spool(work_dir)
        self._outbox = Outbox(told["session"], heartbeat_ms, self._spool, now)
        on_terms = terms(options.terms, shape, self._worker, now)
        self._state = State(told, on_terms, self._outbox, joined.asked_at, now, shape.to_wire())
        self._poller = select.poll()
        self._dialer = Dialer(options.server)
        self._polls = Line(self._dialer, self._poller)
        self._reports = Line(self._dialer, self._poller)
        self._runner_events = 0
        self._stager = -1  # the descriptor of its channel
        self._exit: Optional[orders.Exit] = None
        self._body: bytes = b""  # of the report under way
        self._alive_at = now
        self._own = Own(work_dir)
        self._gpus = gpus
        self._gpus_known = False  # whether anybody tells of them
        self._gpu_watch: Optional["GpuWatch"] = None
        self._shape = shape
        self._usage_ms = max(USAGE_MS, heartbeat_ms)
        self._usage_at = now + self._usage_ms - USAGE_LEAD_MS
        self._complaints: Set[str] = set()  # about the hub, since it was last reached
        self._here = here.Answering(work_dir)
        self._notices = notices_of(options.notices)
        self._watch(joined)

    def _watch(self, joined: Joined) -> None:
        if joined.reusable:
            self._polls.adopt(joined.connection, used=True)
        else:
            joined.connection.close()
        self._poller.register(self._dialer.fileno(), select.POLLIN)
        self._poller.register(self._signals.fileno(), select.POLLIN)
        if self._here.fileno() >= 0:
            self._poller.register(self._here.fileno(), select.POLLIN)
        if self._notices is not None:
            self._poller.register(self._notices.fileno(), select.POLLIN)
        if self._runner is not None:
            self._runner.extend_lease(joined.registered["lease_ms"], joined.asked_at)

    # ------------------------------------------------------------ the loop

    def run(self) -> int:
        """Until it may or must go; the exit status."""
        while self._exit is None:
            try:
                self._step()
            except KeeperDied as death:
                self._keeper_died(str(death))
            except Exception:
                self._mishap()
        self._journal("exit", reason=self._exit.reason, status=self._exit.code, runs=self._state.held.runs)
        return self._exit.code

    def _step(self) -> None:
        now = boot_ms()
        self._carry_out(self._state.tick(now))
        if self._exit is not None:
            return
        self._send_what_is_due(now)
        self._flush_runner()
        self._watch_stager()
        for fd, _ in self._poller.poll(self._pause(boot_ms())):
            self._attend(fd)
        if self._runner is not None and self._runner.has_news:
            self._heed_stager(self._runner)
            self._heed_keeper(self._runner)

    def _pause(self, now: int) -> int:
        if self._runner is not None and self._runner.has_news:
            return 0
        times = [self._state.wake_at(now), self._alive_at + ALIVE_MS, self._usage_at]
        if self._gpu_watch is not None and self._gpu_watch.due is not None:
            times.append(self._gpu_watch.due)
        due_in = None if self._runner is None else self._runner.due_in()
        if due_in is not None:
            times.append(now + due_in)
        for line in (self._polls, self._reports):
            if line.busy:
                times.append(line.deadline)
        if not self._polls.busy and not self._state.leaving:
            times.append(self._polls.open_at)
        if not self._reports.busy:
            due = 0 if self._outbox.under_way is not None else self._state.report_at()
            times.append(max(due, self._reports.open_at))
        return max(0, min(min(times) - now, 60_000))

    def _attend(self, fd: int) -> None:
        if fd == self._polls.fileno():
            self._hear(self._polls)
        elif fd == self._reports.fileno():
            self._hear(self._reports)
        elif fd == self._signals.fileno():
            self._heed_signals()
        elif fd == self._dialer.fileno():
            self._connect()
        elif fd == self._here.fileno():
            self._here.answer(lambda: dict(self._facts(), signals=self._state.signals, held=self._held()))
        elif self._notices is not None and fd == self._notices.fileno():
            self._heed_notices(self._notices)
        elif self._runner is not None and fd == self._stager:
            self._heed_stager(self._runner)
        elif self._runner is not None:
            self._heed_keeper(self._runner)

    def _heed_keeper(self, runner: Stages) -> None:
        events = runner.read()
        if events:
            self._carry_out(self._state.happened(events, boot_ms()))

    def _heed_stager(self, runner: Stages) -> None:
        told = runner.read_stager()
        self._watch_stager()  # now: the number of one that has gone may be another's in a moment
        for news in told:
            if isinstance(news, Progress):
                self._state.progressed(*news)
            elif isinstance(news, Cached):
                self._state.cached(news.news)
            elif isinstance(news, NoMoreFiles):
                ways = tuple(way for way in self._shape.can if way not in FILE_WAYS)
                self._shape = replace(self._shape, can=ways)
                self._state.reshaped(self._shape.to_wire())
            else:
                self._journal(news.event, text=news.text)

    # ------------------------------------------------------------ the hub

    def _send_what_is_due(self, now: int) -> None:
        if now >= self._usage_at:
            self._measure(now)
        self._look_at_left_gpus(now)
        for line in (self._polls, self._reports):
            if line.busy and now >= line.deadline:
                self._unreachable(line, Unreachable("no answer came in time"))
        if not self._polls.busy and now >= self._polls.open_at and not self._state.leaving:
            patience = self._poll_ms + min(POLL_SLACK_MS, self._patience_ms)
            self._ask(self._polls, "poll", _encoded(self._state.poll()), patience, now)
        if not self._reports.busy and now >= self._reports.open_at:
            if self._outbox.under_way is None and now >= self._state.report_at():
                self._body = _encoded(self._state.report(now))
            if self._outbox.under_way is not None:
                self._ask(self._reports, "report", self._body, self._patience_ms, now)
        if now >= self._alive_at + ALIVE_MS:
            self._alive_at = now
            self._journal.say("alive", self._facts())
            gone = () if self._janitor is None else self._janitor.look(now)
            if gone:
                self._journal("checkpoints-removed", folders=list(gone))

    @property
    def _patience_ms(self) -> int:
        """How long an answer may take. Within one lease there is time to ask again on a fresh connection."""
        return min(REPORT_TIMEOUT_MS, max(self._state.lease.ms // 3, LEAST_TIMEOUT_MS))

    def _ask(self, line: Line, what: str, body: bytes, timeout_ms: int, now: int) -> None:
        to = self._options.server
        path = "%s/v1/workers/%s/%s" % (to.base, self._worker, what)
        try:
            line.ask(request("POST", path, to.authority, self._credential, body), timeout_ms, now)
        except Unreachable as error:
            self._unreachable(line, error)

    def _connect(self) -> None:
        for line, attempt, result in self._dialer.hand_over():
            try:
                line.dialed(attempt, result)
            except Unreachable as error:
                self._unreachable(line, error)

    def _hear(self, line: Line) -> None:
        try:
            response = line.ready()
            if response is None:
                return
            self._follow(line, client.answer(response))
        except Unreachable as error:
            self._unreachable(line, error)
        except client.Refused as refused:
            self._refused(line, refused)

    def _follow(self, line: Line, told: Dict[str, Any]) -> None:
        now = boot_ms()
        if line is self._polls:
            polled = answers.polled(told)
            if not self._state.is_news(polled) and now < line.asked_at + POLL_PAUSE_MS:
                line.open_at = now + POLL_PAUSE_MS
            found = self._state.polled(polled, line.asked_at, now)
        else:
            under_way = self._outbox.under_way or {}
            found = self._state.reported(answers.reported(told, under_way.get("seq", 0)), line.asked_at, now)
        if self._complaints:
            self._complaints.clear()
            self._journal("hub-reached")
        self._carry_out(found)

    def _unreachable(self, line: Line, error: Unreachable) -> None:
        """Each cause is said once: that a hub which was away shows a wrong certificate now, too. One that asks for a
        long pause gets no longer one than the lease allows."""
        now = boot_ms()
        line.failed(now, min(error.retry_after_ms, self._patience_ms))
        text = str(error)
        if text not in self._complaints and len(self._complaints) < MOST_COMPLAINTS:
            self._complaints.add(text)
            self._journal.say("hub-unreachable", {"text": text, "silent_ms": self._state.lease.silent_for(now)})

    def _refused(self, line: Line, refused: client.Refused) -> None:
        if line is self._reports and refused.status in (400, 413, 422) and self._outbox.without_output():
            self._journal("output-refused", status=refused.status, text=str(refused))
            self._body = _encoded(self._outbox.under_way)
            return
        self._carry_out(self._state.hub_refused(refused.status, refused.code, str(refused)))

    # ------------------------------------------------------------ orders

    def _carry_out(self, found: Sequence[Order]) -> None:
        for order in found:
            if isinstance(order, orders.Say):
                self._journal.say(order.event, order.facts)
            elif isinstance(order, orders.Exit):
                self._exit = self._exit or order
            elif isinstance(order, orders.LookAtGpus):
                if self._gpu_watch is not None:
                    self._gpu_watch.left(order.gpus, boot_ms())
            elif self._runner is not None:
                _tell(self._runner, order)

    def _flush_runner(self) -> None:
        """Watch the keeper's channel; for room in it too while something waits here."""
        if self._runner is None:
            return
        wanted = select.POLLIN | (0 if self._runner.flush() else select.POLLOUT)
        if wanted != self._runner_events:
            self._poller.register(self._runner.fileno(), wanted)
            self._runner_events = wanted

    def _watch_stager(self) -> None:
        """It comes with the first job that has files, and another when it dies."""
        fd = -1 if self._runner is None else self._runner.stager_fileno()
        if fd != self._stager:
            if self._stager >= 0:
                self._poller.unregister(self._stager)
            if fd >= 0:
                self._poller.register(fd, select.POLLIN)
            self._stager = fd

    def _keeper_died(self, text: str) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            self._poller.unregister(runner.fileno())
            self._watch_stager()
            runner.close()
        self._carry_out(self._state.keeper_died(text, boot_ms()))

    def _heed_signals(self) -> None:
        for name in self._signals.taken():
            if name == "dump":
                self._journal.say("dump", dict(self._facts(), held=self._held(), threads=_stacks()))
            elif name == "notice":
                self._carry_out(self._state.noticed(boot_ms()))
            else:
                self._journal("signal", name=name)
                self._carry_out(self._state.signalled(boot_ms()))

    def _heed_notices(self, watch: "Watch") -> None:
        for news in watch.taken():
            if isinstance(news, Unreachable):
                self._journal("notices-unreadable", text=str(news))
                continue
            ends_in_ms = None if news.ends_ms is None else news.ends_ms - utc_ms()
            self._carry_out(self._state.warned(news.reason, news.text, ends_in_ms, boot_ms()))

    def _mishap(self) -> None:
        """An error of our own. The jobs go on, unless we were told to leave on one."""
        import traceback

        self._journal("error", text=traceback.format_exc())
        if self._options.exit_on_exception:
            self._exit = orders.Exit(orders.FAILED, "exception")
            return
        time.sleep(MISHAP_PAUSE_S)
        known = () if self._runner is None else self._runner.running()
        self._carry_out(self._state.reconcile(known, boot_ms()))

    def _measure(self, now: int) -> None:
        """What it and its jobs use, in time for the next heartbeat; it goes with whatever is reported next."""
        self._usage_at = now + self._usage_ms
        if self._runner is not None:
            if self._gpus:
                self._look_after_gpus(self._runner)
            own = self._own.now((os.getpid(), self._runner.keeper, self._runner.stager), now)
            if self._gpu_watch is not None:
                own["gpus"] = self._gpu_watch.usage()
            self._state.measured(own)
            self._runner.ask_usage()

    def _look_after_gpus(self, runner: Stages) -> None:
        """Where NVML tells; it is loaded once, and only for a worker with GPUs. One that is lost or fails goes out: its
        jobs go on, the next get others."""
        if not self._gpus_known:
            from worker.gpu import watch as gpuwatch

            self._gpus_known = True
            self._gpu_watch = gpuwatch.watch(self._gpus)
            if self._gpu_watch is not None:
                runner.check_gpus()
        elif self._gpu_watch is not None:
            self._lose_gpus(runner, self._gpu_watch.troubles())

    def _lose_gpus(self, runner: Stages, out: Sequence[Tuple[str, str]]) -> None:
        for gpu, text in out:
            self._gpus = [each for each in self._gpus if each != gpu]
            self._shape = replace(self._shape, gpus=max(0, self._shape.gpus - 1))
            self._journal("gpu-out", gpu=gpu, text=text, left=self._shape.gpus)
            runner.lose_gpu(gpu, self._shape)
            self._state.reshaped(self._shape.to_wire())

    def _look_at_left_gpus(self, now: int) -> None:
        watch = self._gpu_watch
        if watch is None or self._runner is None or watch.due is None or now < watch.due:
            return
        free, out = watch.look(now)
        for gpu in free:
            self._runner.gpu_is_free(gpu)
        self._lose_gpus(self._runner, out)

    # ------------------------------------------------------------ for people

    def _facts(self) -> Dict[str, Any]:
        state = self._state
        standing = "leaving" if state.leaving else "stopping" if state.stopping else "draining" if state.drain else ""
        return {
            "standing": standing or ("fenced" if state.fenced else "working"),
            "running": len(state.held.started),
            "queued": len(state.held.queued),
            "runs": state.held.runs,
            "reports": self._outbox.reports,
            "unreported": self._outbox.waiting,
            "output_lost": self._spool.lost,
            "silent_ms": state.lease.silent_for(boot_ms()),
            "rss": memory_in_use(),
        }

    def _held(self) -> List[List[Any]]:
        phases = {} if self._runner is None else self._runner.phases()
        rows = [[*key, phases.get(key, "running")] for key in sorted(self._state.held.started)]
        return rows + [[*key, phases.get(key, "queued")] for key in sorted(self._state.held.queued)]

    def close(self) -> None:
        """Ends what still runs, and the keeper."""
        if self._runner is not None:
            self._runner.close()
        self._polls.close()
        self._reports.close()
        self._here.close()
        if self._notices is not None:
            self._notices.close()
        self._spool.close()


def notices_of(wanted: str) -> "Optional[Watch]":
    """None where no platform is known to give any: then it costs nothing."""
    platform = wanted
    if wanted == "auto":
        from worker.notices.watch import platform_of

        platform = platform_of(os.environ)
    if platform in ("", "off"):
        return None
    from worker.notices.watch import Watch, source_of

    return Watch(source_of(platform, os.environ))


def terms(told: Terms, shape: Shape, worker: str, now: int) -> Terms:
    if shape.walltime is None:
        return told
    return told._replace(ends_at=now + shape.walltime, early_ms=early(worker, shape.walltime))


def _tell(runner: Stages, order: Order) -> None:
    if isinstance(order, orders.Start):
        runner.start(order.assignments)
    elif isinstance(order, orders.Recall):
        runner.recall(order.attempts)
    elif isinstance(order, orders.Cancel):
        runner.cancel(order.job, order.epoch, order.reason, order.text, order.grace_ms, order.outcome)
    elif isinstance(order, orders.EndAll):
        runner.stop(order.grace_ms, order.reason, order.text)
    elif isinstance(order, orders.HandBackBy):
        runner.hand_back_by(order.when, order.reason, order.text)
    elif isinstance(order, orders.Extend):
        runner.extend_lease(order.ms, order.asked_at)


def _encoded(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _stacks() -> Dict[str, List[str]]:
    import traceback

    return {str(thread): traceback.format_stack(frame) for thread, frame in sys._current_frames().items()}
