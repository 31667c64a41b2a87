"""Messages between agent and keeper: lists of plain tuples, many to a frame, over a socket pair; and what else the two
have agreed on, so that the agent need not load the keeper.

Both ends are the same interpreter on the same machine and nobody else holds the descriptor, so `marshal` is safe here
and takes bytes as they are. Nothing in this file blocks.
"""

from __future__ import annotations

import marshal
import os

READ_SIZE = 256 * 1024
HEADER = 4

# What a keeper finds when it begins, as numbers of descriptors.
CHANNEL_FD = 3
LOCK_FD = 4  # among the workers of this machine; only of a keeper that has neighbours

# With which status it ends, from which the agent tells people what happened.
DONE, LEASE_ENDED, WORK_DIR_IN_USE = 0, 3, 4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Channel:
    """One end. `closed` is True once the other end is gone and everything it sent has been received."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.closed = False
        self._incoming = bytearray()
        self._outgoing = bytearray()

    @property
    def waiting(self) -> int:
        """Bytes that the other end has not taken yet."""
        return len(self._outgoing)

    def send(self, messages: list[tuple[Any, ...]]) -> bool:
        """Queue one frame and write what can be written; False when some of it waits."""
        frame = marshal.dumps(messages)
        self._outgoing += len(frame).to_bytes(HEADER, "little")
        self._outgoing += frame
        return self.flush()

    def flush(self) -> bool:
        try:
            while self._outgoing:
                written = os.write(self.fd, self._outgoing)
                del self._outgoing[:written]
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._outgoing.clear()  # nobody will read it; `receive` finds out and sets `closed`
        return True

    def receive(self) -> list[tuple[Any, ...]]:
        """Every message that has arrived in whole frames."""
        while not self.closed:
            try:
                data = os.read(self.fd, READ_SIZE)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            self.closed = not data
            self._incoming += data
            if len(data) < READ_SIZE:
                break
        return self._unpack()

    def _unpack(self) -> list[tuple[Any, ...]]:
        messages: list[tuple[Any, ...]] = []
        buffer, at = self._incoming, 0
        while len(buffer) - at >= HEADER:
            end = at + HEADER + int.from_bytes(buffer[at : at + HEADER], "little")
            if len(buffer) < end:
                break
            messages += marshal.loads(buffer[at + HEADER : end])  # noqa: S302  # of ourselves, see above
            at = end
        del buffer[:at]
        return messages

    def close(self) -> None:
        os.close(self.fd)
