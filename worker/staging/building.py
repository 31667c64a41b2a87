"""What was found is made at a path: a file, a tree, or what is in an archive. Nothing that is not what it should be
stays there."""

import contextlib
import os
import threading
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

from worker.cache.digests import Content, of_tree
from worker.cache.errors import WrongContent
from worker.staging.errors import Corrupt, Unsafe
from worker.staging.http import Progress
from worker.staging.paths import parts_of
from worker.staging.sources import Found, Item
from worker.staging.stops import Stop
from worker.staging.wanted import Wanted

Help = Callable[[Callable[[], None]], None]  # has it done by another thread, when one is free
FILES_FOR_A_HELPER = 4


class Builder:
    """Of one input. May be asked again after a failure. `tell` gets the bytes that are there."""

    def __init__(
        self, wanted: Wanted, found: Found, stop: Stop, tell: Callable[[int], None], helpers: int, help: Help
    ) -> None:
        self._wanted = wanted
        self._found = found
        self._stop = stop
        self._tell = tell
        self._helpers = helpers
        self._help = help
        self.fetched = 0

    def build(self, path: str) -> Content:
        """Raises StagingError, Stopped, and OSError of the disk."""
        if self._found.is_tree:
            return self._tree(path)
        if not self._wanted.unpack:
            return self._file(self._found.one, path, self._found.sha256, self._progress)
        from worker.staging.unpack import unpack  # two megabytes that most stagers never need

        archive = path + ".archive"
        try:
            self._file(self._found.one, archive, self._found.sha256, self._progress)
            unpack(archive, path, go_on=self._stop.go_on)
            return of_tree(path, self._stop.go_on)
        except (Unsafe, WrongContent):
            self._stop.check()
            raise
        finally:
            _unlink(archive)

    def _progress(self, there: int, _whole: Optional[int]) -> None:
        self._tell(there)

    def _file(self, item: Item, path: str, sha256: str, progress: Progress) -> Content:
        """What was spoilt on its way comes right the second time."""
        for again in (True, False):
            _unlink(path)
            content = item.bring(path, progress)
            self.fetched += content.size
            if not sha256 or content.digest == sha256:
                return content
            _unlink(path)
            if not again:
                name = item.path or self._wanted.shown
                raise Corrupt("what comes as %s has the digest %s, not %s" % (name, content.digest, sha256))
        raise AssertionError("not reached")

    def _tree(self, path: str) -> Content:
        os.mkdir(path, 0o700)
        tree = _Tree(path, self._found.items)
        sums = Sums(self._tell)
        known: Dict[str, Content] = {}

        def one(item: Item, to: str) -> None:
            sha256 = item.identity if len(item.identity) == 64 else ""
            known[os.path.relpath(to, path)] = self._file(
                item, to, sha256, lambda there, _: sums.tell(item.path, there)
            )
            sums.done(item.path)

        _Crew(tree.files(), one, self._stop).work(self._help, self._helpers)
        return of_tree(path, self._stop.go_on, known)


class Sums:
    """Adds up what several threads say of the parts of a whole, each again and again."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._parts: Dict[str, int] = {}
        self._sum = 0

    def tell(self, name: str, there: int) -> None:
        with self._lock:
            self._sum += there - self._parts.get(name, 0)
            self._parts[name] = there
            self._tell(self._sum)

    def done(self, name: str) -> None:
        """No more is said of it."""
        with self._lock:
            self._parts.pop(name, None)


class _Tree:
    """The folders and links of it; its files are the caller's."""

    def __init__(self, root: str, items: List[Item]) -> None:
        self._root = root
        self._items = items
        self._folders: Set[Tuple[str, ...]] = {()}

    def files(self) -> List[Tuple[Item, str]]:
        """Where each belongs; its folder is there. Every name is looked over before the first byte comes."""
        found = []
        names = set()
        for item in self._items:
            parts = parts_of(item.path)
            if not parts or parts in names:
                raise Unsafe("%r cannot be in it, or is in it twice" % item.path[:200])
            if not item.is_folder:
                names.add(parts)
            self._make(parts if item.is_folder else parts[:-1])
            to = os.path.join(self._root, *parts)
            if item.link:
                with contextlib.suppress(FileExistsError):  # then it is a folder too, as is seen below
                    os.symlink(item.link, to)
            elif not item.is_folder:
                found.append((item, to))
        if names & self._folders:
            raise Unsafe("a name stands for a file and for a folder")
        return found

    def _make(self, parts: Tuple[str, ...]) -> None:
        if parts in self._folders:
            return
        self._make(parts[:-1])
        try:
            os.mkdir(os.path.join(self._root, *parts), 0o700)
        except (FileExistsError, NotADirectoryError):
            raise Unsafe("%r stands for a file and for a folder" % "/".join(parts)) from None
        self._folders.add(parts)


class _Crew:
    """One thread works through the files; others may help it, when a lane is free for them."""

    def __init__(self, files: List[Tuple[Item, str]], one: Callable[[Item, str], None], stop: Stop) -> None:
        self._files: Iterator[Tuple[Item, str]] = iter(files)
        self._count = len(files)
        self._one = one
        self._stop = stop
        self._change = threading.Condition()
        self._helping = 0
        self._over = False
        self._error: Optional[BaseException] = None

    def work(self, help: Help, helpers: int) -> None:
        for _ in range(min(helpers, self._count // FILES_FOR_A_HELPER)):
            help(self._helper)
        self._go()
        with self._change:
            self._over = True
            self._change.wait_for(lambda: not self._helping)
        if self._error is not None:
            raise self._error

    def _helper(self) -> None:
        with self._change:
            if self._over:
                return
            self._helping += 1
        self._go()
        with self._change:
            self._helping -= 1
            self._change.notify_all()

    def _go(self) -> None:
        """Until nothing is left, or one has failed."""
        while self._error is None:
            with self._change:
                item, to = next(self._files, (None, ""))
            if item is None:
                return
            try:
                self._stop.check()
                self._one(item, to)
            except BaseException as error:
                self._error = self._error or error


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
