"""Taking shares of a machine that others share, and giving them back: the keeper's part.

A share is taken under the lock of the folder, after a look at what all others hold, and written down before the job
starts. What a dead one held is free at once: the kernel lets go of its lock.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from worker.machine.folder import Folder, NotShared, Short, is_same
from worker.machine.shares import Others, Part
from worker.processes import boot_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, Sequence

    Asks = tuple[tuple[str, int], ...]

LOCKED_MS = 1000  # nobody needs the folder for so long: whoever has it locked means no good, or was stopped


class Neighbours:
    """`lock` is the descriptor of the seat's lock, which the agent holds, too."""

    def __init__(self, folder: str, name: str, lock: int, part: Part) -> None:
        self._folder = Folder(folder)
        self._name = name
        self._lock = lock
        self._held = self._folder.go_on(name)  # the descriptor of what we hold; -1 while it is not there
        self._part = part
        self._pids = b"%d %d\n" % (os.getppid(), os.getpid())
        self._troubles: dict[str, str] = {}  # what is in the way of taking anything, by its kind
        self._locked_since: int | None = None  # by another
        self._said = ""
        self.untold = False
        self._unwritten = True
        self._others = Others()
        self._watched: dict[tuple[str, int], int] = {}  # (name, pid) → its pidfd, -1 when it has ended
        self._poll = select.epoll()
        self._ear: socket.socket | None = None
        self._be_seen()
        self.look()
        self._folder.tell_all_but(name)

    # ------------------------------------------------------------ take and give back

    def take(self, asks: Asks) -> list[str] | None:
        """The ids of the GPUs that go with it; None when it cannot be had now. Never waits."""
        common = self._locked()
        if common is None:
            return None
        try:
            self._see()
            gpus = self._fitting(asks)
            if gpus is None:
                return None
            self._part.take(asks, gpus)
            if not self._write():
                self._part.give_back(asks, gpus)
                return None
        finally:
            os.close(common)
        self.untold = True
        return gpus

    def _locked(self) -> int | None:
        try:
            common = self._folder.lock()
        except BlockingIOError:
            now = boot_ms()
            self._locked_since = self._locked_since or now
            if now >= self._locked_since + LOCKED_MS:
                self._troubles["lock"] = "somebody keeps %s locked" % self._folder.path
            return None
        except OSError as error:
            self._troubles["lock"] = "%s cannot be locked: %s" % (self._folder.path, error.strerror)
            return None
        self._locked_since = None
        self._troubles.pop("lock", None)
        return common

    @property
    def troubled(self) -> bool:
        """Nothing can be taken, whatever the others hold."""
        return bool(self._troubles or self._others.everything)

    @property
    def locked_out(self) -> bool:
        """Somebody had the folder locked when we last asked for it."""
        return self._locked_since is not None

    def give_back(self, asks: Asks, gpus: Sequence[str]) -> None:
        self._part.give_back(asks, gpus)
        self._write()
        self.untold = True

    def tell(self) -> None:
        """The others that we have taken or given back."""
        self.untold = False
        self._folder.tell(list(self._others.pids))

    def lose_gpu(self, gpu: str) -> None:
        self._part.lose_gpu(gpu)

    def resize(self, has: Mapping[str, int]) -> None:
        self._part.has = dict(has)

    def offer(self) -> dict[str, int]:
        return self._offer()[0]

    def fits(self, asks: Asks) -> bool:
        """By what was last seen."""
        return self._fitting(asks) is not None

    def _fitting(self, asks: Asks) -> list[str] | None:
        offer, free = self._offer()
        gpus = 0
        for name, count in asks:
            if self._part.holds.get(name, 0) + count > offer.get(name, 0):
                return None
            if name == "gpus":
                gpus = count
        return free[:gpus]

    def _offer(self) -> tuple[dict[str, int], list[str]]:
        if not self._troubles:
            return self._part.offer(self._others)
        blind = Others()
        blind.everything = "there is trouble"
        return self._part.offer(blind)

    # ------------------------------------------------------------ news

    def fileno(self) -> int:
        """Readable when something may have changed: then `heard`, and `look`."""
        return self._poll.fileno()

    def heard(self) -> None:
        """Takes the news. The next one makes `fileno` readable again."""
        for handle, _ in self._poll.poll(0):
            if self._ear is not None and handle == self._ear.fileno():
                self._listen(self._ear)
            else:
                self._has_ended(handle)

    def _listen(self, ear: socket.socket) -> None:
        try:
            while True:
                ear.recv(16)
        except OSError:
            pass

    def look(self) -> None:
        """See what the others hold now."""
        self._see()
        if self._unwritten:
            self._write()

    def look_closely(self) -> None:
        """Now and then, for what nobody tells: that someone cleaned up here, that a disk has room again, the end of one
        whose number means nothing to us."""
        if "lock" in self._troubles:
            common = self._locked()
            if common is not None:
                os.close(common)
        self._be_seen()
        self.look()

    def close(self) -> None:
        """Our share is the others'."""
        self._folder.remove(self._name)
        if self._lock >= 0:
            os.close(self._lock)
        self._folder.tell_all_but(self._name)

    # ------------------------------------------------------------ the others

    def _see(self) -> None:
        self._others = Others.of(self._folder, self._name)
        for name in self._others.dead:
            self._folder.remove(name)
        self._watch()
        self._say("; ".join(self._troubles.values()) or self._others.everything)

    def _watch(self) -> None:
        """The end of each wakes us, where its number means the same to us."""
        there = {(name, pid) for name, pids in self._others.pids.items() for pid in pids}
        for key in [key for key in self._watched if key not in there]:
            handle = self._watched.pop(key)
            if handle >= 0:
                self._poll.unregister(handle)
                os.close(handle)
        for key in there:
            if key not in self._watched:
                self._watched[key] = _pidfd(key[1])
                if self._watched[key] >= 0:
                    self._poll.register(self._watched[key], select.EPOLLIN)

    def _has_ended(self, handle: int) -> None:
        for key, watched in self._watched.items():
            if watched == handle:
                self._poll.unregister(handle)
                os.close(handle)
                self._watched[key] = -1  # the other of the two may live on
                return

    # ------------------------------------------------------------ ourselves

    def _write(self) -> bool:
        """What cannot be written down is not taken, and what was given back stays ours until it can."""
        try:
            if self._held < 0:
                self._held = self._folder.begin(self._name, self._part.standing())
            else:
                self._folder.write(self._held, self._part.standing())
        except OSError as error:
            self._unwritten = True
            self._troubles["write"] = "%s cannot be written: %s" % (self._folder.path, error.strerror)
            return False
        self._unwritten = False
        self._troubles.pop("write", None)
        return True

    def _be_seen(self) -> None:
        """Our files are where others look for them, and not so old that they are taken for rubbish."""
        try:
            self._folder = Folder(self._folder.path)
            lock = self._folder.file(self._name, "lock")
            if not is_same(lock, self._lock):
                old, self._lock = self._lock, self._folder.take_lock(self._name)
                os.close(old)
            os.pwrite(self._lock, self._pids, 0)
            held = self._folder.file(self._name, "held")
            if self._held >= 0 and not is_same(held, self._held):
                os.close(self._held)
                self._held = -1
            self._unwritten = self._unwritten or self._held < 0
            for path in (lock, held):
                if os.path.exists(path):
                    os.utime(path)
        except (OSError, NotShared) as error:
            self._troubles["place"] = str(error)
        else:
            self._troubles.pop("place", None)
            self._hear()

    def _hear(self) -> None:
        """Where there can be no ear, looking closely must do."""
        name = os.path.basename(self._folder.file(self._name, "ear"))
        path = os.path.join(self._folder.path, name)
        if self._ear is not None:
            if os.path.exists(path):
                return
            self._poll.unregister(self._ear)
            self._ear.close()
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            with Short(self._folder.path) as short:
                ear.bind(short(name))
            os.chmod(path, 0o666)  # noqa: S103  # all that can be said into it is: look
            os.utime(path)
        except OSError:
            ear.close()
            self._ear = None
            return
        self._ear = ear
        self._poll.register(ear, select.EPOLLIN)

    def _say(self, trouble: str) -> None:
        """Once, to whoever reads the worker's log."""
        if trouble and trouble != self._said:
            print("wm-keeper: the machine is shared, but %s: nothing more is started here" % trouble, file=sys.stderr)
        self._said = trouble


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (OSError, ValueError, AttributeError, OverflowError):
        return -1
