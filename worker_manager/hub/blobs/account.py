"""What blobs take of the disk, and whether more may come. Lives in the event loop; counts, and asks nobody."""

from collections.abc import Iterator
from contextlib import contextmanager

from worker.protocol import format_bytes
from worker_manager.hub.problems import Problem


class Reservation:
    """What one upload may still write."""

    def __init__(self, account: "Account", size: int) -> None:
        self._account = account
        self.left = size

    def wrote(self, size: int) -> None:
        taken = min(self.left, size)
        self.left -= taken
        self._account.reserved -= taken


class Account:
    def __init__(self, limit: int) -> None:
        self._limit = limit  # 0: as much as the disk holds
        self.count = 0  # of whole blobs, each counted once however many own it
        self.whole = 0  # their bytes
        self.unfinished = 0
        self.reserved = 0  # promised to uploads under way, and not written yet

    @property
    def taken(self) -> int:
        return self.whole + self.unfinished

    @contextmanager
    def reserve(self, size: int, length: int, room: int) -> Iterator[Reservation]:
        """`size` more bytes of a blob of `length`, where the disk has `room`. Raises Problem: 413 for what could never
        come, 507 for what cannot come now."""
        if self._limit and length > self._limit:
            raise Problem(413, "blob-too-large", f"the hub takes no more than {format_bytes(self._limit)} of blobs")
        if self._limit and self.taken + self.reserved + size > self._limit:
            held = format_bytes(self.taken + self.reserved)
            detail = f"the hub's blobs take {held} of {format_bytes(self._limit)}: no room for {format_bytes(size)}"
            raise Problem(507, "blobs-full", detail)
        if size and self.reserved + size > room:
            raise Problem(507, "disk-full", f"the hub's disk has no room for {format_bytes(size)}")
        reservation = Reservation(self, size)
        self.reserved += size
        try:
            yield reservation
        finally:
            self.reserved -= reservation.left

    def became_whole(self, size: int, new: bool) -> None:
        """`new`: nobody had these bytes before."""
        if new:
            self.count += 1
            self.whole += size

    def gone(self, size: int) -> None:
        self.count -= 1
        self.whole -= size
