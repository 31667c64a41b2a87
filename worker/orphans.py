"""When the keeper itself was killed: find what its jobs left, and end it.

The keeper needs none of this, because it reaps its own children. Here the processes are strangers' children, so each is
held by a pidfd before it is looked at: its number cannot pass to another process in between.
"""

from __future__ import annotations

import os
import signal
import time

from worker import processes

PATIENCE_S = 5.0
PAUSE_S = 0.01


def end(keeper_id: str, sessions: set[int]) -> bool:
    """Kill every process that carries this WM_KEEPER or is in one of these sessions, until there is none; False when
    some still stand after a while (in an uninterruptible wait)."""
    until = time.monotonic() + PATIENCE_S
    while True:
        alive = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        if not [pid for pid in alive if _kill_if_theirs(pid, keeper_id, sessions)]:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE_S)


def _kill_if_theirs(pid: int, keeper_id: str, sessions: set[int]) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:
        handle = -1  # a kernel before 5.3: then without the guard
    try:
        if not _is_theirs(pid, keeper_id, sessions):
            return False
        if handle >= 0:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        if handle >= 0:
            os.close(handle)


def _is_theirs(pid: int, keeper_id: str, sessions: set[int]) -> bool:
    """A number in `sessions` may have passed to a stranger, so a session counts only while its leader is ours too or
    gone; a zombie is dead already."""
    if processes.is_zombie(pid):
        return False
    if processes.variable(pid, "WM_KEEPER") == keeper_id:
        return True
    session, _ = processes.session_and_start(pid)
    return session in sessions and session != pid and not os.path.exists("/proc/%d" % session)
