"""The keeper: a small process of its own that starts, watches, ends and reaps the attempts of one agent.

One thread, one epoll. It adopts every orphan among its descendants, so nothing that a job starts can get away from it.
When the agent's end of the channel closes, or the lease runs out, it kills everything and exits.

Life of an attempt here: queued → running → swept (its main process has ended, what it left behind is being killed)
→ over. It is reported over only when no process of it is left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource  # os.wait4 loads it otherwise, perhaps when no descriptor is left for that
import select
import signal
import sys
import time

from worker import processes
from worker.attempt import OVER, QUEUED, RUNNING, SWEPT, Attempt, Ending
from worker.channel import Channel
from worker.packing import Queue, Room
from worker.slots import Slots
from worker.startup import WorkerProblem, is_shortage, why_not_started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable

    from worker.packing import Asks

CHUNK = 64 * 1024
BATCH_MS = 20  # how long a message may wait for company while there is work queued here
CONGESTED = 1024 * 1024  # bytes that wait for the agent; beyond it no output is read and nothing is started
SWEEP_MS = 20  # between two looks for what an attempt left behind
SWEEP_PATIENCE_MS = 10_000  # a process in an uninterruptible wait must not keep a result for ever
LEASE_CHECK_MS = 1000  # epoll does not count the time a machine sleeps, the lease does
LAST_SWEEP_MS = 30_000
LARGEST_PIPE = 1024 * 1024  # what a process may make of its pipe without privileges
CHANNEL_FD = 3
SPARE_FDS = 8  # that no job gets: without one nobody could see in /proc whose a process is

# Exit codes, from which the agent tells people what happened.
DONE, LEASE_ENDED, WORK_DIR_IN_USE = 0, 3, 4

REMOVE = 'rm -rf -- "$@" && exit 0; chmod -R u+rwx -- "$@"; exec rm -rf -- "$@"'
AT_ONCE = 50  # directories that one remover takes


def boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Keeper:
    def __init__(self, channel: Channel, work_dir: str, room: Room, env: dict[str, str]) -> None:
        self._channel = channel
        self._env = env
        self._room = room
        self._queue = Queue(room)
        self._slots = Slots(work_dir)
        self._children = processes.Children()
        self._nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._attempts: dict[tuple[str, int], Attempt] = {}  # all that are not over
        self._by_pid: dict[int, Attempt] = {}  # main processes, and sessions: running or swept
        self._by_pipe: dict[int, Attempt] = {}
        self._running: dict[int, Attempt] = {}
        self._due: dict[Attempt, int] = {}  # running → when it is told to end, or killed when it was told already
        self._swept: list[Attempt] = []
        self._strays: dict[int, Attempt] = {}  # children that are no main process → whose they are
        self._doubtful = False  # there is a child of which we do not know whose it is
        self._remover = 0  # the process that removes discarded slots
        self._lease_end: int | None = None
        self._messages: list[tuple[Any, ...]] = []
        self._send_at: int | None = None
        self._with_output: list[Attempt] = []
        self._output_waiting = 0
        self._held: list[int] = []  # pipes not read while congested
        self._stuck = False  # nothing of the queue can start until an attempt ends, comes, or the room changes
        self._asked_to_end = False
        self._most_fds = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS
        self._epoll = select.epoll()
        self._wake = wake_on_child()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._watched = select.EPOLLIN
        self._epoll.register(channel.fd, self._watched)

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
            self._end_everything()

    def _step(self) -> None:
        now = boot_ms()
        self._start_what_fits(now)
        self._keep_time(now)
        self._deliver(now)
        for fd, _ in self._epoll.poll(self._patience(now) / 1000):
            if fd == self._wake:
                self._reap()
            elif fd == self._channel.fd:
                self.obey(self._channel.receive())
            else:
                self._read_output(fd)
        if self._swept:
            self._sweep(boot_ms())

    def _patience(self, now: int) -> float:
        """How long nothing happens by itself, in ms; −1000 for ever (epoll's −1)."""
        waits = [when - now for when in self._due.values()]
        if self._send_at is not None:
            waits.append(self._send_at - now)
        if self._swept:
            waits.append(SWEEP_MS)
        if self._lease_end is not None:
            waits.append(min(LEASE_CHECK_MS, self._lease_end - now))
        return max(0, min(waits)) if waits else -1000

    # ------------------------------------------------------------ what the agent says

    def obey(self, messages: list[tuple[Any, ...]]) -> None:
        for name, *arguments in messages:
            getattr(self, "_on_" + name)(*arguments)

    def _on_start(self, *asked: Any) -> None:
        attempt = Attempt(*asked)
        if (attempt.job, attempt.epoch) not in self._attempts:
            self._attempts[attempt.job, attempt.epoch] = attempt
            self._queue.put(attempt, attempt.asks, boot_ms())
            self._stuck = False

    def _on_cancel(self, job: str, epoch: int, outcome: str, reason: str, text: str, grace_ms: int | None) -> None:
        attempt = self._attempts.get((job, epoch))
        if attempt is not None:
            self._cancel(attempt, Ending(outcome, reason, text), grace_ms)

    def _on_cancel_all(self, outcome: str, reason: str, text: str, grace_ms: int) -> None:
        for attempt in list(self._attempts.values()):
            self._cancel(attempt, Ending(outcome, reason, text), grace_ms)

    def _on_recall(self, attempts: Iterable[tuple[str, int]], text: str) -> None:
        for job, epoch in attempts:
            attempt = self._attempts.get((job, epoch))
            if attempt is not None and attempt.state == QUEUED:
                self._cancel(attempt, Ending("returned", "recalled", text), 0)

    def _on_room(self, has: Asks | None) -> None:
        self._room.resize(has)
        self._stuck = False

    def _on_lease(self, end: int) -> None:
        self._lease_end = end

    def _on_end(self) -> None:
        self._asked_to_end = True

    # ------------------------------------------------------------ starting

    def _start_what_fits(self, now: int) -> None:
        while not self._stuck and not self._is_congested():
            attempt = self._queue.next(now)
            if attempt is None:
                self._stuck = True
            else:
                self._start(attempt, now)

    def _start(self, attempt: Attempt, now: int) -> None:
        attempt.gpus = self._room.take(attempt.asks)
        try:
            self._prepare(attempt)
            attempt.pid = processes.spawn(attempt.argv, self._environment(attempt), self._nothing, attempt.pipe_in)
        except (OSError, ValueError, TypeError) as problem:
            self._not_started(attempt, problem, now)
        else:
            self._has_started(attempt)

    def _prepare(self, attempt: Attempt) -> None:
        """Its directory, which becomes ours too, because a process starts in its parent's; its pipe, of which we keep
        both ends until it is over: so the end of a job wakes us once and not twice."""
        try:
            attempt.slot = self._slots.take(attempt.owner)
            os.chdir(attempt.slot.path)
            attempt.pipe, attempt.pipe_in = os.pipe2(os.O_CLOEXEC)
            if attempt.pipe_in >= self._most_fds >= 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except OSError as problem:
            raise WorkerProblem(problem.errno, problem.strerror, problem.filename) from problem
        os.set_blocking(attempt.pipe, False)

    def _environment(self, attempt: Attempt) -> dict[str, str]:
        home = attempt.slot.path if attempt.slot else ""
        env = {**self._env, "HOME": home, "TMPDIR": home, **attempt.env}
        if self._room.knows_gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(attempt.gpus)
        return env

    def _has_started(self, attempt: Attempt) -> None:
        attempt.state = RUNNING
        attempt.started_ms = time.time_ns() // 1_000_000
        attempt.started_at = boot_ms()
        if attempt.time_limit_ms is not None:
            self._due[attempt] = attempt.started_at + attempt.time_limit_ms
        self._running[attempt.pid] = self._by_pid[attempt.pid] = self._by_pipe[attempt.pipe] = attempt
        self._epoll.register(attempt.pipe, select.EPOLLIN)
        self._say(("started", attempt.job, attempt.epoch, attempt.started_ms, attempt.pid))

    def _not_started(self, attempt: Attempt, problem: Exception, now: int) -> None:
        self._free(attempt, reusable=not isinstance(problem, WorkerProblem))
        if is_shortage(problem) and self._by_pid:
            self._stuck = True
            self._queue.put_back(attempt, attempt.asks, now)
            return
        attempt.ending, attempt.status = why_not_started(attempt.argv, problem)
        self._is_done(attempt)

    # ------------------------------------------------------------ output

    def _is_congested(self) -> bool:
        return self._channel.waiting + self._output_waiting > CONGESTED

    def _read_output(self, fd: int) -> None:
        attempt = self._by_pipe.get(fd)
        if attempt is None:
            return
        if self._is_congested():
            self._epoll.unregister(fd)
            self._held.append(fd)
        elif not self._read_once(attempt):
            self._close_pipe(attempt)

    def _read_once(self, attempt: Attempt) -> int:
        """How much was read; 0 at the end. Nothing to read now counts as 1: the end is still to come."""
        try:
            data = os.read(attempt.pipe, CHUNK)
        except BlockingIOError:
            return 1
        if data:
            before = attempt.kept.unsent
            attempt.kept.add(data)
            self._note_output(attempt, attempt.kept.unsent - before)
        return len(data)

    def _note_output(self, attempt: Attempt, size: int) -> None:
        if not size:
            return
        self._output_waiting += size
        if not attempt.output_listed:
            attempt.output_listed = True
            self._with_output.append(attempt)
        self._send_by(boot_ms() + BATCH_MS)

    def _read_the_rest(self, attempt: Attempt) -> None:
        """What stands in the pipe after the last process ended. Never waits: a descriptor may have been handed to a
        process that is not ours."""
        self._close_pipe_in(attempt)
        enough = attempt.kept.total + LARGEST_PIPE
        while attempt.pipe >= 0:
            total = attempt.kept.total
            if not self._read_once(attempt) or attempt.kept.total == total or total > enough:
                self._close_pipe(attempt)
        before = attempt.kept.unsent
        attempt.kept.finish()
        self._note_output(attempt, attempt.kept.unsent - before)

    def _close_pipe_in(self, attempt: Attempt) -> None:
        if attempt.pipe_in >= 0:
            os.close(attempt.pipe_in)
            attempt.pipe_in = -1

    def _close_pipe(self, attempt: Attempt) -> None:
        self._close_pipe_in(attempt)
        if attempt.pipe >= 0:
            self._by_pipe.pop(attempt.pipe, None)
            if attempt.pipe in self._held:
                self._held.remove(attempt.pipe)
            elif attempt.state != QUEUED:
                # Closing alone is not enough: a process between fork and exec still holds a copy of it, and epoll would
                # go on to report it under a number that by then belongs to another pipe.
                self._epoll.unregister(attempt.pipe)
            os.close(attempt.pipe)
            attempt.pipe = -1

    # ------------------------------------------------------------ ending

    def _keep_time(self, now: int) -> None:
        for attempt in [attempt for attempt, when in self._due.items() if when <= now]:
            del self._due[attempt]
            if attempt.ending is None:
                self._cancel(attempt, Ending("failed", "time-limit", ""), None)
            else:
                self._signal(attempt, signal.SIGKILL)

    def _cancel(self, attempt: Attempt, ending: Ending, grace_ms: int | None) -> None:
        if attempt.state == QUEUED:
            self._queue.remove(attempt, attempt.asks)
            attempt.ending = ending
            self._is_done(attempt)
            return
        if attempt.state != RUNNING:
            return
        kill_at = boot_ms() + (attempt.grace_ms if grace_ms is None else grace_ms)
        if attempt.ending is None:
            attempt.ending = ending
            self._due[attempt] = kill_at
            self._signal(attempt, signal.SIGTERM)
            self._signal(attempt, signal.SIGCONT)  # a stopped process would not see it
        elif attempt in self._due:
            self._due[attempt] = min(self._due[attempt], kill_at)

    def _signal(self, attempt: Attempt, number: int) -> None:
        processes.send(-attempt.pid, number)
        for pid in self._others():
            if self._whose(pid) is attempt:
                processes.send(pid, number)

    def _reap(self) -> None:
        os.read(self._wake, 4096)  # it is readable: that is why we are here
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._reap_one(ended.si_pid)

    def _reap_one(self, pid: int) -> None:
        attempt = self._running.pop(pid, None)
        if attempt is None:
            os.wait4(pid, 0)
            self._strays.pop(pid, None)
            if pid == self._remover:
                self._remover = 0
            return
        # While it is a zombie nobody else can have its number, so this reaches its own group and nothing else.
        processes.send(-pid, signal.SIGKILL)
        _, attempt.status, usage = os.wait4(pid, 0)
        now = boot_ms()
        attempt.run_ms = now - attempt.started_at
        attempt.cpu_ms = int((usage.ru_utime + usage.ru_stime) * 1000)
        attempt.max_rss = usage.ru_maxrss * 1024
        attempt.state = SWEPT
        self._due.pop(attempt, None)
        attempt.swept_since = now
        self._swept.append(attempt)

    def _sweep(self, now: int) -> None:
        """Kill what ended attempts left behind; those of which nothing is left are over."""
        holding = set()
        self._doubtful = False
        for pid in self._others():
            attempt = self._whose(pid)
            if attempt is None:
                holding |= self._kill_if_nobodys(pid)
            elif attempt.state != RUNNING:
                processes.send(pid, signal.SIGKILL)
                holding.add(attempt)
        still_swept = []
        for attempt in self._swept:
            if attempt not in holding:
                self._is_over_and_clean(attempt, clean=not self._doubtful)
            elif now - attempt.swept_since > SWEEP_PATIENCE_MS:
                self._is_over_and_clean(attempt, clean=False)
            else:
                still_swept.append(attempt)
        self._swept = still_swept

    def _others(self) -> list[int]:
        """Children that are neither a running main process nor ours."""
        return [pid for pid in self._children.now() if pid not in self._running and pid != self._remover]

    def _whose(self, pid: int) -> Attempt | None:
        """The attempt a stray comes from: by its session, else by the environment it was started with."""
        attempt = self._strays.get(pid)
        if attempt is None:
            session, _ = processes.session_and_start(pid)
            attempt = self._by_pid.get(session)
            if attempt is None:
                job, _, epoch = processes.variable(pid, "WM_ATTEMPT").rpartition(".")
                attempt = self._attempts.get((job, int(epoch))) if epoch.isdigit() else None
            if attempt is not None:
                self._strays[pid] = attempt
        return attempt

    def _kill_if_nobodys(self, pid: int) -> set[Attempt]:
        """A stray without session or environment of ours: it goes when everyone who can have started it is gone.
        Returns the ended attempts that wait for it."""
        _, began = processes.session_and_start(pid)
        tick = 1000 // processes.TICKS_PER_SECOND
        if any(attempt.started_at <= began + tick for attempt in self._running.values()):
            self._doubtful = True
            return set()
        processes.send(pid, signal.SIGKILL)
        return {attempt for attempt in self._swept if attempt.started_at <= began + tick}

    def _is_over_and_clean(self, attempt: Attempt, clean: bool) -> None:
        del self._by_pid[attempt.pid]
        self._read_the_rest(attempt)
        self._free(attempt, reusable=clean)
        self._is_done(attempt)

    def _free(self, attempt: Attempt, reusable: bool) -> None:
        self._stuck = False
        self._close_pipe(attempt)
        self._room.give_back(attempt.asks, attempt.gpus)
        attempt.gpus = []
        if attempt.slot is not None:
            self._slots.give_back(attempt.slot, reusable)
            attempt.slot = None

    def _is_done(self, attempt: Attempt) -> None:
        attempt.state = OVER
        del self._attempts[attempt.job, attempt.epoch]
        self._put_output(attempt)
        self._say(("ended", *attempt.result()))

    # ------------------------------------------------------------ telling the agent

    def _say(self, message: tuple[Any, ...]) -> None:
        """Messages wait a little for company, but not while the agent could give us something to do."""
        self._messages.append(message)
        self._send_by(boot_ms() + (BATCH_MS if message[0] == "started" or len(self._queue) else 0))

    def _send_by(self, when: int) -> None:
        self._send_at = when if self._send_at is None else min(self._send_at, when)

    def _put_output(self, attempt: Attempt) -> None:
        size = attempt.kept.unsent
        if size:
            offset, data = attempt.kept.take()
            self._output_waiting -= size
            self._messages.append(("output", attempt.job, attempt.epoch, offset, data))

    def _deliver(self, now: int) -> None:
        if self._send_at is not None and (self._send_at <= now or self._output_waiting >= CHUNK):
            for attempt in self._with_output:
                attempt.output_listed = False
                self._put_output(attempt)
            self._with_output.clear()
            messages, self._messages = self._messages, []
            self._send_at = None
            self._channel.send(messages)
        elif self._channel.waiting:
            self._channel.flush()
        self._watch_channel()
        if self._held and not self._is_congested():
            for fd in self._held:
                self._epoll.register(fd, select.EPOLLIN)
            self._held.clear()
        self._remove_garbage()

    def _watch_channel(self) -> None:
        events = select.EPOLLIN | select.EPOLLOUT if self._channel.waiting else select.EPOLLIN
        if events != self._watched:
            self._epoll.modify(self._channel.fd, events)
            self._watched = events

    # ------------------------------------------------------------ tidying, and the end

    def _remove_garbage(self) -> None:
        if not self._slots.garbage or self._remover:
            return
        paths, self._slots.garbage = self._slots.garbage[:AT_ONCE], self._slots.garbage[AT_ONCE:]
        try:
            argv = ["sh", "-c", REMOVE, "remove", *paths]
            self._remover = processes.spawn(argv, {"PATH": processes.DEFAULT_PATH}, self._nothing, self._nothing)
        except OSError as problem:
            print("wm-keeper: cannot remove %s: %s" % (", ".join(paths), problem), file=sys.stderr)

    def _end_everything(self) -> None:
        """Kill until no child is left. What is deeper becomes our child when its parent dies."""
        until = boot_ms() + LAST_SWEEP_MS
        for pid in self._running:
            processes.send(-pid, signal.SIGKILL)
        while boot_ms() < until:
            for pid in self._children.now():
                processes.send(pid, signal.SIGKILL)
            if processes.reap_all():
                return
            time.sleep(SWEEP_MS / 4000)


def wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler there is nothing to wake for
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return readable


def lock(work_dir: str) -> bool:
    """Two keepers in one directory would remove each other's slots. A predecessor may still be ending its jobs."""
    os.makedirs(work_dir, 0o700, exist_ok=True)
    descriptor = os.open(os.path.join(work_dir, "keeper.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = boot_ms() + LAST_SWEEP_MS
    while boot_ms() < until:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(SWEEP_MS / 1000)
    return False


def close_all_but_the_channel() -> None:
    """Whatever the agent was started with must reach no job."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > CHANNEL_FD:
            try:  # noqa: SIM105  # contextlib costs the keeper a millisecond to import
                os.close(int(name))
            except OSError:
                pass  # the one that listed them
    os.set_inheritable(CHANNEL_FD, False)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # ends are the agent's to decide; it tells us, or it dies
    close_all_but_the_channel()
    processes.adopt_orphans("wm-keeper")
    channel = Channel(CHANNEL_FD)
    messages: list[tuple[Any, ...]] = []
    while not messages and not channel.closed:
        select.select([CHANNEL_FD], [], [])
        messages += channel.receive()
    if not messages:
        return DONE
    _, work_dir, has, gpus, env = messages.pop(0)
    if not lock(work_dir):
        return WORK_DIR_IN_USE
    keeper = Keeper(channel, work_dir, Room(has, gpus), env)
    keeper.obey(messages)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
