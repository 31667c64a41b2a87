"""How a transfer is stopped at once, wherever it stands: between two pieces, in a pause, or waiting for a reply; and
how it is seen that it hangs."""

import contextlib
import socket
import threading
from typing import Iterator, Set

from worker.staging.errors import Stopped


class Stop:
    """Of one attempt, for all of its threads."""

    def __init__(self) -> None:
        self.touched = 0  # goes on with every step that is taken
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._sockets: Set[socket.socket] = set()

    def now(self) -> None:
        self._event.set()
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(each, socket.SHUT_RDWR)  # wakes who reads; TLS's own would race with it

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def go_on(self) -> bool:
        self.touched += 1
        return not self._event.is_set()

    def check(self) -> None:
        self.touched += 1
        if self._event.is_set():
            raise Stopped()

    def wait(self, seconds: float) -> None:
        """Raises Stopped as soon as it is."""
        self.touched += 1
        if self._event.wait(seconds):
            raise Stopped()
        self.touched += 1

    @contextlib.contextmanager
    def ends(self, connection: "socket.socket | None") -> Iterator[None]:
        """While this lasts a stop ends the connection."""
        if connection is None:
            yield
            return
        with self._lock:
            self._sockets.add(connection)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._sockets.discard(connection)
