"""What of a job's directory its outputs mean. Nothing is followed: the job has made it, and may have meant harm."""

import contextlib
import os
import stat
from typing import Any, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from worker.files import MOST_KEPT, MOST_PATH, MOST_TOLD, told_bytes
from worker.staging.errors import Refused
from worker.staging.patterns import Pattern, Where
from worker.staging.stops import Stop

DEEPEST = 256
NAMED = 20
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0)


class Wish(NamedTuple):
    """One of the outputs."""

    pattern: Pattern
    to: str
    required: bool
    always: bool


class Kept(NamedTuple):
    path: str
    size: int
    to: str


class Survey(NamedTuple):
    kept: List[Kept]
    left_out: List[str]  # the first few, with the reason
    left_out_count: int
    missing: List[str]  # patterns that are required, and fit nothing


def wishes(outputs: Sequence[Mapping[str, Any]]) -> List[Wish]:
    """Raises Refused."""
    found = []
    for told in outputs:
        glob, to = told.get("glob"), told.get("to") or "hub"
        if not isinstance(glob, str) or not isinstance(to, str):
            raise Refused("an output makes no sense")
        found.append(Wish(Pattern(glob), to, bool(told.get("required")), bool(told.get("always"))))
    return found


def survey(folder: str, wished: Sequence[Wish], stop: Stop, ours: Sequence[str] = ()) -> Survey:
    """`ours`: links that lead below these are inputs, of which nothing is said. Raises OSError, Refused, Stopped."""
    root = os.open(folder, FOLDER)
    try:
        walk = _Walk(wished, stop, os.fstat(root).st_uid, ours)
        walk.go(root, "", [wish.pattern.start for wish in wished], 0)
    finally:
        os.close(root)
    missing = [wish.pattern.text for wish, count in zip(wished, walk.counts) if wish.required and not count]  # noqa: B905
    return Survey(walk.kept, walk.left_out, walk.left_out_count, missing)


def opened(folder: str, path: str) -> int:
    """A plain file in it, found without following anything. Raises OSError."""
    handle = os.open(folder, FOLDER)
    parts = path.split("/")
    for part in parts[:-1]:
        try:
            below = os.open(part, FOLDER, dir_fd=handle)
        finally:
            os.close(handle)
        handle = below
    try:
        return os.open(parts[-1], FILE, dir_fd=handle)
    finally:
        os.close(handle)


class _Walk:
    def __init__(self, wished: Sequence[Wish], stop: Stop, owner: int, ours: Sequence[str]) -> None:
        self._wished = wished
        self._stop = stop
        self._owner = owner
        self._ours = tuple(path.rstrip("/") + "/" for path in ours if path)
        self.kept: List[Kept] = []
        self.counts = [0] * len(wished)
        self._told = 0  # bytes of the result that tell of what is kept
        self.left_out: List[str] = []
        self.left_out_count = 0

    def go(self, folder: int, below: str, where: List[Where], depth: int) -> None:
        for name in sorted(os.listdir(folder)):
            self._stop.check()
            at = [wish.pattern.after(each, name) for wish, each in zip(self._wished, where)]  # noqa: B905
            if not any(at):
                continue
            path = below + name
            try:
                found = os.lstat(name, dir_fd=folder)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(found.st_mode):
                if depth >= DEEPEST:
                    raise Refused("%s is deeper than %d folders" % (_shown(path), DEEPEST))
                with _open_folder(folder, name) as inner:
                    self.go(inner, path + "/", at, depth + 1)
            else:
                self._file(folder, name, path, found, at)

    def _file(self, folder: int, name: str, path: str, found: os.stat_result, at: List[Where]) -> None:
        fits = [number for number, wish in enumerate(self._wished) if wish.pattern.fits(at[number])]
        if not fits:
            return
        reason = self._why_not(folder, name, path, found)
        if reason is not None:
            if reason:
                self.left_out_count += 1
                if len(self.left_out) < NAMED:
                    self.left_out.append("%s: %s" % (_shown(path), reason))
            return
        if len(self.kept) + len(fits) > MOST_KEPT:
            raise Refused("more than %d files are to be kept: let the job put them into an archive" % MOST_KEPT)
        self._told += sum(told_bytes(path, self._wished[number].to + path) for number in fits)
        if self._told > MOST_TOLD:
            raise Refused("the names of all that is to be kept are too long: let the job put it into an archive")
        for number in fits:
            self.counts[number] += 1
        for to in dict.fromkeys(self._wished[number].to for number in fits):
            self.kept.append(Kept(path, found.st_size, to))

    def _why_not(self, folder: int, name: str, path: str, found: os.stat_result) -> "str | None":
        """None: it is kept. "": left out without a word."""
        if stat.S_ISLNK(found.st_mode):
            return "" if os.readlink(name, dir_fd=folder).startswith(self._ours or ("\0",)) else "a link"
        if not stat.S_ISREG(found.st_mode):
            return "no plain file"
        if found.st_nlink > 1 and found.st_uid != self._owner:
            return "another user's, linked here"
        try:
            length = len(path.encode("utf-8"))
        except UnicodeEncodeError:
            return "its name is not UTF-8"
        return None if length <= MOST_PATH else "its path is longer than %d bytes" % MOST_PATH


@contextlib.contextmanager
def _open_folder(folder: int, name: str) -> Iterator[int]:
    handle = os.open(name, FOLDER, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def stamp(found: os.stat_result) -> Tuple[int, ...]:
    """Another one after every write."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
