"""A worker's place among its neighbours: the agent takes it before it registers, and the keeper acts in it.

Both hold the lock, so what the worker's jobs hold is its own until both are gone: jobs may outlive either for a moment.
"""

import contextlib
import os
from dataclasses import replace
from typing import Dict, NamedTuple, Sequence

from worker.happened import Offered, amounts
from worker.machine.folder import Folder, NotShared, Standing
from worker.machine.shares import Others, Part
from worker.protocol import Shape


class Told(NamedTuple):
    """What the keeper needs to know of it."""

    folder: str
    name: str
    sees: Dict[str, int]


class Seat:
    def __init__(self, folder: str, worker: str, found: Shape, shape: Shape, gpus: Sequence[str]) -> None:
        """`found` is what there is on the machine, `shape` what this worker may use of it at most, `gpus` are the ids
        of all that it sees. Raises NotShared."""
        self._folder = Folder(os.path.abspath(folder))
        self.machine = self._folder.machine()
        self._has = shape
        self._gpus = tuple(gpus)
        self.name = "%s-%s" % (worker, os.urandom(4).hex())
        others = self._others()
        self.told = Told(self._folder.path, self.name, sees(found, shape, others.holds.get("disk", 0)))
        try:
            os.close(self._folder.begin(self.name, Standing(self.told.sees, {}, ())))
            self.lock = self._folder.take_lock(self.name)
        except OSError as error:
            self._folder.remove(self.name)
            raise NotShared("%s: %s" % (self._folder.path, error.strerror)) from None

    def offer(self) -> Shape:
        """What there is for this worker now. The keeper says it from now on."""
        part = Part(self.told.sees, dict(amounts(self._has) or ()), self._gpus)
        amount, _ = part.offer(self._others())
        return Offered(self.machine, amount).of(self._has)

    def _others(self) -> Others:
        return Others.of(self._folder, self.name)

    def close(self) -> None:
        """Once its keeper is gone: our share is the others'. May be repeated."""
        if self.lock < 0:
            return
        self._folder.remove(self.name)
        os.close(self.lock)
        self.lock = -1
        with contextlib.suppress(OSError):
            self._folder.tell_all_but(self.name)


def sees(found: Shape, shape: Shape, held_disk: int) -> Dict[str, int]:
    """Of the machine. Who was told of more than was found is believed; who may use less still sees all of it. The disk
    is what is free, with what others hold of it and may have filled."""
    there = dict(amounts(replace(found, disk=found.disk + held_disk if found.disk else 0)) or ())
    for name, count in amounts(shape) or ():
        there[name] = max(count, there.get(name, 0))
    return there
