"""The worker's own folder: private, locked while its agent lives, below a prefix that several workers may share."""

import fcntl
import os
import stat

from worker import here

LOCK = ".lock"
OWN_FILES = {LOCK, here.FILE, here.SOCKET}  # of use to nobody once their agent has gone


class WorkDirError(Exception):
    """The work dir cannot be used; the message says which, and why."""


class WorkDirInUse(WorkDirError):
    """Another agent with this worker's id lives there."""


class WorkDir:
    def __init__(self, prefix: str, worker: str) -> None:
        """Makes `prefix/worker` with mode 0700, or takes over what an earlier agent of ours left there."""
        self.path = os.path.join(os.path.abspath(prefix), worker)
        try:
            os.makedirs(prefix, mode=0o700, exist_ok=True)
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                _must_be_ours(self.path)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(os.path.join(self.path, LOCK), flags, 0o600)
        except OSError as error:
            raise WorkDirError("the work dir %s cannot be used: %s" % (self.path, error.strerror or error)) from None
        self.jobs = os.path.join(self.path, "jobs")  # the keeper's: nothing else is written there
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise WorkDirInUse("another agent uses the work dir %s" % self.path) from None
        try:
            os.makedirs(self.jobs, mode=0o700, exist_ok=True)
        except OSError as error:
            raise WorkDirError("%s cannot be made: %s" % (self.jobs, error.strerror)) from None

    def close(self, delete: bool) -> None:
        """Lets go of it. What jobs had goes in any case, and the folder with it when nothing else is in it: a worker a
        minute would soon fill a disk with empty ones. With `delete` nothing stays. What cannot be deleted stays."""
        from worker.cache.entries import remove_tree

        remove_tree(self.path if delete else self.jobs)
        if not delete and self._holds_nothing():
            remove_tree(self.path)
        os.close(self._lock)

    def _holds_nothing(self) -> bool:
        try:
            return set(os.listdir(self.path)) <= OWN_FILES
        except OSError:
            return False


def _must_be_ours(path: str) -> None:
    """Someone else could have put it there, in a folder such as /tmp."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise WorkDirError("the work dir %s is no folder" % path)
    if status.st_uid != os.geteuid():
        raise WorkDirError("the work dir %s belongs to another user" % path)
    os.chmod(path, 0o700)


def default_prefix() -> str:
    """Local disk that outlives a reboot of the worker; ours alone, because everyone may write beside it."""
    path = "/var/tmp/worker-manager-%d" % os.getuid()  # noqa: S108 (checked on the next lines)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        _must_be_ours(path)
    except OSError as error:
        raise WorkDirError("%s cannot be made: %s; name a --work-dir" % (path, error.strerror)) from None
    return path
