"""What an agent leaves on its node for people there: `agent.json`, which says whose it is, and `agent.sock`, where it
answers what it does at the moment. Both lie in its own folder, which nobody else may enter.

Each connection gets one JSON object and is closed; nothing is read from it. Where the file system has no sockets there
is none, and everything else goes on.
"""

import contextlib
import json
import os
import socket
from typing import Any, Callable, Dict, Mapping, Optional

FILE = "agent.json"
SOCKET = "agent.sock"
ANSWER_ROOM = 1 << 20  # of the socket: an answer goes out at once or not at all
AT_ONCE = 8


def leave_note(work_dir: str, facts: Mapping[str, Any]) -> None:
    """Readable by its owner alone, whole at any moment. No secret is in it. Raises OSError."""
    path = os.path.join(work_dir, FILE)
    fresh = path + ".new"
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(file, "w", encoding="utf-8") as out:
        json.dump(dict(facts), out)
    os.replace(fresh, path)


class Answering:
    """`fileno` is readable when someone asks; -1 where there can be no socket."""

    def __init__(self, work_dir: str) -> None:
        self._path = os.path.join(work_dir, SOCKET)
        self._listener: Optional[socket.socket] = None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            _remove(self._path)
            with _Short(work_dir, SOCKET) as short:
                listener.bind(short)
            listener.listen(AT_ONCE)
            self._listener = listener
        except OSError:
            listener.close()

    def fileno(self) -> int:
        return -1 if self._listener is None else self._listener.fileno()

    def answer(self, facts: Callable[[], Dict[str, Any]]) -> None:
        """Never waits: who does not take the answer goes without."""
        for _ in range(AT_ONCE):
            try:
                if self._listener is None:
                    return
                asking, _ = self._listener.accept()
            except OSError:
                return
            with asking:
                try:
                    asking.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_ROOM)
                    asking.setblocking(False)
                    asking.send(json.dumps(facts(), default=str).encode())
                except OSError:
                    pass

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            _remove(self._path)
            self._listener = None


def ask(directory: str, wait_s: float) -> Optional[Dict[str, Any]]:
    """What the agent there does now. None: it has no socket (yet), or nobody listens. Raises TimeoutError when it does
    not answer in time, PermissionError when it is not ours to ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(wait_s)
        try:
            with _Short(directory, SOCKET) as short:
                asking.connect(short)
            parts = []
            while True:
                part = asking.recv(65_536)
                if not part:
                    break
                parts.append(part)
        except (socket.timeout, PermissionError, BlockingIOError) as error:  # socket.timeout: until Python 3.10
            if isinstance(error, PermissionError):
                raise
            raise TimeoutError("it does not answer") from None
        except OSError:
            return None
    try:
        told = json.loads(b"".join(parts))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


class _Short:
    """A path of any length, as one that fits into the address of a socket."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory, self._name = directory, name

    def __enter__(self) -> str:
        self._fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return "/proc/self/fd/%d/%s" % (self._fd, self._name)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
