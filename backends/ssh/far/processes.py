"""Processes of this host: who they are, which belong together, how they are ended."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path

MARK = "WM_WORKER_DIR"  # what this environment variable names is the worker that a process belongs to
_DEAD = "ZXx"
_ROUNDS = 50  # of freezing: each finds what was forked since the last


class Stat:
    def __init__(self, pid: int, text: bytes) -> None:
        words = text[text.rindex(b")") + 2 :].split()  # the name before it may hold anything
        self.pid = pid
        self.dead = words[0].decode() in _DEAD
        self.parent, self.session, self.start = int(words[1]), int(words[3]), int(words[19])


def _proc(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", 0) as file:  # noqa: PTH123 -- read for every process
        return file.read()


def look(pid: int) -> Stat | None:
    try:
        return Stat(pid, _proc(pid, "stat"))
    except (OSError, ValueError, IndexError):
        return None


class Table(dict[int, Stat]):
    """Every process that is not over, by pid; and which carry whose mark, looked at once."""

    def __init__(self) -> None:
        found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 -- just the names
        super().__init__({one.pid: one for one in found if one and not one.dead})

    @cached_property
    def marked(self) -> dict[bytes, set[int]]:
        marks: dict[bytes, set[int]] = {}
        for one in self.values():
            marks.setdefault(_mark(one.pid, one.start), set()).add(one.pid)
        return marks


@lru_cache(maxsize=None)  # noqa: UP033 -- a word of Python 3.8, as is the rest
def _mark(pid: int, _start: int) -> bytes:
    """Read once in a call: it never changes, but for a process that is only just being started, and one of those that
    are ours is found by its session."""
    try:
        words = _proc(pid, "environ").split(b"\0")
    except OSError:
        return b""
    begins = MARK.encode() + b"="
    return next((word[len(begins) :] for word in words if word.startswith(begins)), b"")


def boot_id() -> str:
    """Changes when the machine restarts: then nothing that was recorded before is alive."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def send(pid: int, start: int, number: int) -> None:
    """To that very process, or to none: a pid alone names nobody."""
    with suppress(OSError):
        handle = _hold(pid)
        try:
            found = look(pid)
            if found and found.start == start:
                if handle is None:
                    os.kill(pid, number)
                else:
                    signal.pidfd_send_signal(handle, number)
        finally:
            if handle is not None:
                os.close(handle)


def _hold(pid: int) -> int | None:
    """The process itself, which its number cannot leave; None where the kernel is older than 5.3."""
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        return None
    except OSError as failed:
        if failed.errno != errno.ENOSYS:
            raise
        return None


def end_all(roots: Callable[[Table], set[int]]) -> None:
    """KILL the roots and all that descends from them. They are frozen first, so that none escapes by forking."""
    frozen: set[tuple[int, int]] = set()
    for _ in range(_ROUNDS):
        now = Table()
        new = {(pid, now[pid].start) for pid in descent(now, roots(now))} - frozen
        if not new:
            break
        for pid, start in new:
            send(pid, start, signal.SIGSTOP)
        frozen |= new
    for pid, start in frozen:
        send(pid, start, signal.SIGKILL)


def descent(now: Table, roots: set[int]) -> set[int]:
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in now]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += [other.pid for other in now.values() if other.parent == pid]
    return found
