"""Why jobs wait: what the state of the queue adds to a listing, where Batch gives a waiting job no reason."""

import time
from collections.abc import Callable
from dataclasses import replace

from backends.aws import Account
from backends.aws_batch.queue import NoSuchQueue, Trouble, read, worst
from backends.base import Listing, Seen, WorkerPhase

PATIENCE_MS = 60_000  # a machine takes a minute or more to come; nothing is wrong before
_LOOK_AGAIN_S = 60.0


class Waiting:
    def __init__(self, account: Account, queue: str, now_ms: Callable[[], int]) -> None:
        self._account = account
        self._queue = queue
        self._now_ms = now_ms
        self._since: dict[str, int] = {}  # when each was first seen to wait, by handle
        self._looked_at = float("-inf")
        self._trouble: Trouble | None = None

    def explained(self, listing: Listing) -> Listing:
        """The same, with what is wrong with the queue on every worker that has waited for long without a reason."""
        waiting = [one.handle for one in listing.seen if _waits(one)]
        now = self._now_ms()
        self._since = {handle: self._since.get(handle, now) for handle in waiting}
        long = {handle for handle, since in self._since.items() if now - since >= PATIENCE_MS}
        trouble = self._look() if long else None
        if trouble is None:
            return listing
        text = f"{trouble.subject} {trouble.text}"
        return replace(
            listing,
            seen=tuple(
                replace(one, refusal=trouble.kind, detail=text) if one.handle in long else one for one in listing.seen
            ),
        )

    def _look(self) -> Trouble | None:
        """At most once in a minute. A queue that cannot be read explains nothing: the listing says what it can."""
        if time.monotonic() - self._looked_at >= _LOOK_AGAIN_S:
            self._looked_at = time.monotonic()
            try:
                self._trouble = worst(read(self._account, self._queue))
            except self._account.errors_and(NoSuchQueue, KeyError, TypeError):
                self._trouble = None
        return self._trouble


def _waits(one: Seen) -> bool:
    return one.phase is WorkerPhase.PENDING and one.refusal is None
