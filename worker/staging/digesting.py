"""A digest that is made while the next bytes come: of what is large, by a thread of its own."""

import hashlib
import queue
import threading
from typing import Optional

PIECE = 512 * 1024
SMALL = 4 * 2**20  # up to there a thread is not worth it
BEHIND = 6  # pieces that wait for it


class Digest:
    """`close` it, whatever happens."""

    def __init__(self) -> None:
        self.size = 0
        self._sha = hashlib.sha256()
        self._pieces: "Optional[queue.SimpleQueue[Optional[bytes]]]" = None
        self._room: "queue.SimpleQueue[None]" = queue.SimpleQueue()  # one for each piece that may come
        self._thread: Optional[threading.Thread] = None

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self._pieces is None and self.size >= SMALL:
            self._begin()
        if self._pieces is None:
            self._sha.update(piece)
        else:
            self._room.get()
            self._pieces.put(piece)

    def _begin(self) -> None:
        for _ in range(BEHIND):
            self._room.put(None)
        self._pieces = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(self._pieces,), daemon=True)
        self._thread.start()

    def hex(self) -> str:
        """Of all that was added; nothing more can be."""
        self.close()
        return self._sha.hexdigest()

    def close(self) -> None:
        if self._pieces is not None and self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._pieces = self._thread = None

    def _work(self, pieces: "queue.SimpleQueue[Optional[bytes]]") -> None:
        while True:
            piece = pieces.get()
            if piece is None:
                return
            self._sha.update(piece)
            self._room.put(None)
