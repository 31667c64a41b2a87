"""Archives unpacked so that nothing in them can reach out of their folder, or fill the disk.

Every folder is opened from the one above it without following links, and files are made where nothing was before. What
an archive says of owners, devices and links is not believed: links and devices are refused, because a chain of links
has fooled every filter so far, and who made a file owns it. Bytes, their ratio to the archive's own, the number of
entries and their depth are bounded while they are written, not by what the archive says of itself.
"""

import contextlib
import os
import stat
import tarfile
import zipfile
from typing import IO, Callable, Iterator, NamedTuple, Optional, Tuple

from worker.staging.errors import Unsafe
from worker.staging.paths import parts_of

PIECE = 2**20


class Bounds(NamedTuple):
    size: int = 2**40
    ratio: int = 200  # of what comes out to what the archive has; small archives are not held to it
    entries: int = 1_000_000
    depth: int = 64


FREE_OF_RATIO = 64 * 2**20


class Entry(NamedTuple):
    path: str
    is_folder: bool
    runs: bool
    open: Callable[[], Optional[IO[bytes]]]


def unpack(archive: str, folder: str, bounds: Bounds = Bounds(), go_on: Callable[[], bool] = lambda: True) -> int:  # noqa: B008
    """Into `folder`, which is made and must not be there. The bytes written. Raises Unsafe, and OSError; what was
    written by then stays, for the caller to remove."""
    os.mkdir(folder, 0o700)
    allowed = min(bounds.size, max(FREE_OF_RATIO, bounds.ratio * os.path.getsize(archive)))
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = _Writer(root, allowed, bounds, go_on)
        try:
            for entry in _entries(archive):
                writer.write(entry)
        except (OSError, Unsafe):
            raise
        except Exception as error:  # each packing has errors of its own
            raise Unsafe("the archive cannot be read: %s" % (error or type(error).__name__)) from None
        return writer.written
    finally:
        os.close(root)


# ---------------------------------------------------------------- reading


def _entries(archive: str) -> Iterator[Entry]:
    if zipfile.is_zipfile(archive):
        return _of_zip(archive)
    return _of_tar(archive)


def _of_zip(archive: str) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise Unsafe("%r is a link or a device" % info.filename)
            if info.flag_bits & 0x1:
                raise Unsafe("%r is encrypted" % info.filename)
            yield Entry(info.filename, info.is_dir(), bool(mode & 0o111), lambda info=info: opened.open(info))  # type: ignore[misc]


def _of_tar(archive: str) -> Iterator[Entry]:
    with tarfile.open(archive, "r:*") as opened:
        for info in opened:  # one after the other: no list of them all is kept for us
            if not (info.isfile() or info.isdir()):
                raise Unsafe("%r is a link or a device" % info.name)
            yield Entry(info.name, info.isdir(), bool(info.mode & 0o111), lambda info=info: opened.extractfile(info))  # type: ignore[misc]
            opened.members = []  # type: ignore[attr-defined]


# ---------------------------------------------------------------- writing


class _Writer:
    def __init__(self, root: int, allowed: int, bounds: Bounds, go_on: Callable[[], bool]) -> None:
        self._root = root
        self._allowed = allowed
        self._bounds = bounds
        self._go_on = go_on
        self._entries = 0
        self.written = 0

    def write(self, entry: Entry) -> None:
        self._entries += 1
        if self._entries > self._bounds.entries:
            raise Unsafe("it has more than %d entries" % self._bounds.entries)
        parts = parts_of(entry.path, self._bounds.depth)
        if not parts:
            return  # the folder itself
        folder = self._folder(parts if entry.is_folder else parts[:-1], entry.path)
        try:
            if not entry.is_folder:
                self._file(folder, parts[-1], entry)
        finally:
            os.close(folder)

    def _folder(self, parts: Tuple[str, ...], path: str) -> int:
        """Opened step by step, so that no link is ever followed. Made where it is missing."""
        handle = os.dup(self._root)
        for part in parts:
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=handle)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            except NotADirectoryError:
                raise Unsafe("%r stands for a file and for a folder" % path) from None
            finally:
                os.close(handle)
            handle = below
        return handle

    def _file(self, folder: int, name: str, entry: Entry) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            handle = os.open(name, flags, 0o700 if entry.runs else 0o600, dir_fd=folder)
        except FileExistsError:
            raise Unsafe("%r is in it twice" % entry.path) from None
        with os.fdopen(handle, "wb", buffering=0) as file:
            source = entry.open()
            if source is None:
                raise Unsafe("%r has no content" % entry.path)
            with source:
                self._copy(source, file, entry.path)

    def _copy(self, source: IO[bytes], file: IO[bytes], path: str) -> None:
        while True:
            piece = source.read(PIECE)
            if not piece:
                return
            self.written += len(piece)
            if self.written > self._allowed:
                raise Unsafe("it unpacks to more than %d bytes, at %r" % (self._allowed, path))
            if not self._go_on():
                raise Unsafe("it was not unpacked to its end")
            file.write(piece)
