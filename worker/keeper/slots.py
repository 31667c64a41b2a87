"""Slot directories: the working directory of each attempt, reused so that a job costs no new directory.

A slot is reused only for the same owner, and only when it is the untouched, empty directory that was given out. Any
other is set aside and removed later by a process of its own, because removing a tree may take long.
"""

from __future__ import annotations

import os
import sys

from worker import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    Holder = tuple[str, "tuple[int, int] | None"]  # the owner, and the user as whom its job runs

MODE = 0o700
IDLE_SLOTS = 64  # empty ones kept for reuse; more are removed
REMOVE = 'rm -rf -- "$@" && exit 0; chmod -R u+rwx -- "$@"; exec rm -rf -- "$@"'
AT_ONCE = 50  # directories that one remover takes


class Slot:
    __slots__ = ("holder", "identity", "path")

    def __init__(self, path: str, holder: Holder, identity: tuple[int, int, int, int]) -> None:
        self.path = path
        self.holder = holder
        self.identity = identity


def identity(path: str) -> tuple[int, int, int, int]:
    """What stays the same while nobody replaces the directory or changes its rights."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid


class Slots:
    """The slots under one directory, which belongs to this object alone. `garbage` lists paths to be removed; in `kept`
    stand directories of jobs that have ended, set aside by `filling`."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.join(directory, "slots")
        self._trash = os.path.join(directory, "trash")
        self.kept = os.path.join(directory, "kept")
        self.garbage: list[str] = []
        self._idle: dict[Holder, list[Slot]] = {}
        self._idle_count = 0
        self._made = 0
        for path in (self._directory, self._trash):
            os.makedirs(path, MODE, exist_ok=True)
        self._start_empty()

    def take(self, owner: str, user: tuple[int, int] | None = None) -> Slot:
        """An empty directory that no other owner ever used, and that belongs to this (uid, gid); None: to us. Raises
        OSError when none can be made."""
        holder = (owner, user)
        idle = self._idle.get(holder)
        if idle:
            self._idle_count -= 1
            return idle.pop()
        self._made += 1
        path = os.path.join(self._directory, str(self._made))
        os.mkdir(path, MODE)
        os.chmod(path, MODE)  # whatever the umask says
        if user is not None:
            os.chown(path, *user)
        return Slot(path, holder, identity(path))

    def give_back(self, slot: Slot, reusable: bool = True) -> None:
        """`reusable` False: a process may still hold it."""
        if reusable and self._is_untouched(slot):
            if self._idle_count < IDLE_SLOTS:
                self._idle.setdefault(slot.holder, []).append(slot)
                self._idle_count += 1
                return
            self._forget_idle()
        self._discard(slot.path)

    def _is_untouched(self, slot: Slot) -> bool:
        try:
            return identity(slot.path) == slot.identity and not os.listdir(slot.path)
        except OSError:
            return False

    def _forget_idle(self) -> None:
        """Owners come and go: what they left idle must not pile up."""
        for slots in self._idle.values():
            for slot in slots:
                self._discard(slot.path)
        self._idle.clear()
        self._idle_count = 0

    def _discard(self, path: str) -> None:
        try:
            os.rmdir(path)
            return
        except OSError:
            pass
        aside = os.path.join(self._trash, os.path.basename(path))
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
        except OSError:
            aside = path  # for example over a mount point: try to remove it where it stands
        self.garbage.append(aside)

    def _start_empty(self) -> None:
        """What an earlier keeper left. Its names may stand in the trash already, so new names go on after them."""
        left = [os.path.join(self._directory, name) for name in os.listdir(self._directory)]
        left += [os.path.join(self.kept, name) for name in _names(self.kept)]
        trash = [os.path.join(self._trash, name) for name in os.listdir(self._trash)]
        numbers = [int(name) for name in map(os.path.basename, left + trash) if name.isdigit()]
        self._made = max(numbers, default=0)
        self.garbage += trash
        for path in left:
            self._discard(path)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


class Remover:
    """Removes what the slots have set aside, with one process at a time."""

    def __init__(self, slots: Slots, nothing: int) -> None:
        self._slots = slots
        self._nothing = nothing  # a descriptor of /dev/null
        self.pid = 0  # 0: none is at work

    def begin(self) -> None:
        """Unless there is nothing to remove, or the one before is still at it."""
        if not self._slots.garbage or self.pid:
            return
        paths, self._slots.garbage = self._slots.garbage[:AT_ONCE], self._slots.garbage[AT_ONCE:]
        try:
            argv = ["sh", "-c", REMOVE, "remove", *paths]
            self.pid = processes.spawn(argv, {"PATH": processes.DEFAULT_PATH}, self._nothing, self._nothing)
        except OSError as problem:
            print("wm-keeper: cannot remove %s: %s" % (", ".join(paths), problem), file=sys.stderr)
