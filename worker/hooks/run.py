"""One hook of one attempt, while its process runs."""

from __future__ import annotations

from worker.processes import boot_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from worker.keeper.attempt import Attempt

    Then = Callable[[Attempt, str], None]  # the attempt, and what was wrong; "" when nothing was


class Run:
    __slots__ = ("attempt", "began", "due", "hook", "late", "output", "pid", "pipe", "status", "then")

    def __init__(self, attempt: Attempt, hook: str, then: Then, limit_ms: int) -> None:
        self.attempt = attempt
        self.hook = hook
        self.then = then
        self.began = boot_ms()
        self.due = self.began + limit_ms
        self.late = False
        self.pid = 0
        self.pipe = -1
        self.output = b""
        self.status: int | None = None  # until it was reaped
