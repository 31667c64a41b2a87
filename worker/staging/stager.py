"""The stager: a small process of its own that moves the files of one agent's jobs. See `messages` for what is said.

Its first thread does nothing but listen to the agent and pass on what the others say. Everything that takes time, or
may hang, is in `lanes` (transfers), `house` (the cache) or `attempts` (what is over).

When the agent's end of the channel closes it lets everything go and exits: nothing of it is left, and nothing pinned.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, Optional, Sequence, Tuple

from worker.cache.entries import LABEL_END
from worker.cache.store import Cache as Pins
from worker.channel import CHANNEL_FD, Channel
from worker.staging.attempts import Attempt, Attempts, Undertaker
from worker.staging.desk import Desk
from worker.staging.house import Held, House, staged
from worker.staging.inputs import Inputs
from worker.staging.messages import Cache, Message, NotCollected, Note, NotStaged, Progress, Said, Setup, encode
from worker.staging.outputs import Outputs

PROGRESS_S = 1.0
STALL_S = 900.0
ENDING_S = 3.0  # for what is under way, when all ends
DONE = 0


class Stager:
    def __init__(self, channel: Channel, setup: Setup) -> None:
        self._channel = channel
        self._said: Deque[Said] = deque()
        self._wakes, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        held = {(str(job), int(epoch)): Attempt(str(job), int(epoch)) for job, epoch in setup.get("held") or []}
        self._attempts: Attempts = held
        self._staged = staged(setup["work_dir"])
        labels = [each.label for each in held.values()]
        self._house = House(setup, labels, lambda news: self.say(Cache(news)), self._note, self._keep, self._pin_again)
        self._desk = Desk(setup, self._house, self.say)
        self._undertaker = Undertaker(self._desk.lanes)
        self._progress_at = 0.0
        self._stall_s = setup.get("stall_s") or STALL_S
        self._asked_to_end = False
        self._clear()

    def _clear(self) -> None:
        """What the stager before us has left, but for attempts that are held."""
        held = {attempt.label: attempt for attempt in self._attempts.values()}
        try:
            names = os.listdir(self._staged)
        except OSError:
            return
        for name in names:
            folder, attempt = os.path.join(self._staged, name), held.get(name.rpartition(LABEL_END)[0])
            if attempt is None:
                self._undertaker.remove(folder)
            else:
                attempt.folder = folder

    def _keep(self, pins: Held) -> None:
        attempts = {attempt.label: attempt for attempt in list(self._attempts.values())}
        for label, let_go in pins.items():
            if label in attempts:
                attempts[label].let_go += let_go
            else:  # dropped meanwhile
                for each in let_go:
                    each()

    def _pin_again(self, cache: Pins) -> None:
        for attempt in list(self._attempts.values()):
            for scope, key in list(attempt.uses):
                pin = cache.entries.pin(scope, key, attempt.label)
                if pin is None:
                    self._note("an input of %s is gone from the cache" % attempt.job)
                elif (attempt.job, attempt.epoch) in self._attempts:
                    attempt.let_go.append(pin.release)
                else:
                    pin.release()

    # ------------------------------------------------------------ what the others say

    def say(self, said: Said) -> None:
        """By any thread."""
        self._said.append(said)
        with contextlib.suppress(BlockingIOError):  # then it is awake already
            os.write(self._woken, b"!")

    def _note(self, text: str) -> None:
        self.say(Note(text))

    def _deliver(self) -> None:
        messages: List[Message] = []
        while self._said:
            said = self._said.popleft()
            if isinstance(said, (Cache, Note)) or (said.job, said.epoch) in self._attempts:
                messages.append(encode(said))
        if messages:
            self._channel.send(messages)

    # ------------------------------------------------------------ the loop

    def run(self) -> int:
        poll = select.poll()
        poll.register(self._wakes, select.POLLIN)
        while not self._channel.closed and not self._asked_to_end:
            poll.register(self._channel.fd, select.POLLIN | (select.POLLOUT if self._channel.waiting else 0))
            for fd, _ in poll.poll(PROGRESS_S * 1000 if self._is_busy() else None):
                if fd == self._wakes:
                    os.read(self._wakes, 4096)
                else:
                    self._channel.flush()
                    self.obey(self._channel.receive())
            self._tell_progress()
            self._deliver()
        return self._end()

    def _is_busy(self) -> bool:
        return any(not attempt.answered and attempt.phase for attempt in self._attempts.values())

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if now - self._progress_at < PROGRESS_S:
            return
        self._progress_at = now
        for attempt in self._attempts.values():
            if attempt.phase and not attempt.answered:
                self._must_not_hang(attempt, now)
            trouble = "tries again: %s" % attempt.trouble if attempt.trouble else ""
            now_at = (attempt.phase, attempt.done, attempt.whole, trouble)
            if attempt.phase and not attempt.answered and (attempt.done or trouble) and now_at != attempt.told:
                attempt.told = now_at
                self._said.append(Progress(attempt.job, attempt.epoch, *now_at))

    def _must_not_hang(self, attempt: Attempt, now: float) -> None:
        """A thread that hangs cannot be ended, but the job can go elsewhere."""
        limit = self._stall_s
        if attempt.stands_for(now, self._desk.lanes.is_busy(attempt)) > limit and attempt.answer_once():
            attempt.stop.now()
            text = "nothing has moved for %d s: a disk or a file server hangs, it seems" % limit
            found = ("returned", "staging-failed", text)
            if attempt.phase == "staging":
                self._said.append(NotStaged(attempt.job, attempt.epoch, *found))
            else:
                self._said.append(NotCollected(attempt.job, attempt.epoch, *found, []))

    def _end(self) -> int:
        for attempt in self._attempts.values():
            self._undertaker.take(attempt)
        self._undertaker.is_done(ENDING_S)
        self._house.close()
        self._undertaker.remove(self._staged)
        self._undertaker.is_done(ENDING_S)
        return DONE

    # ------------------------------------------------------------ what the agent says

    def obey(self, messages: Sequence[Tuple[Any, ...]]) -> None:
        for name, *arguments in messages:
            getattr(self, "_on_" + name)(*arguments)

    def _on_stage(
        self, job: str, epoch: int, owner: str, inputs: List[Mapping[str, Any]], user: Optional[Tuple[int, int]]
    ) -> None:
        Inputs(self._desk, self._attempt(job, epoch), owner, inputs, user).begin()

    def _on_collect(
        self, job: str, epoch: int, _owner: str, folder: str, outputs: List[Mapping[str, Any]], succeeded: bool
    ) -> None:
        Outputs(self._desk, self._attempt(job, epoch), folder, outputs, succeeded).begin()

    def _on_drop(self, job: str, epoch: int) -> None:
        attempt = self._attempts.pop((job, epoch), None)
        if attempt is not None:
            self._undertaker.take(attempt)

    def _on_end(self) -> None:
        self._asked_to_end = True

    def _attempt(self, job: str, epoch: int) -> Attempt:
        return self._attempts.setdefault((job, epoch), Attempt(job, epoch))


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # ends are the agent's to decide; it tells us, or it dies
    os.umask(0o077)
    _close_all_but_the_channel()
    channel = Channel(CHANNEL_FD)
    messages: List[Tuple[Any, ...]] = []
    while not messages and not channel.closed:
        select.select([CHANNEL_FD], [], [])
        messages += channel.receive()
    if not messages:
        return DONE
    told: Dict[str, Any] = messages.pop(0)[1]
    stager = Stager(channel, told)  # type: ignore[arg-type]  # as the agent made it
    stager.obey(messages)
    status = stager.run()
    os._exit(status)  # a thread may hang on a dead file server


def _close_all_but_the_channel() -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > CHANNEL_FD:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(name))
    os.set_inheritable(CHANNEL_FD, False)


if __name__ == "__main__":
    sys.exit(main())
