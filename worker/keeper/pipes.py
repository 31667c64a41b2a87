"""The pipes through which the jobs' output comes. While the agent does not take it none is read: so a job that writes
much waits in its write, and the keeper's memory stays bounded.

The keeper keeps both ends of a pipe until the attempt is over: so the end of a job wakes it once and not twice.
"""

from __future__ import annotations

import errno
import os
import resource  # os.wait4 loads it otherwise, perhaps when no descriptor is left for that
import select
import sys

from worker.keeper.attempt import QUEUED
from worker.keeper.news import CHUNK
from worker.progress import Scanner, TooSlow, may_say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.keeper.attempt import Attempt
    from worker.keeper.news import News

LARGEST_PIPE = 1024 * 1024  # what a process may make of its pipe without privileges
SPARE_FDS = 8  # that no job gets: without one nobody could see in /proc whose a process is


class Pipes:
    def __init__(self, epoll: select.epoll, news: News) -> None:
        self._epoll = epoll
        self._news = news
        self._by_fd: dict[int, Attempt] = {}
        self._held: list[int] = []  # not read while congested
        self._most_fds = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS

    def open(self, attempt: Attempt) -> None:
        """Raises OSError when the descriptors run out. `close` it in any case."""
        attempt.pipe, attempt.pipe_in = os.pipe2(os.O_CLOEXEC)
        if attempt.pipe_in >= self._most_fds >= 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        os.set_blocking(attempt.pipe, False)

    def watch(self, attempt: Attempt) -> None:
        """It has started."""
        self._by_fd[attempt.pipe] = attempt
        self._epoll.register(attempt.pipe, select.EPOLLIN)

    def read(self, fd: int) -> None:
        """It is readable; unless it was closed a moment ago."""
        attempt = self._by_fd.get(fd)
        if attempt is None:
            return
        if self._news.is_congested():
            self._epoll.unregister(fd)
            self._held.append(fd)
        elif not self._read_once(attempt):
            self.close(attempt)

    def read_held(self) -> None:
        """Go on with those that were held, once the agent has taken enough."""
        if self._held and not self._news.is_congested():
            for fd in self._held:
                self._epoll.register(fd, select.EPOLLIN)
            self._held.clear()

    def _read_once(self, attempt: Attempt) -> int:
        """How much was read; 0 at the end. Nothing to read now counts as 1: the end is still to come."""
        try:
            data = os.read(attempt.pipe, CHUNK)
        except BlockingIOError:
            return 1
        if data:
            before = attempt.kept.unsent
            attempt.kept.add(data)
            self._news.has_written(attempt, attempt.kept.unsent - before)
            if attempt.progress is not None or may_say(data):
                self._look_for_progress(attempt, data)
        return len(data)

    def _look_for_progress(self, attempt: Attempt, data: bytes) -> None:
        """Here, because an agent does not see what is beyond the limit of the output."""
        if attempt.progress is None:
            attempt.progress = Scanner()
        try:
            if attempt.progress.saw(data):
                self._news.is_further(attempt)
        except TooSlow:
            attempt.progress = Scanner()
            text = "the progress pattern of %s takes too long on its output: it counts no more"
            print("wm-keeper: " + text % attempt.name, file=sys.stderr, flush=True)

    def read_the_rest(self, attempt: Attempt) -> None:
        """What stands in the pipe after the last process ended. Never waits: a descriptor may have been handed to a
        process that is not ours."""
        self._close_pipe_in(attempt)
        enough = attempt.kept.total + LARGEST_PIPE
        while attempt.pipe >= 0:
            total = attempt.kept.total
            if not self._read_once(attempt) or attempt.kept.total == total or total > enough:
                self.close(attempt)
        before = attempt.kept.unsent
        attempt.kept.finish()
        self._news.has_written(attempt, attempt.kept.unsent - before)

    def _close_pipe_in(self, attempt: Attempt) -> None:
        if attempt.pipe_in >= 0:
            os.close(attempt.pipe_in)
            attempt.pipe_in = -1

    def close(self, attempt: Attempt) -> None:
        """May be repeated."""
        self._close_pipe_in(attempt)
        if attempt.pipe >= 0:
            self._by_fd.pop(attempt.pipe, None)
            if attempt.pipe in self._held:
                self._held.remove(attempt.pipe)
            elif attempt.state != QUEUED:
                # Closing alone is not enough: a process between fork and exec still holds a copy of it, and epoll would
                # go on to report it under a number that by then belongs to another pipe.
                self._epoll.unregister(attempt.pipe)
            os.close(attempt.pipe)
            attempt.pipe = -1
