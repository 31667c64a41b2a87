"""How much is served at once. Beyond it clients are asked to come back; workers' signs of life are admitted longest,
because a refused heartbeat costs a lease and a refused client only a second."""

from collections.abc import Iterator
from contextlib import contextmanager

from worker_manager.hub.problems import Problem

RETRY_AFTER_S = 1


class Gate:
    """Counts what is being served. A request that only waits (a long poll) does not count while it does."""

    def __init__(self, at_most: int, vital_at_most: int | None = None) -> None:
        self._at_most = at_most
        self._vital_at_most = vital_at_most or 8 * at_most + 64
        self.serving = 0
        self.turned_away = 0

    @contextmanager
    def admitted(self, vital: bool) -> Iterator[None]:
        if self.serving >= (self._vital_at_most if vital else self._at_most):
            self.turned_away += 1
            detail = f"the hub serves {self.serving} requests already: come back in {RETRY_AFTER_S} s"
            raise Problem(429, "overloaded", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
        self.serving += 1
        try:
            yield
        finally:
            self.serving -= 1

    @contextmanager
    def parked(self) -> Iterator[None]:
        self.serving -= 1
        try:
            yield
        finally:
            self.serving += 1
