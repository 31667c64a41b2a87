"""Processes of Linux as the keeper needs them: adopt orphans, start one, look at one, see which are its own.

Only direct children are ever signalled by number. A child's number stays its own until we reap it, so no signal can
reach a stranger; what is deeper becomes our child when its parent dies, because we are the subreaper.
"""

from __future__ import annotations

import errno
import os
import signal
import time

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Python ignores the first two and the keeper the others; what the one who started the agent ignores comes on top.
# A job must inherit none of that.
IGNORED_BY_US = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
IGNORED = sorted({*IGNORED_BY_US, *(n for n in range(1, signal.NSIG) if signal.getsignal(n) == signal.SIG_IGN)})


def boot_ms() -> int:
    """CLOCK_BOOTTIME: the time that a machine sleeps counts, too."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def adopt_orphans(name: str) -> None:
    """Become the parent of every descendant whose own parent dies, and show `name` in ps."""
    import ctypes  # here: nothing else of the keeper needs it

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this kernel lets no process adopt orphans (prctl PR_SET_CHILD_SUBREAPER)")


def find(command: str, path: str) -> str:
    """The file that a shell would run. Relative entries count from the current directory."""
    if "/" in command:
        return command
    for directory in path.split(":"):
        candidate = (directory or ".") + "/" + command
        if os.access(candidate, os.X_OK):
            return candidate
    for directory in path.split(":"):
        if os.path.exists((directory or ".") + "/" + command):
            raise PermissionError(errno.EACCES, "not executable", command)
    raise FileNotFoundError(errno.ENOENT, "command not found", command)


def spawn(argv: list[str], env: dict[str, str], stdin: int, output: int) -> int:
    """Start a process in a session of its own, in our current directory; it has descriptors 0, 1, 2 and no other.
    Raises OSError, or ValueError for what no command can be."""
    if not argv:
        raise ValueError("the command is empty")
    return os.posix_spawn(
        find(argv[0], env.get("PATH", DEFAULT_PATH)),
        argv,
        env,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=IGNORED,
    )


def send(pid: int, number: int) -> None:
    """Signal a child (positive) or the group of a child that is not reaped yet (negative)."""
    try:  # noqa: SIM105  # contextlib costs the keeper a millisecond to import
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone, or setuid to another user: nothing more that we may do


def reap_all() -> bool:
    """Reap every child that has ended; True when there is none left at all."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


class Children:
    """The direct children of this process, zombies included."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/self/task/%d/children" % os.getpid(), os.O_RDONLY)
        except OSError:
            self._fd = -1  # a kernel without CONFIG_PROC_CHILDREN: look through all of /proc instead

    def now(self) -> list[int]:
        if self._fd < 0:
            return self._by_search()
        text, part = b"", os.pread(self._fd, 65536, 0)
        while part:
            text += part
            # The kernel fills a page at a time, so a part this short was the last.
            part = os.pread(self._fd, 65536, len(text)) if len(part) > 2048 else b""
        return [int(word) for word in text.split()]

    def _by_search(self) -> list[int]:
        me = os.getpid()
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and parent_of(int(name)) == me]


def _stat(pid: int) -> list[bytes]:
    """The fields after the name, which may itself contain spaces and brackets; [] when there is no such process."""
    try:
        with open("/proc/%d/stat" % pid, "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def session_and_start(pid: int) -> tuple[int, int]:
    """Its session, and when it began (ms, CLOCK_BOOTTIME, cut to a clock tick); (0, 0) when it is gone."""
    fields = _stat(pid)
    return (int(fields[3]), int(fields[19]) * 1000 // TICKS_PER_SECOND) if fields else (0, 0)


def variable(pid: int, name: str) -> str:
    """A variable of the environment the process was started with; '' when it has none or may not be read."""
    try:
        with open("/proc/%d/environ" % pid, "rb", buffering=0) as file:
            entries = file.readall().split(b"\0")
    except OSError:
        return ""
    prefix = name.encode() + b"="
    return next((os.fsdecode(entry[len(prefix) :]) for entry in entries if entry.startswith(prefix)), "")


def is_zombie(pid: int) -> bool:
    """True also for what is gone."""
    fields = _stat(pid)
    return not fields or fields[0] in (b"Z", b"X")
