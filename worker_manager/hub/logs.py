"""The output of attempts, in segment files that hold many attempts each.

A batch of chunks is appended to the current segment and made durable by one `fdatasync` *before* the commit that
indexes it: an indexed piece is always whole, and a tail that no index names (a crash between the two) is only lost
space. Where a piece lies is the store's to remember; here are the bytes.

    <folder>/<number>.log        number grows; a segment is closed when it is full or a day old
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DAY_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of output lies."""

    segment: str
    position: int
    length: int


class LogFolder:
    """Appends from one thread at a time (a lock keeps to it); reads from any."""

    def __init__(self, folder: Path, segment_bytes: int = 64 * 2**20, segment_ms: int = DAY_MS) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segment_ms = segment_ms
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._name = ""
        self._size = 0
        self._opened_ms = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def append(self, pieces: Sequence[bytes], now_ms: int) -> list[Place]:
        """Durable when it returns. Raises OSError when it could not be written; then nothing of it counts."""
        with self._lock:
            descriptor = self._current(now_ms)
            start = self._size
            try:
                _write_all(descriptor, pieces)
                os.fdatasync(descriptor)
            except OSError:
                self._close()  # its end is unknown now: go on in a new segment
                raise
            places = []
            for piece in pieces:
                places.append(Place(self._name, start, len(piece)))
                start += len(piece)
            self._size = start
            return places

    def read(self, place: Place, skip: int = 0, limit: int | None = None) -> bytes:
        """The piece's bytes from `skip` on, at most `limit`. b"" when its segment is purged."""
        length = place.length - skip if limit is None else min(limit, place.length - skip)
        if length <= 0 or not _is_name(place.segment):
            return b""
        try:
            descriptor = os.open(self._path(place.segment), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return b""
        with _closing(descriptor):
            return _read_all(descriptor, length, place.position + skip)

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.log") if _is_name(path.stem))

    def delete(self, names: Iterable[str]) -> list[str]:
        """Deletes whole segments, never the current one; returns those that are gone. Safe to repeat."""
        gone = []
        with self._lock:
            for name in names:
                if _is_name(name) and name != self._name:
                    self._path(name).unlink(missing_ok=True)
                    gone.append(name)
        return gone

    def older_than(self, before_ms: int) -> list[str]:
        """Segments that were last written before: what is in them is past every retention, indexed or not."""
        return [name for name in self.names() if self._path(name).stat().st_mtime_ns // 1_000_000 < before_ms]

    def size(self) -> int:
        return sum(self._path(name).stat().st_size for name in self.names())

    def close(self) -> None:
        with self._lock:
            self._close()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _current(self, now_ms: int) -> int:
        full = self._size >= self._segment_bytes or now_ms - self._opened_ms >= self._segment_ms
        if self._descriptor is not None and not full:
            return self._descriptor
        self._close()
        self._name = f"{max([int(name) for name in [*self.names(), self._name or '0']]) + 1:08d}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path(self._name), flags, 0o600)
        self._size, self._opened_ms = 0, now_ms
        _sync_folder(self._folder)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_name(text: str) -> bool:
    return len(text) == 8 and text.isascii() and text.isdigit()


def _write_all(descriptor: int, pieces: Sequence[bytes]) -> None:
    left = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    while left:
        left = left[os.write(descriptor, left) :]


def _read_all(descriptor: int, length: int, position: int) -> bytes:
    found = []
    while length > 0:
        piece = os.pread(descriptor, length, position)
        if not piece:
            break
        found.append(piece)
        length -= len(piece)
        position += len(piece)
    return b"".join(found)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _closing(descriptor):
        os.fsync(descriptor)


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
