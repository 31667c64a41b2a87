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
        """Whether we are the one to build it now. A claim has its holder's name from the first moment: one without
        would keep the others waiting when its holder dies."""
        path = self._place.claim(scope, key)
        name = os.path.join(self._place.my_building, self._place.unique())
        os.makedirs(self._place.my_building, 0o700, exist_ok=True)
        with open(name, "w", encoding="ascii") as file:
            file.write(self._place.worker)
        try:
            os.link(name, path)
        except FileExistsError:
            return False
        finally:
            _unlink(name)
        return True

    def let_go(self, scope: str, key: str) -> None:
        path = self._place.claim(scope, key)
        if self._holder(path) == self._place.worker:
            _unlink(path)

    def expire(self, scope: str, key: str) -> bool:
        """Whether the claim is gone, or its holder is dead and it was taken away."""
        path = self._place.claim(scope, key)
        holder = self._holder(path)
        if holder is None:
            return True
        if holder and not self._alive.is_dead(holder):
            return False
        _unlink(path)
        return True

    def clear_own(self) -> None:
        """Of a process in our name that is gone."""
        for name in os.listdir(self._place.claims):
            path = os.path.join(self._place.claims, name)
            if self._holder(path) == self._place.worker:
                _unlink(path)

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


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
