"""Output that waits for a hub that does not answer, in one file of the work dir instead of in memory.

The file has no name (it cannot outlive its agent) and is cut back to nothing whenever everything in it was fetched.
A disk that is full, or a spool that has reached its limit, loses output and says how much; it never stops the agent.
"""

import os
from typing import Optional

LIMIT = 2 * 2**30


class Spool:
    """Bytes in, a place back; each place is fetched once."""

    def __init__(self, folder: str, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = limit
        self._file: Optional[int] = None
        self._end = 0
        self._waiting = 0
        self.lost = 0  # bytes that could not be kept

    def put(self, data: bytes) -> Optional[int]:
        """Where it lies now; None when it could not be kept."""
        at = self._end
        try:
            if at + len(data) > self._limit:
                raise OSError("the spool is full")
            if self._file is None:
                self._file = _unnamed(self._folder)
            _write_all(self._file, data, at)
        except OSError:
            self.lost += len(data)
            return None
        self._end = at + len(data)
        self._waiting += 1
        return at

    def fetch(self, at: int, length: int) -> bytes:
        """What lies there; b"" when it cannot be read any more."""
        try:
            data = os.pread(self._file, length, at) if self._file is not None else b""
        except OSError:
            data = b""
        if len(data) < length:
            self.lost += length
            data = b""
        self._waiting -= 1
        if not self._waiting:
            self._empty()
        return data

    def _empty(self) -> None:
        self._end = 0
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        self._waiting = 0
        self._empty()


def _unnamed(folder: str) -> int:
    path = os.path.join(folder, ".spool.%d" % os.getpid())
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.unlink(path)
    return file


def _write_all(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view = view[written:]
        at += written
