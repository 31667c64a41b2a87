"""Who builds an entry, so that the others wait for it instead of doing the same. A claim that is wrong costs a second
build and nothing else: what is published counts, and the first one wins."""

import contextlib
import os
from typing import Optional

from worker.cache.alive import Alive
from worker.cache.place import Place


class Claims:
    def __init__(self, place: Place, alive: Alive) -> None:
        self._place = place
        self._alive = alive

    def take(self, scope: str, key: str) -> bool:
        """Whether we are the one to build it now."""
        path = self._place.claim(scope, key)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(self._place.worker)
        return True

    def let_go(self, scope: str, key: str) -> None:
        path = self._place.claim(scope, key)
        if self._holder(path) in (self._place.worker, ""):
            _unlink(path)

    def expire(self, scope: str, key: str) -> bool:
        """Whether the claim is gone, or its holder is dead and it was taken away."""
        path = self._place.claim(scope, key)
        holder = self._holder(path)
        if holder is None:
            return True
        if holder == "" and self._is_fresh(path):  # made, and not written yet
            return False
        if holder and not self._alive.is_dead(holder):
            return False
        _unlink(path)
        return True

    def clear_dead(self) -> None:
        for name in os.listdir(self._place.claims):
            scope, _, key = name.partition(".")
            with contextlib.suppress(ValueError):  # it is nothing of ours
                self.expire(scope, key)

    def _holder(self, path: str) -> Optional[str]:
        """None: nobody holds it."""
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                return file.read(200).strip()
        except FileNotFoundError:
            return None

    def _is_fresh(self, path: str) -> bool:
        try:
            return self._alive.now() - os.stat(path).st_mtime < 30
        except FileNotFoundError:
            return False


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
