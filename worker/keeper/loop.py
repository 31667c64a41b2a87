"""The keeper: a small process of its own that starts, watches, ends and reaps the attempts of one agent.

One thread, one epoll. It adopts every orphan among its descendants, so nothing that a job starts can get away from it.
When the agent's end of the channel closes, or the lease runs out, it kills everything and exits.

Life of an attempt here: queued → running → swept (its main process has ended, what it left behind is being killed)
→ over. It is reported over only when no process of it is left.

Here are the loop, the lease, and what the agent orders. Of the rest, `main` starts the keeper, `startup` an attempt;
`pipes` reads its output, `ending` ends and reaps it, `roster` knows whose a process is, `news` tells of it.
"""

from __future__ import annotations

import os
import select
import sys
import time

from worker.channel import DONE, LEASE_ENDED, Channel
from worker.hooks.told import AFTER, BEFORE
from worker.hooks.told import FAILED as HOOK_FAILED
from worker.keeper.attempt import OVER, QUEUED, RUNNING, Attempt, Ending, WorkerProblem
from worker.keeper.ending import SWEEP_MS, Ender
from worker.keeper.news import News
from worker.keeper.packing import Queue, Room, Taken
from worker.keeper.pipes import Pipes
from worker.keeper.roster import Roster
from worker.keeper.slots import Remover, Slots
from worker.keeper.startup import Starter, is_shortage, may_pass, why_not_started
from worker.processes import boot_ms
from worker.progress import Scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Mapping

    from worker.hooks.around import Around
    from worker.isolation.isolator import Isolator
    from worker.keeper.packing import Asks
    from worker.limits.limiter import Limiter
    from worker.machine.sharing import Sharing

REST_MS = (250, 500, 1000, 2000)  # before another try to start what failed for want of something that may come back
LEASE_CHECK_MS = 1000  # epoll does not count the time a machine sleeps, the lease does


