"""A digest that is made while the next bytes come: of what is large, by a thread of its own.

A few buffers take turns. A new one for each piece would cost more, and memory that is freed by another thread than the
one which took it piles up, the more the longer a transfer takes.
"""

import hashlib
import queue
import threading
from typing import Optional, Tuple

PIECE = 256 * 1024
SMALL = 4 * 2**20  # up to there a thread is not worth it
BUFFERS = 6

Piece = Tuple[memoryview, int]


class Digest:
    """Bytes go into a `room` of it, and are then added. `close` it, whatever happens."""

    def __init__(self) -> None:
        self.size = 0
        self._sha = hashlib.sha256()
        self._room: Optional[memoryview] = None  # given, and nothing of it added
        self._own: Optional[memoryview] = None  # while there is no thread
        self._free: "queue.SimpleQueue[memoryview]" = queue.SimpleQueue()
        self._pieces: "Optional[queue.SimpleQueue[Optional[Piece]]]" = None
        self._thread: Optional[threading.Thread] = None

    def room(self) -> memoryview:
        """For the next bytes. What is in it stays until the next room is asked for after an `add`."""
        if self._room is None:
            if self._thread is not None:
                self._room = self._free.get()
            elif self.size < SMALL:
                self._own = self._room = self._own or memoryview(bytearray(PIECE))
            else:
                self._begin()
                self._room = self._free.get()
        return self._room

    def add(self, count: int) -> None:
        """So many bytes at the beginning of the room."""
        room, self._room = self._room, None
        if room is None:
            raise RuntimeError("no room was asked for")
        self.size += count
        if self._pieces is None:
            self._sha.update(room[:count])
        else:
            self._pieces.put((room, count))

    def hex(self) -> str:
        """Of all that was added; nothing more can be."""
        self.close()
        return self._sha.hexdigest()

    def close(self) -> None:
        if self._pieces is not None and self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._pieces = self._thread = None

    def _begin(self) -> None:
        for _ in range(BUFFERS):
            self._free.put(memoryview(bytearray(PIECE)))
        self._own = None
        self._pieces = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(self._pieces,), daemon=True)
        self._thread.start()

    def _work(self, pieces: "queue.SimpleQueue[Optional[Piece]]") -> None:
        while True:
            piece = pieces.get()
            if piece is None:
                return
            room, count = piece
            self._sha.update(room[:count])
            self._free.put(room)
