"""The folder that the workers of one machine have in common, and what is believed of what stands in it.

Each worker has three files there: NAME.lock, locked by the kernel for as long as its agent or its keeper lives, with
their pids; NAME.held, what it sees of the machine and what its jobs hold; NAME.ear, a socket to be told that there is
news. Whoever starts a job locks the folder itself for that moment.

The folder is nobody's in particular, so a stranger can write what he likes: at worst he holds the whole machine. Of
whom nothing can be read that makes sense, but who lives, all is taken to be held: unknown is never nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping

LARGEST_FILE = 64 * 1024
PAGE = 4096  # what most need, set aside at the start: then a disk that is full later keeps nobody from saying more
HEAD = 16  # checksum and length: a file is written where it stands, because another for each job costs ten times that
LOOKS = 3  # at one that is being written at this moment
MOST_NAMES = 500  # more is no crowd but mischief, and each look at it would take long
DEFAULT = "/tmp/worker-manager-machine"  # noqa: S108  # made sticky, and checked


class NotShared(Exception):
    """The machine cannot be shared; the message says why."""


class Standing:
    """What one worker says: what it sees of the machine, and what its jobs hold together."""

    __slots__ = ("gpus", "holds", "sees")

    def __init__(self, sees: Mapping[str, int], holds: Mapping[str, int], gpus: tuple[str, ...]) -> None:
        self.sees = sees
        self.holds = holds
        self.gpus = gpus


class Folder:
    def __init__(self, path: str) -> None:
        """Raises NotShared."""
        self.path = path
        _make(path)

    def machine(self) -> str:
        """The same for all who share this folder, and for nobody else: letters and digits."""
        import hashlib

        found = os.stat(self.path)
        said = "%s %d %d" % (_first_line("/proc/sys/kernel/random/boot_id"), found.st_dev, found.st_ino)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def file(self, name: str, kind: str) -> str:
        return os.path.join(self.path, "%s.%s" % (name, kind))

    # ------------------------------------------------------------ who is there

    def names(self) -> list[str]:
        """Raises OSError, also when there are more than can be looked at."""
        names = [file[:-5] for file in os.listdir(self.path) if file.endswith(".lock")]
        if len(names) > MOST_NAMES:
            raise OSError(errno.EOVERFLOW, "there are %d workers" % len(names), self.path)
        return sorted(names)

    def pids_of(self, name: str) -> list[int] | None:
        """Those of agent and keeper, as far as they can be read; None when neither lives. The kernel lets go of a lock
        with the last process that holds it."""
        try:
            handle = _open(self.file(name, "lock"))
        except OSError as error:
            return None if error.errno in (errno.ENOENT, errno.ELOOP) else []
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return [int(word) for word in os.pread(handle, 100, 0).split() if word.isdigit()]
        except OSError:
            return []
        else:
            return None
        finally:
            os.close(handle)

    def standing(self, name: str) -> Standing | None:
        """None where it makes no sense."""
        try:
            wire = json.loads(self._said_by(name))
            return Standing(_amounts(wire["sees"]), _amounts(wire["holds"]), tuple(map(_id, wire["gpus"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def _said_by(self, name: str) -> bytes:
        """Raises OSError, ValueError."""
        handle = _open(self.file(name, "held"))
        try:
            for _ in range(LOOKS):
                text = os.pread(handle, LARGEST_FILE, 0)
                said = text[HEAD : HEAD + int(text[8:HEAD])]
                if int(text[:8], 16) == zlib.crc32(said):
                    return said
        finally:
            os.close(handle)
        raise ValueError("torn")

    # ------------------------------------------------------------ what we write

    def begin(self, name: str, standing: Standing) -> int:
        """A descriptor by which it is written anew. Raises OSError."""
        return self._put(name, "held", _record(standing).ljust(PAGE), lock=False)

    def go_on(self, name: str) -> int:
        """The same of what its agent began; -1 when it is not there."""
        try:
            return os.open(self.file(name, "held"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return -1

    def write(self, held: int, standing: Standing) -> None:
        """Raises OSError; then nobody can read what stands there."""
        record = _record(standing)
        if os.pwrite(held, record, 0) < len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)

    def take_lock(self, name: str) -> int:
        """The descriptor of a lock that shows that we live; it is locked before anyone sees it. Raises OSError."""
        return self._put(name, "lock", b"%d\n" % os.getpid(), lock=True)

    def _put(self, name: str, kind: str, data: bytes, lock: bool) -> int:
        """By way of a name that nobody can have guessed: what stands under another's name cannot be replaced here."""
        new = self.file(name, "%s.new" % os.urandom(6).hex())
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(file, 0o644)
            if lock:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)
            os.rename(new, self.file(name, kind))
        except BaseException:
            _unlink(new)
            os.close(file)
            raise
        return file

    def remove(self, name: str) -> None:
        """Of one that lives no more. Only its own user, or root, may; the others just do not count it. Its lock first:
        whoever looks meanwhile finds one without, and not one of whom nothing can be read."""
        for kind in ("lock", "ear", "held"):
            _unlink(self.file(name, kind))

    def tell(self, names: list[str]) -> None:
        """That there is news. One that is full of news needs no more."""
        if not names:
            return
        mouth = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with mouth, Short(self.path) as short:
            for name in names:
                ear = short(name + ".ear")
                try:
                    if stat.S_ISSOCK(os.lstat(ear).st_mode):
                        mouth.sendto(b"!", ear)
                except OSError:
                    pass

    def tell_all_but(self, name: str) -> None:
        try:  # noqa: SIM105  # as below
            self.tell([each for each in self.names() if each != name])
        except OSError:
            pass  # they look now and then

    def lock(self) -> int:
        """A descriptor that holds the whole folder, until it is closed. Raises OSError, BlockingIOError when another
        has it."""
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
        return handle


