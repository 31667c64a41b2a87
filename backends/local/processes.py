"""Processes of this machine: who they are, which belong together, how they are started and ended.

A pid alone names nobody, because pids are used again: a process is (pid, start time), and a signal goes through a
pidfd that was compared with the start time after it was opened.
"""

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_DEAD = "ZXx"
_RESET = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXFSZ,
)
_ROUNDS = 50  # of freezing: each finds what was forked since the last


@dataclass(frozen=True)
class Process:
    pid: int
    start: int  # clock ticks since boot


@dataclass(frozen=True)
class Stat:
    pid: int
    state: str
    parent: int
    session: int
    start: int

    @property
    def process(self) -> Process:
        return Process(self.pid, self.start)

    @property
    def dead(self) -> bool:
        """Over, though it may stay in the table until its parent asks."""
        return self.state in _DEAD


Table = Mapping[int, Stat]


@cache
def boot_id() -> str:
    """Changes when the machine restarts: then nothing that was recorded before is alive."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def look(pid: int) -> Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 -- read for every worker at every tick
            text = file.read()
    except OSError:
        return None
    words = text[text.rindex(b")") + 2 :].split()  # the name before it may hold anything
    return Stat(pid, words[0].decode(), int(words[1]), int(words[3]), int(words[19]))


def alive(process: Process) -> bool:
    stat = look(process.pid)
    return stat is not None and stat.start == process.start and not stat.dead


def table() -> Table:
    """Every process that is not over."""
    stats = (look(int(entry.name)) for entry in os.scandir("/proc") if entry.name.isdigit())
    return {stat.pid: stat for stat in stats if stat and not stat.dead}


def marked(processes: Table, variable: str, value: str) -> set[int]:
    """Those that were started with this environment variable, as far as we may read it."""
    mark = b"\0" + os.fsencode(f"{variable}={value}") + b"\0"
    return {pid for pid in processes if mark in b"\0" + _environment(pid)}


def in_session(processes: Table, leader: int) -> set[int]:
    return {stat.pid for stat in processes.values() if stat.session == leader}


def descent(processes: Table, roots: Iterable[int]) -> set[int]:
    """The roots and everything that descends from them."""
    children: dict[int, list[int]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def send(process: Process, number: signal.Signals) -> bool:
    """False when it is gone, or not ours to signal."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        stat = look(process.pid)
        if stat is None or stat.start != process.start:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def end_all(roots: Callable[[Table], set[int]]) -> None:
    """KILL the roots and their whole descent. They are frozen first, so that none escapes by forking meanwhile."""
    frozen: set[Process] = set()
    for _ in range(_ROUNDS):
        now = table()
        new = {now[pid].process for pid in descent(now, roots(now))} - frozen
        if not new:
            break
        for process in new:
            send(process, signal.SIGSTOP)
        frozen |= new
    for process in frozen:
        send(process, signal.SIGKILL)


def spawn(argv: list[str], environment: Mapping[str, str], output: Path) -> Process | None:
    """Start a process in a session of its own that holds nothing of ours: no terminal, no descriptor, no signal mask.
    None when it was over before it could be looked at. Raises OSError."""
    opened = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_CLOSE, number) for number in _inheritable()
    ]
    actions += [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), opened, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_RESET)
    stat = look(pid)
    return stat.process if stat else None


def reap(process: Process) -> int | None:
    """Take our own dead child out of the table; its exit status as a shell shows it. None when it is not ours."""
    stat = look(process.pid)
    if stat is None or stat.start != process.start or not stat.dead or stat.parent != os.getpid():
        return None
    with suppress(ChildProcessError):
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
    return None


def _environment(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 -- read for every process
            return file.read()
    except OSError:
        return b""


def _inheritable() -> list[int]:
    """Descriptors that we were given ourselves and would pass on: a worker that holds them would keep pipes open."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        number = int(entry.name)
        with suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found
