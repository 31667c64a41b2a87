"""Copies of files and trees on the machine's own disks: by sharing blocks where the file system can, else in the
kernel, else piece by piece."""

import errno
import fcntl
import os
import stat
from typing import Callable, Optional, Tuple

from worker.staging.stops import Stop

FICLONE = 0x40049409
PIECE = 64 * 2**20
SMALL = 2**20
CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ENOTTY, errno.EBADF)


def clone(source: int, target: int) -> bool:
    """Whether `target` shares the blocks of `source` now."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in CANNOT:
            return False
        raise
    return True


def copy(
    source: str, target: str, user: Optional[Tuple[int, int]], stop: Stop, progress: Callable[[int], None]
) -> None:
    """A file or tree that may be written to, and belongs to `user`. `source` is the cache's: nothing in it changes."""
    found = os.lstat(source)
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(found.st_mode):
        os.mkdir(target, 0o755)
        for name in os.listdir(source):
            copy(os.path.join(source, name), os.path.join(target, name), user, stop, progress)
    else:
        _copy_file(source, target, 0o755 if found.st_mode & 0o111 else 0o644, stop, progress)
    if user is not None:
        os.lchown(target, *user)


def _copy_file(source: str, target: str, mode: int, stop: Stop, progress: Callable[[int], None]) -> None:
    reads = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        writes = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if clone(reads, writes):
                progress(os.fstat(reads).st_size)
            else:
                move_bytes(reads, writes, stop, progress)
            os.fchmod(writes, mode)
        finally:
            os.close(writes)
    finally:
        os.close(reads)


def move_bytes(reads: int, writes: int, stop: Stop, progress: Callable[[int], None]) -> None:
    in_kernel = hasattr(os, "copy_file_range")
    while True:
        stop.check()
        if in_kernel:
            try:
                count = os.copy_file_range(reads, writes, PIECE)
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
                in_kernel = False
                continue
        else:
            piece = os.read(reads, SMALL)
            count = len(piece)
            write(writes, piece)
        if not count:
            return
        progress(count)


def write(file: int, data: "bytes | memoryview") -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
