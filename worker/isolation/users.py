"""Which user the jobs of an owner run as, where the agent is root and no user was named: one number for each owner.

The numbers are the machine's: every agent on it that is root asks the same file, so that no two owners share one, and a
number is never given to a second owner. Such a user has no name and no home; it exists by being used.
"""

from __future__ import annotations

import fcntl
import os

from worker.isolation.ways import PROCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

FIRST, LAST = 700_000, 799_998  # below and above lie what systems give to people, services and subordinate ids
TRIAL = (799_999, 799_999)  # nobody's: as this one it is tried whether a sandbox can be made
REGISTRY = "/var/lib/worker-manager/job-users"


class Users:
    """`registry`: the file, made private. Raises OSError where it cannot be kept, or the numbers are used up."""

    def __init__(self, registry: str, first: int = FIRST, last: int = LAST) -> None:
        self._registry = registry
        self._first, self._last = first, last
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, owner: str) -> tuple[int, int]:
        """(uid, gid) of this owner, the same as ever."""
        if owner not in self._known:
            number = self._first + self._place(owner)
            if number > self._last:
                raise OSError(
                    "the users for jobs are used up: %s holds %d" % (self._registry, self._last - self._first)
                )
            self._known[owner] = (number, number)
        return self._known[owner]

    def numbers(self) -> str:
        """Which list this is: no two machines have the same, unless they share the file. Raises OSError."""
        path = self._registry + ".id"
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = _read(descriptor).decode("ascii", "replace").strip()
            if not known:
                known = os.urandom(16).hex()
                os.write(descriptor, known.encode())
                os.fsync(descriptor)
            return known
        finally:
            os.close(descriptor)

    def _place(self, owner: str) -> int:
        """Its line in the file; a new one when it has none. A line that was cut short by a crash keeps its place."""
        os.makedirs(os.path.dirname(self._registry), 0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._registry, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            lines = _read(descriptor).split(b"\n")
            word = owner.encode("utf-8", "backslashreplace").replace(b"\n", b"\\n")
            if word in lines[:-1]:
                return lines.index(word)
            torn = b"\n" if lines[-1] else b""
            os.lseek(descriptor, 0, os.SEEK_END)
            os.write(descriptor, torn + word + b"\n")
            os.fsync(descriptor)
            return len(lines) - 1 + len(torn)
        finally:
            os.close(descriptor)


def chosen(told: Mapping[str, Any], kind: str, owner: str, users: Users) -> tuple[int, int] | None:
    """As whom a job of this owner runs; None: as the agent. One that is kept apart is never root, unless root was named
    for it. `told`: what `found.find` learned. Raises OSError."""
    if not told.get("root"):
        return None
    if told.get("one_user"):
        return told["one_user"][0], told["one_user"][1]
    if told.get("each_owner") or kind != PROCESS:
        return users.of(owner)
    return None


def numbers(told: Mapping[str, Any], users: Users) -> str:
    """Where the numbers of jobs' users come from: machines with the same word have the same ones. Raises OSError."""
    if not told.get("root"):
        return ""
    return "user %d:%d" % tuple(told["one_user"]) if told.get("one_user") else users.numbers()


def _read(descriptor: int) -> bytes:
    found = b""
    while True:
        part = os.pread(descriptor, 65536, len(found))
        if not part:
            return found
        found += part