class Short:
    """Paths below a folder that fit into the address of a socket, however long its own is."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __enter__(self) -> Short:
        self._handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __call__(self, name: str) -> str:
        return "/proc/self/fd/%d/%s" % (self._handle, name)

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def _make(folder: str) -> None:
    """When it is missing: everyone may put something there, and nobody may take another's away."""
    try:
        try:
            os.mkdir(folder)
            os.chmod(folder, 0o1777)  # noqa: S103  # as /tmp
        except FileExistsError:
            pass
        found = os.lstat(folder)
    except OSError as error:
        raise NotShared("%s cannot be made: %s" % (folder, error.strerror)) from None
    if not stat.S_ISDIR(found.st_mode):
        raise NotShared("%s is no folder" % folder)
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise NotShared("%s lets anyone remove what others put there: chmod 1777 it" % folder)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise NotShared("%s cannot be read and written" % folder)


def _open(path: str) -> int:
    """To read a plain file of whomever: a pipe would let us wait, a link lead elsewhere."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.ELOOP, "no plain file", path)
    return handle


def _record(standing: Standing) -> bytes:
    said = json.dumps({"sees": standing.sees, "holds": standing.holds, "gpus": standing.gpus}).encode()
    return b"%08x%8d" % (zlib.crc32(said), len(said)) + said


def _amounts(told: Mapping[str, int]) -> dict[str, int]:
    amounts = {str(name): int(count) for name, count in told.items()}
    if min(amounts.values(), default=0) < 0:
        raise ValueError("less than nothing")
    return amounts


def _id(told: object) -> str:
    if not isinstance(told, str):
        raise TypeError("no id of a GPU")
    return told


def _unlink(path: str) -> None:
    try:  # noqa: SIM105  # contextlib costs the keeper a millisecond to import
        os.unlink(path)
    except OSError:
        pass


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip()
    except OSError:
        return ""


def is_same(path: str, handle: int) -> bool:
    try:
        there, ours = os.lstat(path), os.fstat(handle)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
