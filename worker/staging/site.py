"""file:///… sources: files and trees of the site's own file systems, below the folders that the worker was told.

Every folder is opened from the one above it. A link on the way is followed only as far as it stays below: where it
leads is walked in the same manner. What everyone's jobs may read below such a folder is whatever the agent itself may.
"""

import errno
import os
import stat
from collections import deque
from typing import Callable, Deque, Iterator, List, NamedTuple, Sequence, Tuple
from urllib.parse import unquote

from worker.cache.digests import Content
from worker.staging.copying import clone, write
from worker.staging.digesting import Digest
from worker.staging.errors import BrokeOff, Moved, Refused, Unsafe
from worker.staging.http import Progress
from worker.staging.stops import Stop

LINKS = 40
DEPTH = 64
MOST = 1_000_000
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)


class Piece(NamedTuple):
    """Of a tree: a file, a folder, or a link within it."""

    path: str  # within it; "": the source is one file
    size: int
    tag: str
    runs: bool = False
    link: str = ""
    is_folder: bool = False


def place(source: str, prefixes: Sequence[str]) -> Tuple[str, Tuple[str, ...]]:
    """The folder that allows it, and the way from there. Raises Refused."""
    path = unquote(source[len("file://") :])
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts or "\0" in path:
        raise Refused("%s is no path" % source)
    for prefix in sorted(prefixes, key=len, reverse=True):
        above = [part for part in os.path.abspath(prefix).split("/") if part]
        if parts[: len(above)] == above:
            return "/" + "/".join(above), tuple(parts[len(above) :])
    raise Refused("%s lies below no folder that this worker may read inputs from" % source)


def opened(root: str, parts: Sequence[str]) -> int:
    """A descriptor of the file or folder that is there. Raises OSError, and Refused for a link that leads out."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    ahead: Deque[str] = deque(parts)
    stack: List[int] = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    links = 0
    try:
        while ahead:
            part = ahead.popleft()
            if part == "..":
                if len(stack) == 1:
                    raise Refused("a link leads out of %s" % root)
                os.close(stack.pop())
                continue
            found = os.lstat(part, dir_fd=stack[-1])
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > LINKS:
                    raise OSError(errno.ELOOP, "too many links")
                ahead.extendleft(reversed(_followed(root, os.readlink(part, dir_fd=stack[-1]), stack)))
            elif ahead:
                stack.append(os.open(part, flags | os.O_RDONLY | os.O_DIRECTORY, dir_fd=stack[-1]))
            elif not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                raise Refused("it is neither a file nor a folder")
            else:
                stack.append(os.open(part, flags | os.O_RDONLY, dir_fd=stack[-1]))
        return os.dup(stack[-1])
    finally:
        for each in stack:
            os.close(each)


def _followed(root: str, target: str, stack: List[int]) -> List[str]:
    """The way on. An absolute link begins again at the root, where it leads below it."""
    words = [part for part in target.split("/") if part not in ("", ".")]
    if target.startswith("/"):
        above = [part for part in root.split("/") if part]
        if words[: len(above)] != above:
            raise Refused("a link leads out of %s" % root)
        while len(stack) > 1:
            os.close(stack.pop())
        return words[len(above) :]
    return words


class Site:
    """One source, opened. Raises Refused, Unsafe, BrokeOff: none of its errors is one of the worker's own disk."""

    def __init__(self, source: str, prefixes: Sequence[str], stop: Stop) -> None:
        self._source = source
        self._seen = 0
        self._stop = stop
        self._root, self._parts = place(source, prefixes)

    def pieces(self) -> List[Piece]:
        """All of it, with marks that tell one version from another."""
        return self._guarded(self._pieces)

    def _pieces(self) -> List[Piece]:
        self._seen = 0
        handle = opened(self._root, self._parts)
        try:
            found = os.fstat(handle)
            if not stat.S_ISDIR(found.st_mode):
                return [_file("", found)]
            return list(self._tree(handle, "", 0))
        finally:
            os.close(handle)

    def _tree(self, folder: int, below: str, depth: int) -> Iterator[Piece]:
        if depth > DEPTH:
            raise Unsafe("%s is deeper than %d folders" % (self._source, DEPTH))
        for name in sorted(os.listdir(folder)):
            self._stop.check()
            self._seen += 1
            if self._seen > MOST:
                raise Unsafe("%s has more than %d files" % (self._source, MOST))
            path = below + name
            found = os.lstat(name, dir_fd=folder)
            if stat.S_ISLNK(found.st_mode):
                target = os.readlink(name, dir_fd=folder)
                _must_stay(path, target, depth)
                yield Piece(path, 0, "link " + target, link=target)
            elif stat.S_ISDIR(found.st_mode):
                yield Piece(path, 0, "folder", is_folder=True)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inner = os.open(name, flags, dir_fd=folder)
                try:
                    yield from self._tree(inner, path + "/", depth + 1)
                finally:
                    os.close(inner)
            elif stat.S_ISREG(found.st_mode):
                yield _file(path, found)
            else:
                raise Unsafe("%s in %s is neither a file nor a folder" % (path, self._source))

    def bring(self, piece: Piece, path: str, progress: Progress) -> Content:
        """Into a new file. Raises OSError of the worker's own disk."""
        way = (*self._parts, *piece.path.split("/")) if piece.path else self._parts
        reads = self._guarded(lambda: opened(self._root, way))
        try:
            self._must_be(piece, reads)
            writes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700 if piece.runs else 0o600)
            try:
                shared = clone(reads, writes)
                content = self._copy(reads, -1 if shared else writes, piece, progress)
            finally:
                os.close(writes)
            self._must_be(piece, reads)
            return content
        finally:
            os.close(reads)

    def _copy(self, reads: int, writes: int, piece: Piece, progress: Progress) -> Content:
        digest = Digest()
        try:
            while True:
                self._stop.check()
                room = digest.room()
                count = self._guarded(lambda room=room: os.readv(reads, [room]))  # type: ignore[misc]
                if not count:
                    return Content(digest.hex(), digest.size)
                digest.add(count)
                if writes >= 0:
                    write(writes, room[:count])
                progress(digest.size, piece.size)
        finally:
            digest.close()

    def _must_be(self, piece: Piece, handle: int) -> None:
        found = self._guarded(lambda: os.fstat(handle))
        if not stat.S_ISREG(found.st_mode) or _file("", found).tag != piece.tag:
            raise Moved("%s is being changed" % self._source)

    def _guarded(self, act: "Callable[[], _T]") -> "_T":
        try:
            return act()
        except OSError as error:
            text = "%s: %s" % (self._source, error.strerror or "it cannot be read")
            if error.errno in NOT_THERE:
                raise Refused(text) from None
            raise BrokeOff(text) from None
        except Refused as error:
            raise Refused("%s: %s" % (self._source, error)) from None


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _T = TypeVar("_T")


def _file(path: str, found: os.stat_result) -> Piece:
    """Its mark is the same on every machine that sees the file system."""
    words = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return Piece(path, found.st_size, " ".join(map(str, words)), bool(found.st_mode & 0o111))


def _must_stay(path: str, target: str, depth: int) -> None:
    """A link of a tree is kept as a link, so it must stay within, whatever other links it goes through: it may climb
    only from where it stands, and not further than to the top."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    if target.startswith("/") or climbs > depth or ".." in parts[climbs:]:
        raise Unsafe("the link %s leads out of the folder, or might" % path)
