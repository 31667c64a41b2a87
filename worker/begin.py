"""Another process of the agent's own begins: its keeper, its stager."""

import fcntl
import os
import socket
import sys
from typing import Mapping, Optional, Tuple

from worker.channel import CHANNEL_FD, LOCK_FD, Channel
from worker.telling import MARK

BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from %s import main; sys.exit(main())"
# Isolated and without site: starts in half the time, and nobody's environment or directory changes what it runs.
INTERPRETER_FLAGS = ("-I", "-S", "-X", "utf8")
# All of the agent's environment that it sees; a job sees the mark alone. WM_ATTEMPT: an agent may be a job.
NEEDS = ("LD_LIBRARY_PATH", "WM_ATTEMPT", MARK)


def begin(module: str, env: Optional[Mapping[str, str]] = None, lock: int = -1) -> Tuple[Channel, int]:
    """The `main` of this module in a process of its own, in a session of its own, that shares one socket with us and
    nothing else; but for a lock among neighbours, where there is one. Its channel and pid: it ends when the channel is
    closed, and is to be reaped."""
    ours, theirs = socket.socketpair()
    # Away from the low numbers, because they get fixed ones there.
    passed = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
    passed_lock = -1 if lock < 0 else fcntl.fcntl(lock, fcntl.F_DUPFD_CLOEXEC, 10)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *INTERPRETER_FLAGS, "-c", BOOTSTRAP % module, root],
            {**{name: os.environ[name] for name in NEEDS if name in os.environ}, **(env or {})},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing, 0),
                (os.POSIX_SPAWN_DUP2, 2 if _is_open(2) else nothing, 1),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, passed, CHANNEL_FD),
                *([] if lock < 0 else [(os.POSIX_SPAWN_DUP2, passed_lock, LOCK_FD)]),
            ],
            setsid=True,
            setsigmask=[],
        )
    finally:
        os.close(passed)
        os.close(nothing)
        if lock >= 0:
            os.close(passed_lock)
        theirs.close()
    return Channel(ours.detach()), pid


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
