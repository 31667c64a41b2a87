"""The GPUs of a worker as its agent looks after them: how they are used, which must not be used any more, and which are
free for the next job. Made by the first measurement of a worker that has some; without NVML there is none.
"""

from typing import Any, List, Optional, Sequence, Tuple

from worker.gpu import nvml
from worker.gpu.memory import Memory
from worker.gpu.nvml import Health
from worker.gpu.xids import Xids

Out = List[Tuple[str, str]]  # GPU, why


class GpuWatch:
    def __init__(self, library: Any, ids: Sequence[str]) -> None:
        self._library = library
        self._ids = list(ids)
        self._health = Health(library, ids)
        self._xids = Xids(library, ids)
        self._memory = Memory(library, ids)
        self._gone: List[str] = []  # left by their last job

    def usage(self) -> List[List[Any]]:
        self._memory.learn(self._ids)
        return nvml.usage(self._library, self._ids)

    def troubles(self) -> Out:
        """Each once."""
        found = dict(self._xids.look())
        found.update((gpu, text) for gpu, text in self._health.look() if gpu not in found)
        return self._without(list(found.items()))

    def left(self, ids: Sequence[str], now: int) -> None:
        """By a job. One that is out already is nobody's any more: there is nothing to wait for."""
        self._memory.begin([each for each in ids if each in self._ids], now)
        self._gone += [each for each in ids if each not in self._ids]

    @property
    def due(self) -> Optional[int]:
        return 0 if self._gone else self._memory.due

    def look(self, now: int) -> Tuple[List[str], Out]:
        """Those that nobody has to wait for any longer, and those that are out."""
        free, out = self._memory.look(now)
        gone, self._gone = self._gone, []
        return gone + free, self._without(out)

    def _without(self, out: Out) -> Out:
        known = [(gpu, text) for gpu, text in out if gpu in self._ids]
        self._ids = [each for each in self._ids if each not in dict(known)]
        return known


def watch(ids: Sequence[str]) -> Optional[GpuWatch]:
    """None where nobody tells of GPUs."""
    library = nvml.library()
    return None if library is None else GpuWatch(library, ids)
