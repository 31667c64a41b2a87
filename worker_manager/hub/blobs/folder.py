"""The bytes of blobs on disk. Everything here blocks; call it in a thread.

    <folder>/<first two digits>/<sha256>           whole, its digest checked, durable; never changed
    <folder>/partial/<of whom>-<sha256>            what has come of one so far

A blob gets its name only when all of it is on disk, so whatever has a name is whole. The unfinished file keeps its name
beside it until the database knows the blob: whatever happens in between, the next try begins at the end.
"""

import contextlib
import errno
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from worker_manager.errors import StoreError

PARTIAL = "partial"
GROUPS = 256  # folders, by the first two digits
ASIDE = ".gone-"
SECOND = ".second-"
MOST_KEPT_FREE = 2**30
KEPT_FREE = 20  # one part in so many of the disk is left to the database and to others, at most MOST_KEPT_FREE
FULL = (errno.ENOSPC, errno.EDQUOT)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """One of the unfinished files."""

    name: str
    size: int
    written_ms: int


class BlobFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder / PARTIAL
        try:
            self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder} cannot hold the files of jobs: {error.strerror or error}") from None

    # ------------------------------------------------------------ whole ones

    def size(self, sha256: str) -> int | None:
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def open(self, sha256: str) -> int | None:
        """A descriptor to read it by, which the caller closes; it stays readable though the blob be removed."""
        try:
            return os.open(self._path(sha256), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None

    def publish(self, name: str, sha256: str) -> None:
        """The unfinished file, whole and flushed, becomes the blob, in place of one that is there. Durable when it
        returns. Its unfinished name stays."""
        place = self._path(sha256)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        second = place.with_name(f"{SECOND}{name}")
        second.unlink(missing_ok=True)
        try:
            os.link(self._partial / name, second)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            (self._partial / name).replace(place)
        else:
            second.replace(place)
            second.unlink(missing_ok=True)  # where both were one file already, nothing was replaced
        _sync(place.parent)
        _sync(self._folder)

    def remove(self, sha256: str) -> None:
        self._path(sha256).unlink(missing_ok=True)

    def rested(self, group: int, before_ms: int) -> list[str]:
        """The blobs of one of the GROUPS that have had their name since before then. Second names of such an age, which
        a crash has left, are removed."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder / f"{group:02x}") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_ctime_ns >= before_ms * 10**6:
                        continue
                    if is_digest(entry.name):
                        found.append(entry.name)
                    elif entry.name.startswith(SECOND):
                        Path(entry.path).unlink()
        return found

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    # ------------------------------------------------------------ unfinished ones

    @staticmethod
    def unfinished_name(owner: str, sha256: str) -> str:
        return f"{hashlib.sha256(owner.encode()).hexdigest()[:24]}-{sha256}"

    def so_far(self, name: str) -> int:
        """How many bytes of it have come."""
        try:
            return (self._partial / name).stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, name: str) -> int:
        """A descriptor to write on at its end, and to read by."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._partial / name, flags, 0o600)

    def set_aside(self, name: str) -> str:
        """Its new name. Quick, unlike the removal of a large file."""
        aside = name if name.startswith(ASIDE) else f"{ASIDE}{name}"
        with contextlib.suppress(FileNotFoundError):
            (self._partial / name).replace(self._partial / aside)
        return aside

    def discard(self, name: str) -> None:
        (self._partial / name).unlink(missing_ok=True)

    def unfinished(self) -> list[Unfinished]:
        found = []
        with os.scandir(self._partial) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    found.append(Unfinished(entry.name, state.st_size, state.st_mtime_ns // 10**6))
        return found

    def room(self) -> int:
        """Bytes that blobs may still take of the disk."""
        disk = os.statvfs(self._folder)
        kept = min(MOST_KEPT_FREE, disk.f_blocks * disk.f_frsize // KEPT_FREE)
        return max(0, disk.f_bavail * disk.f_frsize - kept)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
