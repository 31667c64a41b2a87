"""Jobs that save what they have done: what the agent is told of them, and the folder that follows such a job.

The folder lies beside the workers' own folders, so every worker of this user with the same `--work-dir` finds it: the
next attempt goes on there. Where the work dir is on a machine's own disk it stays on that machine.
"""

import os
import signal
import stat
from typing import Any, Mapping, Optional, Tuple

CAN = "checkpoint"
SIGNALS = ("TERM", "INT", "HUP", "USR1", "USR2", "CONT")
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@+-")


# For the keeper: the signal that comes first when the job is to be handed back, the time from it to KILL in ms, and the
# folder, "" where it wants none.
Checkpoint = Tuple[int, int, str]


def base_of(work_dir_prefix: str) -> str:
    """One for each user: several may share the folder above."""
    return os.path.join(os.path.abspath(work_dir_prefix), "checkpoints-%d" % os.geteuid())


def is_sensible(told: Any) -> bool:
    return (
        isinstance(told, dict)
        and told.get("signal") in SIGNALS
        and isinstance(told.get("grace_ms"), int)
        and 0 < told["grace_ms"] <= 86_400_000
        and isinstance(told.get("key", ""), str)
        and (not told.get("key") or _is_name(told["key"]))
    )


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 200 and text[0] not in ".-" and not set(text) - LETTERS


def told_to_keeper(assignment: Mapping[str, Any], base: str) -> Optional[Checkpoint]:
    told = (assignment.get("work") or {}).get("checkpoint")
    if not told:
        return None
    owner, name = assignment.get("owner") or "nobody", "%s-%s" % (assignment["job"], told.get("key"))
    directory = ""
    if told.get("key") and base and _is_name(owner) and _is_name(name):
        directory = os.path.join(base, owner, name)
    return int(getattr(signal, "SIG" + told["signal"])), told["grace_ms"], directory


def make(directory: str) -> None:
    """It, its owner's and everyone's. Raises OSError; also where somebody else has put one of them there."""
    owner = os.path.dirname(directory)
    for path in (os.path.dirname(owner), owner, directory):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise PermissionError(1, "it is not ours", path) from None
