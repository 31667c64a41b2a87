"""Which workers of a cache are alive.

Each touches a file of its own; how long ago is told by the file system's own clock, so hosts need not agree about the
time. On the same host a process that is gone is known at once.
"""

import contextlib
import os
from typing import Callable, Dict, Optional, Tuple

from worker.cache.place import Place, write

DEAD_AFTER_S = 180.0
LOOK_EVERY_S = 1.0  # how long a word about the others holds


class Alive:
    def __init__(self, place: Place, clock: Callable[[], float], process: Optional[int] = None) -> None:
        """`process`: whose life counts; ours without it."""
        self._place = place
        self._clock = clock
        self._path = os.path.join(place.alive, place.worker)
        self._host = _host()
        self._known: Dict[str, Tuple[float, bool]] = {}
        pid = process or os.getpid()
        self._said = "%s\n%d %d\n" % (self._host, pid, _start(pid) or 0)
        write(self._path, self._said, place.unique())

    def beat(self) -> bool:
        """Say that we live. False when others took us for dead: what we had pinned may be gone."""
        try:
            os.utime(self._path)
            return True
        except FileNotFoundError:
            write(self._path, self._said, self._place.unique())
            return False

    def is_dead(self, worker: str) -> bool:
        if worker == self._place.worker:
            return False
        now = self._clock()
        at, dead = self._known.get(worker, (now - LOOK_EVERY_S - 1, False))
        if now - at > LOOK_EVERY_S:
            dead = self._look(worker)
            self._known[worker] = (now, dead)
        return dead

    def bury(self, worker: str) -> None:
        """Nothing of it is left. One that wakes up learns of it by its next beat."""
        _remove(os.path.join(self._place.alive, worker))
        self._known.pop(worker, None)

    def end(self) -> None:
        _remove(self._path)

    def _look(self, worker: str) -> bool:
        path = os.path.join(self._place.alive, worker)
        try:
            touched = os.stat(path).st_mtime
            with open(path, encoding="utf-8", errors="replace") as file:
                words = file.read().split("\n")
        except FileNotFoundError:
            return True
        except OSError:
            return False  # it cannot be told
        if len(words) > 1 and self._is_gone_here(words[0], words[1]):
            return True
        return self.now() - touched > DEAD_AFTER_S

    def _is_gone_here(self, host: str, process: str) -> bool:
        """Only where pids mean the same: this boot of this machine, and this container. A machine that was restarted
        looks like another of the same name, so its workers are dead when they have been silent for long enough."""
        pid, _, start = process.partition(" ")
        if host != self._host or not pid.isdigit():
            return False
        found = _start(int(pid))
        return found is not None and str(found) != start

    def now(self) -> float:
        """By the file system."""
        self.beat()
        return os.stat(self._path).st_mtime


def _host() -> str:
    """Where a pid names one process."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return "%s %s %s" % (os.uname().nodename, os.readlink("/proc/self/ns/pid"), boot)
    except OSError:
        return os.urandom(8).hex()  # like nobody's


def _start(pid: int) -> Optional[int]:
    """When the process began, in clock ticks since boot; 0 when there is none; None when that cannot be told."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:
        return None
    return 0 if words[0] in (b"Z", b"X") else int(words[19])


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