class Keeper:
    def __init__(
        self,
        channel: Channel,
        work_dir: str,
        room: Room,
        env: dict[str, str],
        places: Iterable[tuple[str, int, str, str]] = (),
        isolation: Mapping[str, Any] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """`places`: where control groups can be made, see `limits.places`."""
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._slots = slots = Slots(work_dir)
        self._channel = channel
        self._epoll = select.epoll()
        self._room = room
        self._queue = Queue(room)
        self._remover = Remover(slots, nothing)
        self._roster = Roster(self._remover)
        self._news = News(channel, self._epoll, self._queue)
        self._pipes = Pipes(self._epoll, self._news)
        self._starter = Starter(room, slots, self._pipes, env, nothing, self._limiter, self._isolator, self._news)
        self._places = places
        self._limits: Limiter | None = None  # until a job needs one
        if places:
            self._limiter()  # what an earlier keeper left goes now
        self._isolation = isolation  # what the agent found out, see `isolation.found`
        self._isolated: Isolator | None = None  # until a job asks for it
        self._setting = (work_dir, env, nothing)
        self._around: Around | None = None  # the hooks of jobs
        self._ender = Ender(self._roster, lambda attempt: self._isolator().has_ended(attempt))
        self._epoll.register(self._ender.wake, select.EPOLLIN)
        self._sharing = sharing  # with other workers of this machine
        if sharing is not None:
            self._epoll.register(sharing.fileno(), select.EPOLLIN)
        self._stuck = False  # nothing of the queue can start until an attempt ends, comes, or the room changes
        self._rests_until = 0  # nothing is started before
        self._lease_end: int | None = None
        self._asked_to_end = False

    # ------------------------------------------------------------ the loop

    def run(self) -> int:
        """Until the agent is gone, says so, or has not extended the lease. Then nothing of any job is left."""
        try:
            while True:
                if self._channel.closed or self._asked_to_end:
                    return DONE
                if self._lease_end is not None and boot_ms() >= self._lease_end:
                    return LEASE_ENDED
                self._step()
        finally:
            self._ender.end_everything()
            if self._isolated is not None:
                self._isolated.close()
            if self._limits is not None:
                self._limits.close()
            if self._sharing is not None:
                self._sharing.close()

    def _step(self) -> None:
        now = boot_ms()
        if self._sharing is not None and self._sharing.look(now):
            self._stuck = False
        self._start_what_fits(now)
        if self._sharing is not None:
            self._heed_neighbours(self._sharing, now)
        self._ender.keep_time(now)
        if self._around is not None:
            self._around.keep_time(now)
        if self._limits is not None and self._limits.look_at is not None:
            self._keep_limits(self._limits, now)
        self._news.deliver(now)
        self._pipes.read_held()
        self._remover.begin()
        for fd, _ in self._epoll.poll(self._patience(now) / 1000):
            if fd == self._ender.wake:
                self._ender.reap()
            elif fd == self._channel.fd:
                self.obey(self._channel.receive())
            elif self._sharing is not None and fd == self._sharing.fileno():
                self._sharing.heard(boot_ms(), bool(len(self._queue)))
            elif self._around is None or not self._around.read(fd):
                self._pipes.read(fd)
        if self._around is not None:
            self._around.finish()
        if self._ender.swept:
            for attempt, clean in self._ender.sweep(boot_ms()):
                self._is_over(attempt, clean)

    def _patience(self, now: int) -> float:
        """How long nothing happens by itself, in ms; −1000 for ever (epoll's −1)."""
        waits = [when - now for when in self._ender.due.values()]
        if now < self._rests_until:
            waits.append(self._rests_until - now)
        if self._ender.handed:
            waits += [when - now for when in self._ender.handed.values()]
        if self._around is not None:
            waits += self._around.waits(now)
        if self._news.send_at is not None:
            waits.append(self._news.send_at - now)
        if self._ender.swept:
            waits.append(SWEEP_MS)
        if self._limits is not None and self._limits.look_at is not None:
            waits.append(self._limits.look_at - now)
        if self._sharing is not None:
            waits.append(self._sharing.due() - now)
        if self._lease_end is not None:
            waits.append(min(LEASE_CHECK_MS, self._lease_end - now))
        return max(0, min(waits)) if waits else -1000

    # ------------------------------------------------------------ what the agent says

    def obey(self, messages: list[tuple[Any, ...]]) -> None:
        for name, *arguments in messages:
            getattr(self, "_on_" + name)(*arguments)

    def _on_start(self, *asked: Any) -> None:
        attempt = Attempt(*asked)
        if (attempt.job, attempt.epoch) not in self._roster.attempts:
            self._roster.attempts[attempt.job, attempt.epoch] = attempt
            self._queue.put(attempt, attempt.asks, boot_ms())
            self._stuck = False

    def _on_look_for(self, job: str, epoch: int, pattern: str) -> None:
        """Its progress is what this finds in its output."""
        attempt = self._roster.attempts.get((job, epoch))
        if attempt is not None:
            attempt.progress = Scanner(pattern)

    def _on_hooks(self, told: Mapping[str, Any]) -> None:
        """Before anything is to start."""
        from worker.hooks.around import Around  # most keepers have none

        work_dir, env, nothing = self._setting
        marks = {"WM_KEEPER": env["WM_KEEPER"]} if "WM_KEEPER" in env else {}
        told = {**told, "env": {**told["env"], **marks}}
        self._around = Around(told, work_dir, self._epoll, self._roster, self._news, nothing)

    def _on_cancel(self, job: str, epoch: int, outcome: str, reason: str, text: str, grace_ms: int | None) -> None:
        attempt = self._roster.attempts.get((job, epoch))
        if attempt is not None:
            self._cancel(attempt, Ending(outcome, reason, text), grace_ms)

    def _on_cancel_all(self, outcome: str, reason: str, text: str, grace_ms: int) -> None:
        for attempt in list(self._roster.attempts.values()):
            self._cancel(attempt, Ending(outcome, reason, text), grace_ms)

    def _on_recall(self, attempts: Iterable[tuple[str, int]], text: str) -> None:
        for job, epoch in attempts:
            attempt = self._roster.attempts.get((job, epoch))
            if attempt is not None and attempt.state == QUEUED:
                self._cancel(attempt, Ending("returned", "recalled", text), 0)

    def _on_room(self, has: Asks | None) -> None:
        self._room.resize(has)
        self._stuck = False

    def _on_hand_back_by(self, when: int | None, reason: str, text: str) -> None:
        self._ender.hand_back_by(when, Ending("returned", reason, text))

    def _on_lose_gpu(self, gpu: str) -> None:
        self._room.lose_gpu(gpu)
        self._starter.gpu_is_free(gpu)

    def _on_check_gpus(self) -> None:
        self._starter.checks_gpus = True

    def _on_gpu_is_free(self, gpu: str) -> None:
        self._starter.gpu_is_free(gpu)
        self._stuck = False

    def _on_discard(self, paths: Iterable[str]) -> None:
        """Directories that were set aside, and are not needed any more."""
        self._slots.garbage += paths

    def _on_lease(self, end: int) -> None:
        self._lease_end = end

    def _on_usage(self) -> None:
        """What each running attempt uses now; asked seldom, so nothing is kept for it in between."""
        running = list(self._roster.running.values())
        self._news.usage([(each.job, each.epoch, *self._limiter().usage(each), each.gpus) for each in running])

    def _on_end(self) -> None:
        self._asked_to_end = True

    def _cancel(self, attempt: Attempt, ending: Ending, grace_ms: int | None) -> None:
        if attempt.state == QUEUED:
            self._queue.remove(attempt, attempt.asks)
            attempt.ending = ending
            self._is_done(attempt)
        elif self._around is not None and self._around.has(attempt):
            self._around.hurry(attempt, ending, attempt.grace_ms if grace_ms is None else grace_ms)
        else:
            self._ender.tell(attempt, ending, grace_ms)

    # ------------------------------------------------------------ limits

    def _limiter(self) -> Limiter:
        if self._limits is None:
            from worker.limits.limiter import Limiter  # most keepers never need it

            self._limits = Limiter(self._places, self._roster)
        return self._limits

    def _keep_limits(self, limits: Limiter, now: int) -> None:
        for attempt, ending in limits.look(now):
            self._ender.tell(attempt, ending, 0)

    # ------------------------------------------------------------ neighbours

    def _heed_neighbours(self, sharing: Sharing, now: int) -> None:
        """The agent hears what they leave before it hears of a job that goes back for the lack of it."""
        late = sharing.late(self._queue.lines() if self._stuck else (), now)
        sharing.tell(now)
        offer = sharing.news(now, at_once=bool(late))
        if offer is not None:
            self._news.offer(offer)
        for attempt in late:
            self._cancel(attempt, sharing.too_late, 0)

    # ------------------------------------------------------------ isolation

    def _isolator(self) -> Isolator:
        if self._isolated is None:
            from worker.isolation.isolator import Isolator  # most keepers never need it

            work_dir, env, nothing = self._setting
            self._isolated = Isolator(self._isolation or {}, work_dir, env, self._roster, nothing)
        return self._isolated

    # ------------------------------------------------------------ the steps of an attempt

    def _start_what_fits(self, now: int) -> None:
        while not self._stuck and now >= self._rests_until and not self._news.is_congested():
            attempt = self._queue.next(now)
            if attempt is None:
                self._stuck = True
            else:
                self._start(attempt, now)

    def _start(self, attempt: Attempt, now: int) -> None:
        try:
            if self._around is not None and self._around.before:
                self._starter.prepare(attempt)
                self._around.begin(attempt, BEFORE, self._go_on)
                return
            self._starter.start(attempt)
        except Taken:
            self._stuck = True
            self._queue.put_back(attempt, attempt.asks, self._queue.since)
        except (OSError, ValueError, TypeError) as problem:
            self._not_started(attempt, problem, now)
        else:
            self._has_started(attempt)

    def _go_on(self, attempt: Attempt, wrong: str) -> None:
        """The hook before it has ended."""
        if wrong or attempt.ending is not None:
            self._give_up(attempt, wrong)
            return
        attempt.state = QUEUED
        try:
            self._starter.resume(attempt)
        except (OSError, ValueError, TypeError) as problem:
            self._not_started(attempt, problem, boot_ms())
        else:
            self._has_started(attempt)

    def _give_up(self, attempt: Attempt, wrong: str) -> None:
        attempt.ending = attempt.ending or Ending("returned", HOOK_FAILED, "the hook before it " + wrong)
        attempt.state = QUEUED
        if attempt.files is not None:
            self._starter.undo(attempt)
        self._take_back(attempt, reusable=False)
        self._is_done(attempt)

    def _has_started(self, attempt: Attempt) -> None:
        attempt.state = RUNNING
        attempt.started_ms = time.time_ns() // 1_000_000
        attempt.started_at = boot_ms()
        self._roster.running[attempt.pid] = self._roster.by_pid[attempt.pid] = attempt
        self._ender.limit(attempt)
        self._pipes.watch(attempt)
        self._news.started(attempt)

    def _not_started(self, attempt: Attempt, problem: Exception, now: int) -> None:
        if attempt.files is not None:
            self._starter.undo(attempt)
        self._take_back(attempt, reusable=not isinstance(problem, WorkerProblem))
        if is_shortage(problem) and self._roster.by_pid:
            self._stuck = True
            self._queue.put_back(attempt, attempt.asks, now)
            return
        if may_pass(problem) and attempt.tries < len(REST_MS):
            self._rests_until = now + REST_MS[attempt.tries]
            attempt.tries += 1
            self._queue.put_back(attempt, attempt.asks, now)
            return
        attempt.ending, attempt.status = why_not_started(attempt.argv, problem)
        self._is_done(attempt)

    def _is_over(self, attempt: Attempt, clean: bool) -> None:
        del self._roster.by_pid[attempt.pid]
        self._pipes.read_the_rest(attempt)
        if attempt.limits is not None:
            self._limiter().has_ended(attempt)
        if attempt.way is not None:
            self._isolator().judge(attempt)
        if self._around is not None and self._around.after:
            try:
                self._around.begin(attempt, AFTER, lambda attempt, _: self._leaves(attempt, clean))
                return
            except OSError as problem:
                print("wm-keeper: the hook after %s cannot begin: %s" % (attempt.name, problem), file=sys.stderr)
        self._leaves(attempt, clean)

    def _leaves(self, attempt: Attempt, clean: bool) -> None:
        self._take_back(attempt, reusable=clean)
        self._is_done(attempt)

    def _take_back(self, attempt: Attempt, reusable: bool) -> None:
        self._stuck = False
        self._starter.take_back(attempt, reusable)

    def _is_done(self, attempt: Attempt) -> None:
        attempt.state = OVER
        del self._roster.attempts[attempt.job, attempt.epoch]
        self._news.ended(attempt)
