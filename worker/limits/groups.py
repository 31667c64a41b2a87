"""Control groups of the kernel, one for each job with a limit.

A process is born into its group: the keeper (one thread) enters it, spawns, and leaves. So no moment is unlimited, and
no shell stands between. The groups of one keeper lie in a folder that it keeps locked; a folder that nobody locks was
left by a keeper that was killed, and goes with everything in it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time

from worker.limits.group import FILES, Group
from worker.limits.places import LEAF, Place, offered, read_file, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping

PREFIX = "wm-"
LEAST_MEMORY = 16 * 2**20  # with less no process starts, and the kernel's own share of a job counts, too
PATIENCE_S = 2.0


class Groups:
    def __init__(self, places: Mapping[str, Place]) -> None:
        """Makes our locked folder in each place and removes what dead keepers left there. A place where that fails is
        not used: `limits_memory` and `limits_processes` say what is."""
        self._tops: dict[str, str] = {}
        self._places: dict[str, Place] = {}
        self._homes: dict[str, int] = {}  # descriptors by which the keeper returns
        self._locks: list[int] = []
        self._made = 0
        self._left: list[str] = []  # folders that could not be removed yet
        self._swaps = len((read_file("/proc/swaps") or "").splitlines()) > 1
        for controller, place in places.items():
            try:
                self._open(controller, place)
            except OSError:
                self._tops.pop(controller, None)

    def _open(self, controller: str, place: Place) -> None:
        same = next((name for name, other in self._places.items() if other.parent == place.parent), "")
        if same:  # version 2: one folder for both
            self._tops[controller], self._places[controller] = self._tops[same], place
            return
        remove_leftovers(place.parent)
        self._tops[controller], lock = locked_folder(place.parent)
        self._locks.append(lock)
        if place.version == 2:
            given = " ".join("+" + each for each in offered(self._tops[controller]))
            write_file(self._tops[controller] + "/cgroup.subtree_control", given)
        flags = os.O_WRONLY | os.O_CLOEXEC
        self._homes[controller] = os.open(place.home + "/" + FILES[place.version]["enter"], flags)
        self._places[controller] = place

    @property
    def limits_memory(self) -> bool:
        return "memory" in self._tops

    @property
    def limits_processes(self) -> bool:
        return "pids" in self._tops

    def enter_new(self, memory: int, processes: int) -> Group:
        """A group with these limits (0: none), with us in it. Raises OSError; then we are where we were."""
        self._made += 1
        made = Group(next(iter(self._places.values())).version, "", "")
        try:
            if memory and self.limits_memory:
                made.memory = self._make("memory")
                self._limit_memory(made, max(memory, LEAST_MEMORY))
            if processes and self.limits_processes:
                made.pids = self._make("pids")
                write_file(made.pids + "/pids.max", str(processes + 1))  # we are in it, for the moment of the spawn
            for folder in made.folders:
                write_file(folder + "/" + FILES[made.version]["enter"], "0")
        except OSError:
            self.leave()
            self.remove(made)
            raise
        return made

    def _make(self, controller: str) -> str:
        folder = "%s/%d" % (self._tops[controller], self._made)
        try:
            os.mkdir(folder)
        except FileExistsError:
            if self._places[controller].version == 1:
                raise
        return folder

    def _limit_memory(self, group: Group, memory: int) -> None:
        files = FILES[group.version]
        write_file(group.memory + "/" + files["limit"], str(memory))
        if group.version == 2:
            write_file(group.memory + "/memory.oom.group", "1")
        if self._swaps:
            try:  # noqa: SIM105  # contextlib costs the keeper a millisecond to import
                write_file(group.memory + "/" + files["swap"], str(memory) if group.version == 1 else "0")
            except OSError:
                pass  # a kernel that does not count swap

    def leave(self) -> None:
        """Back to where we belong. To stay in a job's group would be its memory and its end."""
        try:
            for descriptor in self._homes.values():
                os.write(descriptor, b"0")
        except OSError as problem:
            raise RuntimeError("the keeper cannot leave a job's control group: %s" % problem) from problem

    def settle(self, group: Group, processes: int) -> None:
        """We are out of it again: its processes have all of their number, and no more."""
        if group.pids:
            write_file(group.pids + "/pids.max", str(processes))

    def remove(self, group: Group) -> None:
        """What a process still holds is tried again later."""
        self._left += [folder for folder in group.folders if not removed(folder)]

    def remove_the_rest(self) -> None:
        self._left = [folder for folder in self._left if not removed(folder)]

    def close(self) -> None:
        for folder in sorted(set(self._tops.values())):
            emptied(folder)


def locked_folder(parent: str) -> tuple[str, int]:
    """A new folder of ours, and the descriptor that holds its lock. A cleaner may come between making and locking."""
    while True:
        folder = parent + "/" + PREFIX + os.urandom(6).hex()
        os.mkdir(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.isdir(folder):
                return folder, descriptor
        except BlockingIOError:
            pass
        os.close(descriptor)


def remove_leftovers(parent: str) -> None:
    """Folders of keepers that are dead, with what still runs in them. What cannot be removed stays for the next."""
    for name in _names(parent):
        folder = parent + "/" + name
        if not name.startswith(PREFIX) or name == LEAF or not os.path.isdir(folder):
            continue
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            emptied(folder)
        except OSError:
            pass  # its keeper lives
        finally:
            os.close(descriptor)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def emptied(folder: str) -> bool:
    """Everything in it is killed, and the folder removed with all below it; False when something would not go."""
    until = time.monotonic() + PATIENCE_S
    while not removed(folder):
        if time.monotonic() > until:
            return False
        for inner, _, _ in os.walk(folder):
            for word in (read_file(inner + "/cgroup.procs") or "").split():
                try:  # noqa: SIM105
                    os.kill(int(word), signal.SIGKILL)
                except OSError:
                    pass
        time.sleep(0.005)
    return True


def removed(folder: str) -> bool:
    """True when it is gone: with what jobs made below it, as agents that are jobs do."""
    try:
        os.rmdir(folder)
        return True
    except FileNotFoundError:
        return True
    except OSError as problem:
        if problem.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            return False
    for inner, _, _ in os.walk(folder, topdown=False):
        try:  # noqa: SIM105
            os.rmdir(inner)
        except OSError:
            pass
    return not os.path.isdir(folder)
