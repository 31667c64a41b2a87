"""How much of an attempt's output is taken: a second line of defence behind the agent, which keeps to the limit itself.

Remembered from the assignments that go out, as long as this process lives; of an attempt from before its start
nothing is known, and the agent's word counts. Above the limit there is room for the agent's note and the end that it
keeps.
"""

from collections import OrderedDict
from collections.abc import Iterable

from worker.protocol import Assignment

SLACK = 256 * 1024
AT_MOST = 20_000  # attempts remembered; the oldest go first


class OutputLimits:
    def __init__(self, at_most: int = AT_MOST) -> None:
        self._at_most = at_most
        self._limits: OrderedDict[tuple[str, int], int] = OrderedDict()

    def learn(self, assignments: Iterable[Assignment]) -> None:
        for one in assignments:
            limit = one.get("output_limit")
            if limit is not None:
                self._limits[one["job"], one["epoch"]] = limit
        while len(self._limits) > self._at_most:
            self._limits.popitem(last=False)

    def cut(self, job: str, epoch: int, offset: int, data: bytes) -> bytes:
        """As much of `data` as may be kept."""
        limit = self._limits.get((job, epoch))
        if limit is None or offset + len(data) <= limit + SLACK:
            return data
        return data[: max(0, limit + SLACK - offset)]
