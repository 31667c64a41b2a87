"""The keeper's part in a job's files: what was put together for it goes into its directory, and a directory of which
something is to be kept is set aside when the job has ended.

Renames only, whatever the size. A job without files never gets here.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.keeper.attempt import Attempt
    from worker.keeper.slots import Slot

    # For the keeper: the folder with what was put together ("" where there is nothing), what the job must be able to
    # read beside its directory, and when its directory is set aside: one of the following.
    Files = tuple[str, tuple[str, ...], int]

NEVER, ON_SUCCESS, ALWAYS = 0, 1, 2


def fill(folder: str, slot: str, user: tuple[int, int] | None) -> None:
    """Everything that is in `folder`, which is on the same file system; it goes. As this user's; None: ours."""
    for name in os.listdir(folder):
        there = os.path.join(slot, name)
        os.rename(os.path.join(folder, name), there)
        if user is not None and os.lstat(there).st_uid != user[0]:
            give(there, user)
    os.rmdir(folder)


def empty(attempt: Attempt) -> None:
    """It was not started after all: back into the folder, as far as it came."""
    folder = attempt.files[0] if attempt.files else ""
    if not folder or attempt.slot is None or os.listdir(attempt.slot.path) == []:
        return
    os.makedirs(folder, 0o700, exist_ok=True)
    for name in os.listdir(attempt.slot.path):
        os.rename(os.path.join(attempt.slot.path, name), os.path.join(folder, name))


def give(path: str, user: tuple[int, int]) -> None:
    """It and everything in it; what a link leads to stays whose it is."""
    os.chown(path, *user, follow_symlinks=False)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for name in os.listdir(path):
            give(os.path.join(path, name), user)


def is_wanted(attempt: Attempt) -> bool:
    """Whether what it left is to be looked through. One that is handed back or cancelled leaves nothing."""
    if attempt.files is None or attempt.files[2] == NEVER or not attempt.started_ms:
        return False
    outcome = attempt.result()[2]
    return bool(outcome == "succeeded" or (outcome == "failed" and attempt.files[2] == ALWAYS))


def set_aside(slot: Slot, folder: str) -> str:
    """Where it stands now. A job may have done anything to its directory: "" when it is not there any more."""
    there = os.path.join(folder, os.path.basename(slot.path))
    try:
        found = os.lstat(slot.path)
        if (found.st_dev, found.st_ino) != slot.identity[:2] or not stat.S_ISDIR(found.st_mode):
            return ""
        os.makedirs(folder, 0o700, exist_ok=True)
        os.rename(slot.path, there)
    except OSError:
        return ""
    return there
