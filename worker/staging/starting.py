"""A stager begins: a process of its own, in a session of its own, that shares one socket with the agent."""

import fcntl
import os
import socket
import sys
from typing import Tuple

from worker.channel import Channel

CHANNEL_FD = 3
BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from worker.staging.stager import main; sys.exit(main())"
FLAGS = ("-I", "-S", "-X", "utf8")
# One arena for all of its threads: else each keeps tens of megabytes of its own.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
NEEDS = ("LD_LIBRARY_PATH", "WM_ATTEMPT", "WM_WORKER_DIR")  # the last two: whose process this is, for `processes`


def start() -> Tuple[Channel, int]:
    """Its channel and pid. The first message must be `setup`. It ends when the channel is closed; reap it."""
    ours, theirs = socket.socketpair()
    passed = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *FLAGS, "-c", BOOTSTRAP, root],
            {**{name: os.environ[name] for name in NEEDS if name in os.environ}, **ENVIRONMENT},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing, 0),
                (os.POSIX_SPAWN_DUP2, 2 if _is_open(2) else nothing, 1),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, passed, CHANNEL_FD),
            ],
            setsid=True,
            setsigmask=[],
        )
    finally:
        os.close(passed)
        os.close(nothing)
        theirs.close()
    return Channel(ours.detach()), pid


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
