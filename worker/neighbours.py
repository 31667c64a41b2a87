"""Workers of one machine, of one user or several, agree on what is whose.

Each writes what its jobs hold into a folder that all of them see, takes more only under a common lock, and offers what
the others leave. What a dead one held is free at once: its file is locked by the kernel for as long as it lives.
The folder is nobody's in particular, so what stands in it is believed as far as it goes: a stranger can claim to hold
the whole machine, which costs work and no more.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import stat
import time
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

DEFAULT_FOLDER = "/tmp/worker-manager-machine"  # noqa: S108 (made sticky, and checked)
LOCK_PATIENCE_S = 2.0
LARGEST_FILE = 2**20

Amounts = Mapping[str, int]  # cpus, memory, disk, and further countable things; GPUs go by their ids


class NotShared(Exception):
    """The machine cannot be shared; the message says why."""


class Holding(NamedTuple):
    """What one worker's jobs hold together."""

    amounts: Dict[str, int]
    gpus: Tuple[str, ...]


class Neighbours:
    """`has` and `gpus`: the whole machine, as every worker on it sees it."""

    def __init__(self, folder: str, worker: str, has: Amounts, gpus: Sequence[str] = ()) -> None:
        self._folder = _common(folder)
        self._has = dict(has)
        self._gpus = tuple(gpus)
        self._jobs: Dict[Any, Holding] = {}
        self._name = "%s-%s" % (worker, os.urandom(4).hex())
        self._watched: Dict[str, int] = {}  # name → pidfd
        self._poll = select.epoll()
        self._lock = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.fchmod(self._lock, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._lock, b"%d\n" % os.getpid())
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._ear.bind(self._path("ear"))
        os.chmod(self._path("ear"), 0o666)  # noqa: S103 (all that can be said into it is: look)
        self._poll.register(self._ear, select.EPOLLIN)
        self._write()
        self._tell_others()

    # ------------------------------------------------------------ hold and let go

    def hold(self, job: Any, amounts: Amounts, gpus: int = 0) -> Optional[Tuple[str, ...]]:
        """The ids of the GPUs that go with it; None when the others hold too much, now."""
        with self._one_at_a_time() as mine:
            if not mine:
                return None
            rest, free = self._left()
            if any(count > rest.get(name, 0) for name, count in amounts.items()) or gpus > len(free):
                return None
            self._jobs[job] = Holding(dict(amounts), free[:gpus])
            self._write()
        self._tell_others()
        return self._jobs[job].gpus

    def let_go(self, job: Any) -> None:
        if self._jobs.pop(job, None) is not None:
            self._write()
            self._tell_others()

    def offer(self) -> Tuple[Dict[str, int], Tuple[str, ...]]:
        """What this worker may say it has, its own jobs included: the machine less what the others hold."""
        amounts, gpus = dict(self._has), list(self._gpus)
        for other in self._others():
            for name, count in other.amounts.items():
                amounts[name] = max(0, amounts.get(name, 0) - count)
            gpus = [gpu for gpu in gpus if gpu not in other.gpus]
        return amounts, tuple(gpus)

    def _left(self) -> Tuple[Dict[str, int], Tuple[str, ...]]:
        """What nobody holds."""
        amounts, gpus = self.offer()
        for own in self._jobs.values():
            for name, count in own.amounts.items():
                amounts[name] = max(0, amounts.get(name, 0) - count)
            gpus = tuple(gpu for gpu in gpus if gpu not in own.gpus)
        return amounts, gpus

    # ------------------------------------------------------------ news

    def fileno(self) -> int:
        """Readable when something may have changed: then `heard` and `offer`."""
        return self._poll.fileno()

    def heard(self) -> None:
        """Takes the news. The next one makes `fileno` readable again."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._ear.recv(16)
        for _, handle in [*self._watched.items()]:
            if select.select([handle], [], [], 0)[0]:
                self._forget(handle)

    def close(self) -> None:
        """Our share is the others'."""
        for kind in ("held", "ear", "lock"):
            with contextlib.suppress(OSError):
                os.unlink(self._path(kind))
        for handle in [*self._watched.values()]:
            self._forget(handle)
        self._ear.close()
        os.close(self._lock)
        self._tell_others()
        self._poll.close()

    # ------------------------------------------------------------ the others

    def _others(self) -> Iterator[Holding]:
        for name in self._names():
            if name == self._name:
                continue
            if not self._lives(name):
                self._bury(name)
                continue
            yield _read(self._path("held", name))

    def _names(self) -> List[str]:
        return sorted(file[:-5] for file in os.listdir(self._folder) if file.endswith(".lock") and file != ALL_LOCK)

    def _lives(self, name: str) -> bool:
        """The kernel lets go of a lock with the last process that holds it."""
        try:
            handle = os.open(self._path("lock", name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ELOOP)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self._watch(name, handle)
            return True
        except OSError:
            return False
        else:
            return not os.fstat(handle).st_size  # it has just begun, and is not locked yet
        finally:
            os.close(handle)

    def _watch(self, name: str, lock: int) -> None:
        """Its end wakes us, where its number means the same to us."""
        if name in self._watched:
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            handle = os.pidfd_open(int(os.pread(lock, 20, 0)))
            self._watched[name] = handle
            self._poll.register(handle, select.EPOLLIN)

    def _forget(self, handle: int) -> None:
        for name in [name for name, watched in self._watched.items() if watched == handle]:
            del self._watched[name]
        self._poll.unregister(handle)
        os.close(handle)

    def _bury(self, name: str) -> None:
        """Only its own user, or root, may; the others just do not count it."""
        for kind in ("held", "ear", "lock"):
            with contextlib.suppress(OSError):
                os.unlink(self._path(kind, name))

    def _tell_others(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as mouth:
            for name in self._names():
                if name != self._name:
                    with contextlib.suppress(OSError):  # it is full of news, or gone
                        mouth.sendto(b"!", self._path("ear", name))

    # ------------------------------------------------------------ files

    def _path(self, kind: str, name: str = "") -> str:
        return os.path.join(self._folder, "%s.%s" % (name or self._name, kind))

    def _write(self) -> None:
        amounts: Dict[str, int] = {}
        gpus: List[str] = []
        for held in self._jobs.values():
            gpus += held.gpus
            for key, count in held.amounts.items():
                amounts[key] = amounts.get(key, 0) + count
        new = self._path("new")
        with open(new, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            json.dump({"amounts": amounts, "gpus": gpus}, file)
        os.replace(new, self._path("held"))

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[bool]:
        """Whether the common lock was had. One who keeps it for long keeps jobs from starting, not the agent."""
        handle = _open_common(os.path.join(self._folder, ALL_LOCK))
        try:
            until = time.monotonic() + LOCK_PATIENCE_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        yield False
                        return
                    time.sleep(0.005)
            yield True
        finally:
            os.close(handle)


ALL_LOCK = "all.lock"


def _common(folder: str) -> str:
    """Made when it is missing: everyone may put something there, and nobody may take another's away."""
    try:
        try:
            os.mkdir(folder)
            os.chmod(folder, 0o1777)  # noqa: S103 (as /tmp)
        except FileExistsError:
            pass
        found = os.lstat(folder)
    except OSError as error:
        raise NotShared("%s cannot be made: %s" % (folder, error.strerror)) from None
    if not stat.S_ISDIR(found.st_mode):
        raise NotShared("%s is no folder" % folder)
    open_to_others = found.st_mode & 0o022
    if open_to_others and not found.st_mode & stat.S_ISVTX:
        raise NotShared("%s lets anyone remove what others put there: chmod 1777 it" % folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotShared("%s cannot be written" % folder)
    return folder


def _open_common(path: str) -> int:
    """Of whoever came first; a lock needs no right to write. In a sticky folder the kernel may refuse to open
    another's file for creation, so that is only asked for when it is not there."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644))
        return os.open(path, flags)


def _read(path: str) -> Holding:
    """Nothing, where it makes no sense."""
    try:
        with open(path, encoding="utf-8") as file:
            wire = json.loads(file.read(LARGEST_FILE))
        amounts = {str(name): int(count) for name, count in wire["amounts"].items() if int(count) > 0}
        return Holding(amounts, tuple(map(str, wire["gpus"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Holding({}, ())
