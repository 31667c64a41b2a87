"""Jobs that save what they have done: what the agent is told of them, and the folder that follows such a job.

The folder lies beside the workers' own folders, so every worker of this user with the same `--work-dir` finds it: the
next attempt goes on there. Where the work dir is on a machine's own disk it stays on that machine.

It goes when the job has succeeded or was cancelled. One that failed may be wanted for a look, and of a job that ended
elsewhere nobody hears anything here: so what no attempt has used for a week goes, too.
"""

import contextlib
import os
import signal
import stat
import time
from typing import Any, Callable, Iterable, List, Mapping, Optional, Tuple

CAN = "checkpoint"
# Where the signal reaches the job and the folder is its own. That apptainer passes signals on was never tried.
ISOLATIONS = ("process", "sandbox", "docker", "podman")
KEEP_MS = 7 * 86_400_000
FIRST_SWEEP_MS, SWEEP_EVERY_MS = 60_000, 3_600_000
ASIDE = ".old-"  # no job's name begins like this
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


def make(directory: str, user: Optional[Tuple[int, int]] = None) -> None:
    """It, its owner's and everyone's; for a job that runs as this (uid, gid), None: as we do. Raises OSError, too where
    somebody else has put one of them there. It counts as used now."""
    owner = os.path.dirname(directory)
    for path in (os.path.dirname(owner), owner):
        _make(path, os.geteuid())
        if user is not None:
            os.chmod(path, 0o711)  # noqa: S103 (to enter, not to list; what lies there is private by itself)
    _make(directory, os.geteuid() if user is None else user[0])
    if user is not None:
        os.chown(directory, *user)
    os.utime(directory)


def _make(path: str, user: int) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), user):
            raise PermissionError(1, "it is not ours", path) from None


# ---------------------------------------------------------------- what nobody goes on with


def sweep(base: str, keep_ms: int, used: Iterable[str], now_ms: int) -> List[str]:
    """Removes the folders below `base` that no attempt has used for so long. `used` are used now, whatever is told of
    them. Returns what was removed. Several workers may do this at once: each takes a folder away before it looks again
    and removes it."""
    for path in used:
        with contextlib.suppress(OSError):
            os.utime(path, (now_ms / 1000, now_ms / 1000))
    gone = []
    for owner in _folders(base):
        for path in _folders(owner):
            name = os.path.basename(path)
            if name.startswith(ASIDE):  # one that was killed at it
                _remove(path)
            elif _is_old(path, keep_ms, now_ms) and _set_aside(path, keep_ms, now_ms):
                gone.append(path)
    return gone


def _set_aside(path: str, keep_ms: int, now_ms: int) -> bool:
    aside = os.path.join(os.path.dirname(path), ASIDE + os.path.basename(path))
    try:
        os.rename(path, aside)
        if not _is_old(aside, keep_ms, now_ms):  # an attempt has begun with it a moment ago
            os.rename(aside, path)
            return False
    except OSError:
        return False
    _remove(aside)
    return True


def _folders(path: str) -> List[str]:
    try:
        return sorted(each.path for each in os.scandir(path) if each.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _is_old(path: str, keep_ms: int, now_ms: int) -> bool:
    try:
        return os.lstat(path).st_mtime * 1000 < now_ms - keep_ms
    except OSError:
        return False


def _remove(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


class Janitor:
    """Of an agent: sweeps in a thread of its own, because a file server may be slow, or hang."""

    def __init__(self, base: str, keep_ms: int, used: Callable[[], List[str]], now: int) -> None:
        """`used`: the folders of the attempts that are here. `keep_ms` 0: nothing is ever removed."""
        self._base = base
        self._keep_ms = keep_ms
        self._used = used
        self._gone: List[str] = []
        self._due = now + FIRST_SWEEP_MS
        self._thread: Any = None

    def look(self, now: int) -> List[str]:
        """Now and then; never waits. What was removed since the last time."""
        if self._thread is not None and self._thread.is_alive():
            return []
        gone, self._gone = self._gone, []
        if now >= self._due and self._keep_ms:
            self._begin(now)
        return gone

    def _begin(self, now: int) -> None:
        import threading

        self._due = now + SWEEP_EVERY_MS
        self._thread = threading.Thread(target=self._sweep, args=(self._used(),), daemon=True)
        self._thread.start()

    def _sweep(self, used: List[str]) -> None:
        self._gone = sweep(self._base, self._keep_ms, used, time.time_ns() // 1_000_000)
