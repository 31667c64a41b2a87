"""Entries: published by one rename, pinned by one link, evicted so that nothing pinned ever moves."""

import contextlib
import errno
import functools
import json
import os
import shutil
import stat
from typing import Callable, Iterator, List, NamedTuple, Optional, Set, Tuple

from worker.cache import digests
from worker.cache.alive import DEAD_AFTER_S, Alive
from worker.cache.errors import CacheUnusable, WrongContent
from worker.cache.place import Place, read_json, write

Reach = Callable[[str], None]  # called at each step after which a sudden death leaves something; tests die there

EVICTING = "evicting."
LABEL_END = "~"
# Two renames in a row take no longer; an evictor that was stopped in between gives up when it wakes.
STEP_S = 30.0


class Found(NamedTuple):
    """An entry as one stat of its pin shows it."""

    scope: str
    key: str
    size: int
    used_at: float
    pinned: bool


class Pin:
    """While it is held the entry stays where it is, whole."""

    def __init__(self, entry: str, link: str) -> None:
        self.path = os.path.join(entry, "data")
        self.entry = entry
        self.size = os.stat(link).st_size
        self._link = link

    def release(self) -> None:
        """May be repeated."""
        _unlink(self._link)


class Entries:
    def __init__(self, place: Place, clock: Callable[[], float], reach: Reach) -> None:
        self._place = place
        self._clock = clock
        self._reach = reach
        self._evicting: Set[str] = set()  # by this process, at this moment

    # ------------------------------------------------------------ pin

    def pin(self, scope: str, key: str, label: str = "") -> Optional[Pin]:
        """None when there is no such entry, or it is being evicted. `label`: whom it is for, see `kept`."""
        entry = self._place.entry(scope, key)
        return self._pinned(os.path.join(entry, "pin"), entry, label)

    def _pinned(self, name: str, entry: str, label: str) -> Optional[Pin]:
        link = os.path.join(self._place.my_pins, label + LABEL_END + self._place.unique())
        try:
            os.link(name, link)
        except FileNotFoundError:
            if os.path.isdir(self._place.my_pins):
                return None
            os.makedirs(self._place.my_pins, 0o700, exist_ok=True)  # we were taken for dead, and cleared away
            return self._pinned(name, entry, label)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise CacheUnusable("the file system of %s has no hard links" % self._place.root) from None
            raise
        self._reach("pinned")
        return Pin(entry, link)

    def kept(self) -> Iterator[Tuple[str, Callable[[], None]]]:
        """Of every pin in our name, of processes before this one too: its label, and how to let go of it."""
        for name in _names(self._place.my_pins):
            link = os.path.join(self._place.my_pins, name)
            yield name.rpartition(LABEL_END)[0], functools.partial(_unlink, link)

    # ------------------------------------------------------------ publish

    def publish(self, scope: str, key: str, folder: str, content: digests.Content, label: str = "") -> Optional[Pin]:
        """`folder` with its `data` becomes the entry, and is pinned by us from the start. None when another was
        first: then it is thrown away, and theirs is as good."""
        entry = self._place.entry(scope, key)
        freeze(os.path.join(folder, "data"))
        meta = {"digest": content.digest, "size": content.size, "stamp": stamp(os.path.join(folder, "data"))}
        write(os.path.join(folder, "meta"), json.dumps(meta), self._place.unique())
        with open(os.path.join(folder, "pin"), "wb") as file:
            file.truncate(content.size)
        os.chmod(folder, 0o711)  # noqa: S103  # the folder of the scope tells who comes here
        pin = self._pinned(os.path.join(folder, "pin"), entry, label)
        self._reach("built")
        os.makedirs(os.path.dirname(entry), 0o700, exist_ok=True)
        try:
            os.rename(folder, entry)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            if not (
                error.errno == errno.ENOENT and _is_entry_of(entry, pin)
            ):  # else its reply was lost, not the rename
                if pin is not None:
                    pin.release()
                self.discard(folder)
                return None
        self._reach("published")
        return pin

    # ------------------------------------------------------------ look

    def all(self) -> Iterator[Found]:
        for scope in _names(self._place.entries):
            for key in _names(os.path.join(self._place.entries, scope)):
                found = self.look(scope, key)
                if found is not None:
                    yield found

    def look(self, scope: str, key: str) -> Optional[Found]:
        try:
            pin = os.stat(os.path.join(self._place.entries, scope, key, "pin"))
        except OSError:
            return None
        return Found(scope, key, pin.st_size, pin.st_ctime, pin.st_nlink > 1)

    def is_whole(self, pin: Pin, closely: bool) -> bool:
        """Whether its data is what was published: by size and times, or `closely` by every byte."""
        meta = read_json(os.path.join(pin.entry, "meta"))
        try:
            if not closely:
                return bool(meta) and meta.get("stamp") == stamp(pin.path)
            content = digests.of(pin.path)
        except (OSError, WrongContent):
            return False
        return bool((content.digest, content.size) == (meta.get("digest"), meta.get("size")))

    # ------------------------------------------------------------ evict

    def evict(self, scope: str, key: str, even_pinned: bool = False) -> Optional[int]:
        """The bytes that are free now; None when it is in use, or gone already. `even_pinned`: it is broken, so those
        who use it had better notice."""
        entry = self._place.entry(scope, key)
        if entry in self._evicting:
            return None
        self._evicting.add(entry)
        try:
            return self._evict(entry, even_pinned)
        finally:
            self._evicting.discard(entry)

    def _evict(self, entry: str, even_pinned: bool) -> Optional[int]:
        began = self._clock()
        aside = self._put_aside(entry)
        if aside is None:
            return None
        self._reach("put-aside")
        try:
            handle = os.open(aside, os.O_RDONLY)  # opening asks the server: a cached link count may be old
            try:
                found = os.fstat(handle)
            finally:
                os.close(handle)
        except OSError:
            return None
        if (found.st_nlink > 1 and not even_pinned) or self._clock() - began > STEP_S:
            self._put_back(entry, aside)
            return None
        return self._throw_away(entry, found.st_size)

    def _put_aside(self, entry: str) -> Optional[str]:
        """Nobody can pin it any more. None when there is nothing to put aside."""
        aside = os.path.join(entry, EVICTING + self._place.worker)
        try:
            os.rename(os.path.join(entry, "pin"), aside)
        except OSError:
            return aside if os.path.exists(aside) else None  # ours already: a lost reply, or an evictor before us
        return aside

    def _put_back(self, entry: str, aside: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.rename(aside, os.path.join(entry, "pin"))

    def _throw_away(self, entry: str, size: int) -> Optional[int]:
        trash = os.path.join(self._place.trash, "%s.%s" % (self._place.worker, self._place.unique()))
        try:
            os.rename(entry, trash)
        except FileNotFoundError:
            return None
        if os.path.exists(os.path.join(trash, "pin")):  # we were stopped, taken for dead, and it was put back meanwhile
            os.rename(trash, entry)
            return None
        self._reach("in-trash")
        self.discard(trash)
        return size

    def recover(self, scope: str, key: str, alive: Alive) -> None:
        """An evictor that died between its two steps left an entry that nobody can pin: it is put back. What has been
        no entry for long is thrown away."""
        entry = self._place.entry(scope, key)
        names = _names(entry)
        if "pin" in names or entry in self._evicting:
            return
        asides = [name for name in names if name.startswith(EVICTING)]
        for name in asides:
            evictor = name[len(EVICTING) :]
            if evictor == self._place.worker or alive.is_dead(evictor):
                self._put_back(entry, os.path.join(entry, name))
        if asides:
            return
        try:
            changed = os.stat(entry).st_mtime  # a listing may miss a name that is being changed
        except OSError:
            return
        if alive.now() - changed > DEAD_AFTER_S:
            self._throw_away(entry, 0)

    def discard(self, path: str) -> None:
        """What cannot be removed is tried again by a later janitor."""
        remove_tree(path)


def remove_tree(path: str) -> None:
    """Read-only folders in it too. Raises nothing: what cannot be removed stays."""
    shutil.rmtree(path, onerror=_make_writable)


def freeze(path: str) -> None:
    """Nobody writes to it by mistake; whoever gets there may read it. Times and contents stay."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        for name in os.listdir(path):
            freeze(os.path.join(path, name))
    runs = stat.S_ISDIR(found.st_mode) or found.st_mode & 0o111
    os.chmod(path, 0o555 if runs else 0o444)


def stamp(path: str) -> List[int]:
    """What changes when somebody writes to it after all: size and time of a file; of a tree, those of its root."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_mode]


def _is_entry_of(entry: str, pin: Optional[Pin]) -> bool:
    try:
        there = os.stat(os.path.join(entry, "pin"))
        return pin is not None and os.path.samestat(there, os.stat(pin._link))
    except OSError:
        return False


def _names(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _make_writable(_function: object, path: str, _error: object) -> None:
    """A read-only folder keeps its contents: make it writable and go on below it."""
    parent = os.path.dirname(path)
    try:
        os.chmod(parent, 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
    except OSError:
        pass
