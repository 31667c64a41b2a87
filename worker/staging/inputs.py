"""The inputs of one attempt, put together in a folder of its own.

Each input is a task: it is looked for, got from the cache or built there, and put in its place: a link to the cache's
entry, pinned until the attempt is over, or a copy. Where there is no cache for it, it is built in its place.
"""

import os
import sys
import time
import traceback
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from worker import files
from worker.cache.entries import LABEL_END, Pin, freeze, remove_tree
from worker.cache.errors import CacheFull, CacheUnusable, Cancelled, WrongContent
from worker.cache.store import Cache, Private
from worker.staging import copying
from worker.staging.attempts import NAME, Attempt
from worker.staging.building import Builder, Sums
from worker.staging.desk import Desk
from worker.staging.errors import Corrupt, Moved, Refused, Stopped, verdict
from worker.staging.house import staged
from worker.staging.messages import NotStaged, Staged, Stats
from worker.staging.sources import Found, Means, find, needs_grant, patiently
from worker.staging.wanted import Wanted, wanted

LOOKS = 4  # at a source that changes while it comes
User = Optional[Tuple[int, int]]


class Inputs:
    def __init__(
        self, desk: Desk, attempt: Attempt, owner: str, inputs: Sequence[Mapping[str, Any]], user: User
    ) -> None:
        self._desk = desk
        self._attempt = attempt
        self._owner = owner
        self._inputs = inputs
        self._user = user
        self._means: Means = desk.means(attempt, owner)
        self._began = time.monotonic()
        self._sums: Sums = attempt.begin("staging")
        self._sizes: Dict[str, Optional[int]] = {}
        self._visible: List[str] = []
        self._left = 0
        self._stats = Stats(files=len(inputs), bytes=0, hits=0, hit_bytes=0, fetched_bytes=0)

    def begin(self) -> None:
        self._put(self._plan)

    def _plan(self) -> None:
        """What can be seen to be wrong is said before the first byte comes."""
        if not NAME.fullmatch(self._attempt.job):
            raise Refused("the job's name can be no folder's")
        found = wanted(self._inputs)
        self._make_folder()
        self._means.book.learn(sorted({each.source for each in found if self._needs_address(each)}))
        self._sizes = {each.name: each.size for each in found}
        self._left = len(found)
        for each in found:
            self._put(lambda each=each: self._one(each))  # type: ignore[misc]
        if not found:
            self._finish()

    def _needs_address(self, each: Wanted) -> bool:
        """Not when the cache has it: one that is evicted in this moment is asked for by itself."""
        cache = self._desk.house.cache() if needs_grant(each.source) and each.sha256 else None
        if cache is None:
            return needs_grant(each.source)
        scope, key = files.input_scope(each.source, self._owner), files.input_key(each.sha256, each.unpack)
        return cache.entries.look(scope, key) is None

    def _make_folder(self) -> None:
        """With a name that was never used: one of an attempt that was dropped may be on its way out still."""
        name = self._attempt.label + LABEL_END + os.urandom(4).hex()
        self._attempt.folder = os.path.join(staged(self._desk.setup["work_dir"]), name)
        os.makedirs(self._attempt.folder, 0o700)

    # ------------------------------------------------------------ one input

    def _one(self, each: Wanted) -> None:
        for looks_left in reversed(range(LOOKS)):
            found = patiently(self._means, lambda: find(each, self._means))
            self._size(each.name, found.size)
            try:
                self._bring(each, found if looks_left else found._replace(key=""))
                break
            except Moved:
                if not looks_left:
                    raise
        with self._attempt.lock:
            self._left -= 1
            last = not self._left
        if last:
            self._finish()

    def _bring(self, each: Wanted, found: Found) -> None:
        target = self._place_for(each)
        cache = self._desk.house.cache() if found.key else None
        pin = self._pinned(cache, each, found) if cache is not None else None
        if pin is None:
            self._build_there(each, found, target)
        elif isinstance(pin, Private):
            self._take_over(pin, target, each)
        elif each.copy or each.run:  # what lies in the cache is nobody's to be made executable
            self._copy(pin, target, each)
        else:
            os.symlink(pin.path, target)
            self._visible.append(pin.path)
            self._attempt.uses.append((found.scope, found.key))
        self._sums.done(each.name)

    def _pinned(self, cache: Cache, each: Wanted, found: Found) -> Optional[Pin]:
        """None: the cache cannot be used for it."""
        builder = self._builder(each, found)
        try:
            if self._user is not None and not each.copy:
                cache.place.open_to(found.scope, self._user[1], self._desk.setup.get("numbers") or "")
            pin = cache.get(
                found.key,
                builder.build,
                scope=found.scope,
                size=found.size or 0,
                label=self._attempt.label,
                wanted=self._attempt.stop.go_on,
                wait=lambda seconds: self._means.wait(seconds, ""),
            )
        except Cancelled:
            raise Stopped() from None
        except WrongContent as error:
            raise Corrupt(str(error)) from None
        except (CacheUnusable, CacheFull, OSError) as error:
            self._desk.house.cannot(error)
            return None
        finally:
            self._desk.house.has_changed()
        self._attempt.let_go.append(pin.release)
        self._got(each.name, pin.size, builder.fetched)
        return pin

    def _builder(self, each: Wanted, found: Found) -> Builder:
        def help(task: Callable[[], None]) -> None:
            self._desk.lanes.put(self._attempt, task)

        def tell(there: int) -> None:
            self._sums.tell(each.name, there)

        return Builder(each, found, self._attempt.stop, tell, self._desk.each - 1, help)

    def _got(self, name: str, size: int, fetched: int) -> None:
        with self._attempt.lock:
            self._stats["bytes"] += size
            self._stats["fetched_bytes"] += fetched
            if not fetched:
                self._stats["hits"] += 1
                self._stats["hit_bytes"] += size
        if not fetched:
            self._size(name, size)
            self._sums.tell(name, size)

    # ------------------------------------------------------------ its place

    def _place_for(self, each: Wanted) -> str:
        """Its folders belong to the job."""
        path = self._attempt.folder
        for part in each.to[:-1]:
            path = os.path.join(path, part)
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                continue
            self._give(path)
        target = os.path.join(path, each.to[-1])
        if os.path.lexists(target):  # of a try before
            _remove(target)
        return target

    def _build_there(self, each: Wanted, found: Found, target: str) -> None:
        builder = self._builder(each, found)
        try:
            builder.build(target)
        except BaseException:
            _remove(target)
            raise
        self._desk.house.fetched_privately(builder.fetched)
        self._got(each.name, found.size or builder.fetched, builder.fetched)
        self._settle(target, each)

    def _take_over(self, pin: Pin, target: str, each: Wanted) -> None:
        """It was built for us alone."""
        try:
            os.rename(pin.path, target)
        except OSError:
            copying.copy(pin.path, target, None, self._attempt.stop, lambda _: None)
        pin.release()
        self._settle(target, each)

    def _copy(self, pin: Pin, target: str, each: Wanted) -> None:
        copying.copy(pin.path, target, self._user, self._attempt.stop, lambda _: None)
        pin.release()
        if each.run and not os.path.isdir(target):
            os.chmod(target, 0o755 if each.copy else 0o555)

    def _settle(self, target: str, each: Wanted) -> None:
        """What lies in the folder itself is the job's, read-only where it did not ask for more. A folder itself stays
        writable: it could not be moved to where it belongs."""
        is_folder = os.path.isdir(target)
        runs = not is_folder and (each.run or bool(os.stat(target).st_mode & 0o111))
        if is_folder and not each.copy:
            freeze(target)
        os.chmod(target, 0o755 if is_folder else (0o644 if each.copy else 0o444) | (0o111 if runs else 0))
        if self._user is not None:
            for folder, folders, names in os.walk(target):
                for name in (*folders, *names):
                    os.lchown(os.path.join(folder, name), *self._user)
            self._give(target)

    def _give(self, path: str) -> None:
        if self._user is not None:
            os.lchown(path, *self._user)

    # ------------------------------------------------------------ its end

    def _size(self, name: str, size: Optional[int]) -> None:
        self._sizes[name] = size
        sizes = list(self._sizes.values())
        self._attempt.whole = sum(filter(None, sizes)) if None not in sizes else None

    def _finish(self) -> None:
        if self._attempt.stop.go_on() and self._attempt.answer_once():
            self._stats["ms"] = int((time.monotonic() - self._began) * 1000)
            attempt = self._attempt
            self._desk.say(Staged(attempt.job, attempt.epoch, attempt.folder, sorted(set(self._visible)), self._stats))

    def _put(self, act: Callable[[], None]) -> None:
        self._desk.put(self._attempt, act, self._fail)

    def _fail(self, error: BaseException) -> None:
        if self._attempt.stop.go_on() and self._attempt.answer_once():
            tell_of_mistake(error)
            found = verdict(error, "input")
            self._desk.say(NotStaged(self._attempt.job, self._attempt.epoch, *found))
        self._attempt.stop.now()


def tell_of_mistake(error: BaseException) -> None:
    """Where it happened, without what it says: that may be secret."""
    from worker.staging.errors import StagingError

    if not isinstance(error, (StagingError, OSError)):
        places = [
            "%s:%d" % (os.path.basename(each.filename), each.lineno or 0)
            for each in traceback.extract_tb(error.__traceback__)
        ]
        print("wm-stager: %s at %s" % (type(error).__name__, ", ".join(places)), file=sys.stderr)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    elif os.path.lexists(path):
        os.unlink(path)
