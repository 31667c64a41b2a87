"""The folders of one cache, and the few names in them."""

import json
import os
import re
from typing import Any, Dict, Set, Tuple

from worker.cache.errors import CacheUnusable

LAYOUT = "1"
KEY = re.compile(
    r"(file|tree|name)-[0-9a-f]{64}"
)  # of content; of a tree's content; of a name for something that has no digest
SCOPE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
WORKER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
PUBLIC = "public"


class Place:
    """Makes what is missing. Raises CacheUnusable."""

    def __init__(self, root: str, worker: str, exactly: bool = False) -> None:
        """`exactly`: `worker` is the name of one process already."""
        if not WORKER.fullmatch(worker):
            raise ValueError("%r is no worker's id" % worker)
        self.root = os.path.abspath(root)
        # Each process has a name of its own: what the one before it left is a dead worker's, and is cleared as such.
        self.worker = worker if exactly else "%s-%s" % (worker, os.urandom(6).hex())
        self.entries = os.path.join(self.root, "entries")
        self.claims = os.path.join(self.root, "claims")
        self.trash = os.path.join(self.root, "trash")
        self.alive = os.path.join(self.root, "alive")
        self.pins = os.path.join(self.root, "pins")
        self.building = os.path.join(self.root, "building")
        self.my_pins = os.path.join(self.pins, self.worker)
        self.my_building = os.path.join(self.building, self.worker)
        self._serial = 0
        self._opened: Set[Tuple[str, int]] = set()
        try:
            os.makedirs(self.root, 0o700, exist_ok=True)  # by itself: the mode is that of the last folder only
            for folder in (self.entries, self.claims, self.trash, self.alive, self.pins, self.building):
                os.makedirs(folder, 0o700, exist_ok=True)
            self._must_be_ours()
            self._layout()
        except OSError as error:
            raise CacheUnusable("the cache %s cannot be used: %s" % (self.root, error.strerror or error)) from None

    def make_own(self) -> None:
        """Only once the others can see that we live: a folder of nobody's is cleared away."""
        for folder in (self.my_pins, self.my_building):
            os.makedirs(folder, 0o700, exist_ok=True)

    def entry(self, scope: str, key: str) -> str:
        return os.path.join(self.entries, checked(SCOPE, scope), checked(KEY, key))

    def claim(self, scope: str, key: str) -> str:
        return os.path.join(self.claims, "%s.%s" % (checked(SCOPE, scope), checked(KEY, key)))

    def open_to(self, scope: str, group: int, numbers: str = "") -> None:
        """Who is of this group may enter the folder of the scope, and whatever is in it; it may list neither. Only for
        root. `numbers`: whose list the group's number is from; a group of another machine's list may be somebody else
        here. Raises OSError, and CacheUnusable where others have opened it by another list."""
        if (scope, group) in self._opened:
            return
        if numbers and scope != PUBLIC:
            self._must_count_alike(numbers)
        folder = os.path.join(self.entries, checked(SCOPE, scope))
        os.makedirs(folder, 0o700, exist_ok=True)
        for path in (self.root, self.entries):
            os.chmod(path, os.stat(path).st_mode & 0o7777 | 0o011)  # noqa: S103  # to go through
        if scope != PUBLIC:
            os.chown(folder, -1, group)
        os.chmod(folder, 0o711 if scope == PUBLIC else 0o710)
        self._opened.add((scope, group))

    def unique(self) -> str:
        """A name that no other worker, and no earlier process of this one, has used."""
        self._serial += 1
        return "%d-%d-%s" % (os.getpid(), self._serial, os.urandom(4).hex())

    def _must_be_ours(self) -> None:
        found = os.stat(self.root)
        if found.st_uid != os.geteuid() and not found.st_mode & 0o2020:
            raise CacheUnusable("the cache %s belongs to another user" % self.root)

    def _must_count_alike(self, numbers: str) -> None:
        path, mine = os.path.join(self.root, "numbers"), "%s.%s" % (os.path.join(self.root, "numbers"), self.unique())
        with open(mine, "w", encoding="ascii") as file:
            file.write(numbers)
        try:
            os.link(mine, path)  # whole, and the first one stays
        except FileExistsError:
            with open(path, encoding="ascii", errors="replace") as file:
                if file.read(200).strip() != numbers:
                    raise CacheUnusable(
                        "the cache %s is used by a machine that has other numbers for the users of jobs" % self.root
                    ) from None
        finally:
            os.unlink(mine)

    def _layout(self) -> None:
        path = os.path.join(self.root, "layout")
        try:
            with open(path, encoding="ascii") as file:
                found = file.read().strip()
        except FileNotFoundError:
            write(path, LAYOUT + "\n", self.unique())
            return
        if found and found != LAYOUT:
            raise CacheUnusable(
                "the cache %s has layout %s, this program knows %s: name another cache folder"
                % (self.root, found, LAYOUT)
            )


def checked(pattern: "re.Pattern[str]", text: str) -> str:
    """Names come from jobs: nothing but what it says may become a path."""
    if not pattern.fullmatch(text):
        raise ValueError("%r is no name in a cache" % text)
    return text


def write(path: str, text: str, unique: str) -> None:
    """Whole or not at all."""
    new = "%s.%s" % (path, unique)
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, path)


def read_json(path: str) -> Dict[str, Any]:
    """{} when there is none, or none that makes sense."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
