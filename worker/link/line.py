"""One line to the hub: a connection with one exchange at a time that never blocks the agent's loop.

Only reaching the hub blocks (names, TCP, TLS), so that happens in a thread, which hands over a ready socket and ends.
A line that was kept open and is found closed is opened anew at once; every other failure waits longer each time.
"""

import contextlib
import os
import select
import socket
from collections import deque
from typing import Callable, Deque, Optional, Tuple, Union

from worker.link import http1
from worker.link.address import Endpoint
from worker.link.client import dial
from worker.link.connection import Unreachable

FIRST_WAIT_MS = 200
LONGEST_WAIT_MS = 10_000


def backoff_ms(failures: int, fraction: float) -> int:
    """Doubles with every failure; `fraction` (0 to 1, random) spreads many workers over half of it."""
    wait = min(FIRST_WAIT_MS * 2 ** min(failures - 1, 16), LONGEST_WAIT_MS)
    return int(wait * (0.5 + fraction / 2))


def spread() -> float:
    return os.urandom(1)[0] / 255


class Dialer:
    """Opens connections in threads; `fileno` is readable when one is ready."""

    def __init__(self, to: Endpoint) -> None:
        self._to = to
        self._ready: Deque[Tuple["Line", int, Union[socket.socket, Unreachable]]] = deque()
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._out

    def open(self, line: "Line", attempt: int) -> None:
        from threading import Thread

        Thread(target=self._dial, args=(line, attempt), daemon=True).start()

    def _dial(self, line: "Line", attempt: int) -> None:
        try:
            self._ready.append((line, attempt, dial(self._to)))
        except Unreachable as error:
            self._ready.append((line, attempt, error))
        except Exception as error:  # whatever it is, the line must hear of it
            self._ready.append((line, attempt, Unreachable("cannot connect to %s: %r" % (self._to, error))))
        os.write(self._in, b"x")

    def hand_over(self) -> "list[Tuple[Line, int, Union[socket.socket, Unreachable]]]":
        with contextlib.suppress(BlockingIOError):
            os.read(self._out, 4096)
        ready = []
        while self._ready:
            ready.append(self._ready.popleft())
        return ready


class Line:
    def __init__(self, dialer: Dialer, poller: "select.poll", jitter: Callable[[], float] = spread) -> None:
        self._dialer = dialer
        self._poller = poller
        self._jitter = jitter
        self._socket: Optional[socket.socket] = None
        self._fd = -1
        self._request: Optional[bytes] = None
        self._unsent = memoryview(b"")
        self._reader = http1.Reader()
        self._reused = False  # this connection has carried an exchange before
        self._attempt = 0
        self._failures = 0
        self.deadline = 0  # of the exchange under way
        self.open_at = 0  # a line that failed rests until then
        self.asked_at = 0

    @property
    def busy(self) -> bool:
        return self._request is not None

    def fileno(self) -> int:
        return self._fd

    def adopt(self, connection: socket.socket, used: bool) -> None:
        """Go on with an open connection."""
        connection.setblocking(False)
        self._socket = connection
        self._fd = connection.fileno()
        self._reused = used
        self._poller.register(self._fd, select.POLLIN)

    def ask(self, request: bytes, timeout_ms: int, now: int) -> None:
        """Begin an exchange. Raises Unreachable when the connection breaks at once."""
        self._request = request
        self.asked_at = now
        self.deadline = now + timeout_ms
        if self._socket is None:
            self._dial()
        else:
            self._begin()

    def _dial(self) -> None:
        self._attempt += 1
        self._dialer.open(self, self._attempt)

    def dialed(self, attempt: int, result: Union[socket.socket, Unreachable]) -> None:
        """The dialer is done. One that was given up meanwhile is dropped."""
        stale = attempt != self._attempt or self._request is None or self._socket is not None
        if isinstance(result, Unreachable):
            if not stale:
                raise result
            return
        if stale:
            result.close()
            return
        self.adopt(result, used=False)
        self._begin()

    def _begin(self) -> None:
        self._reader = http1.Reader()
        self._unsent = memoryview(self._request or b"")
        self._write()

    def _write(self) -> None:
        connection = self._socket
        if connection is None:
            return
        try:
            while self._unsent:
                self._unsent = self._unsent[connection.send(self._unsent) :]
        except OSError as error:
            if not _only_not_now(error):
                self._broken(error)
                return
        self._poller.modify(self._fd, select.POLLIN | (select.POLLOUT if self._unsent else 0))

    def ready(self) -> Optional[http1.Response]:
        """Its descriptor has something. The response once it is complete. Raises Unreachable."""
        if self._unsent:
            self._write()
        while self._socket is not None:
            try:
                data = self._socket.recv(262_144)
            except OSError as error:
                if not _only_not_now(error):
                    self._broken(error)
                return None
            if self._request is None:  # closed while it rested, or it speaks without being asked
                self.close()
            elif not data:
                self._broken(Unreachable("it closed the connection without an answer"))
            else:
                response = self._fed(data)
                if response is not None:
                    return response
        return None

    def _fed(self, data: bytes) -> Optional[http1.Response]:
        try:
            response = self._reader.feed(data)
        except http1.Garbled as error:
            raise Unreachable(str(error)) from None
        if response is not None:
            self._request = None
            self._reused = True
            self._failures = 0
            if not response.keep:
                self.close()
        return response

    def _broken(self, error: Exception) -> None:
        again = self._reused and not self._reader.began and self._request is not None
        self.close()
        if not again:
            raise Unreachable(str(error) or type(error).__name__)
        self._dial()

    def failed(self, now: int, retry_after_ms: int = 0) -> None:
        """The exchange came to nothing: rest before the next."""
        self._failures += 1
        self._request = None
        self._attempt += 1
        self.open_at = now + max(backoff_ms(self._failures, self._jitter()), retry_after_ms)
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._poller.unregister(self._fd)
            self._socket.close()
        self._socket = None
        self._fd = -1
        self._reused = False
        self._unsent = memoryview(b"")


def _only_not_now(error: OSError) -> bool:
    """Would block, in plain or in TLS; its errors are told by name, so that `ssl` is loaded only where it is used."""
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")
