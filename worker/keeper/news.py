"""What the keeper tells its agent: messages and output, in company where that costs nobody anything.

Output that was read counts as waiting until the agent has taken it; too much of it is a congestion, and then nothing is
read or started.
"""

from __future__ import annotations

import select

from worker.keeper.attempt import OVER
from worker.processes import boot_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from worker.channel import Channel
    from worker.keeper.attempt import Attempt
    from worker.keeper.packing import Queue

CHUNK = 64 * 1024  # of output: what is read at once, and what is sent without waiting for more
BATCH_MS = 20  # how long a message may wait for company while there is work queued here
CONGESTED = 1024 * 1024  # bytes that wait for the agent; beyond it no output is read and nothing is started


class News:
    def __init__(self, channel: Channel, epoll: select.epoll, queue: Queue) -> None:
        self._channel = channel
        self._epoll = epoll
        self._queue = queue
        self._messages: list[tuple[Any, ...]] = []
        self._with_output: list[Attempt] = []
        self._further: list[Attempt] = []
        self._output_waiting = 0
        self.send_at: int | None = None
        self._watched = select.EPOLLIN
        epoll.register(channel.fd, self._watched)

    def is_congested(self) -> bool:
        return self._channel.waiting + self._output_waiting > CONGESTED

    def started(self, attempt: Attempt) -> None:
        self._messages.append(("started", attempt.job, attempt.epoch, attempt.started_ms, attempt.pid))
        self._send_by(boot_ms() + BATCH_MS)

    def ended(self, attempt: Attempt) -> None:
        """After the rest of its output. It waits for company only while the agent has nothing to give us."""
        self._put_output(attempt)
        self._messages.append(("ended", *attempt.result(), attempt.kept_at))
        self._send_by(boot_ms() + (BATCH_MS if len(self._queue) else 0))

    def usage(self, rows: list[tuple[str, int, int, int, list[str]]]) -> None:
        """(job, epoch, cpu ms, bytes) of those that run."""
        self._messages.append(("usage", "", 0, rows))
        self._send_by(boot_ms() + BATCH_MS)

    def is_further(self, attempt: Attempt) -> None:
        """It has told of progress; the newest is sent."""
        if attempt not in self._further:
            self._further.append(attempt)
        self._send_by(boot_ms() + BATCH_MS)

    def offer(self, amounts: dict[str, int]) -> None:
        """What the neighbours leave has changed: the hub hears it at once."""
        self._messages.append(("offer", "", 0, amounts))
        self._send_by(boot_ms())

    def left_gpus(self, gpus: list[str]) -> None:
        self._messages.append(("gpus", "", 0, list(gpus)))
        self._send_by(boot_ms())

    def hook(self, attempt: Attempt, facts: tuple[str, str, int, str]) -> None:
        """Which hook, what was wrong, how long it took, what it wrote."""
        self._messages.append(("hook", attempt.job, attempt.epoch, *facts))
        self._send_by(boot_ms() + BATCH_MS)

    def has_written(self, attempt: Attempt, size: int) -> None:
        """So much more of its output is kept."""
        if not size:
            return
        self._output_waiting += size
        if not attempt.output_listed:
            attempt.output_listed = True
            self._with_output.append(attempt)
        self._send_by(boot_ms() + BATCH_MS)

    def _send_by(self, when: int) -> None:
        self.send_at = when if self.send_at is None else min(self.send_at, when)

    def _put_output(self, attempt: Attempt) -> None:
        size = attempt.kept.unsent
        if size:
            offset, data = attempt.kept.take()
            self._output_waiting -= size
            self._messages.append(("output", attempt.job, attempt.epoch, offset, data))

    def deliver(self, now: int) -> None:
        """Send what is due, and go on with what the agent did not take. Never blocks."""
        if self.send_at is not None and (self.send_at <= now or self._output_waiting >= CHUNK):
            for attempt in self._with_output:
                attempt.output_listed = False
                self._put_output(attempt)
            self._with_output.clear()
            if self._further:
                self._messages += [message for message in map(_progress, self._further) if message is not None]
                self._further.clear()
            messages, self._messages = self._messages, []
            self.send_at = None
            self._channel.send(messages)
        elif self._channel.waiting:
            self._channel.flush()
        self._watch_channel()

    def _watch_channel(self) -> None:
        events = select.EPOLLIN | select.EPOLLOUT if self._channel.waiting else select.EPOLLIN
        if events != self._watched:
            self._epoll.modify(self._channel.fd, events)
            self._watched = events


def _progress(attempt: Attempt) -> tuple[Any, ...] | None:
    """None for one that has ended meanwhile."""
    told = None if attempt.progress is None or attempt.state == OVER else attempt.progress.newest
    return None if told is None else ("progress", attempt.job, attempt.epoch, *told)
