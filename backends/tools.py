"""Running a platform's own program (squeue, ssh, …): an argv, a deadline, bounded output, and nothing left behind."""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

MOST_BYTES = 64 * 2**20  # of output; a listing of 100,000 workers has some 10 MiB


class TookTooLong(Exception):
    """It was ended at its deadline. What it had been asked may have happened."""


class NotInstalled(Exception):
    """There is no such program."""


class TooMuch(Exception):
    """It wrote more than anyone can mean."""


@dataclass(frozen=True)
class Ran:
    status: int  # negative: the signal that ended it
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it had to say, for people."""
        return (self.err.strip() or self.out.strip() or f"it ended with status {self.status}").replace("\0", "")


def run(
    argv: Sequence[str],
    deadline_s: float,
    *,
    input: str = "",
    environment: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Ran:
    """Run it in a session of its own, which is killed whole at the deadline. Raises TookTooLong, NotInstalled and
    TooMuch."""
    path = (os.environ if environment is None else environment).get("PATH")
    if shutil.which(argv[0], path=path) is None:
        raise NotInstalled(f"{argv[0]} is not a program here")
    with _Exchange(argv, environment, input.encode(), most_bytes) as exchange:
        status = exchange.until_it_ends(time.monotonic() + deadline_s)
    if status is None:
        said = exchange.err[-1000:].decode("utf-8", "replace").replace("\0", "").strip()
        raise TookTooLong(f"{argv[0]} gave no answer within {deadline_s:g} s{': ' + said if said else ''}")
    return Ran(status, exchange.out.decode("utf-8", "replace"), exchange.err.decode("utf-8", "replace"))


class _Exchange:
    """A program and its three pipes. What its own children still write when it has ended is not waited for."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None, input: bytes, most: int) -> None:
        self.out, self.err = bytearray(), bytearray()
        self._program, self._left, self._most = argv[0], memoryview(input), most
        pipe = subprocess.PIPE
        env = None if environment is None else dict(environment)
        self._process = subprocess.Popen(
            list(argv), stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True, bufsize=0
        )
        self._pidfd = os.pidfd_open(self._process.pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pidfd, selectors.EVENT_READ, None)
        for stream, into in ((self._process.stdout, self.out), (self._process.stderr, self.err)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, into)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
            self._selector.register(self._process.stdin, selectors.EVENT_WRITE, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._pidfd)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def until_it_ends(self, deadline: float) -> int | None:
        """Its status; None at the deadline."""
        while True:
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            if not ready or time.monotonic() > deadline:  # or its children write on and on
                return self._process.poll()
            for key, _ in ready:
                if key.fileobj is not self._pidfd:
                    self._move(key)
            if len(ready) == 1 and ready[0][0].fileobj is self._pidfd:  # and nothing is left in the pipes
                return self._process.wait()

    def _move(self, key: selectors.SelectorKey) -> None:
        try:
            if key.data is None:
                self._left = self._left[os.write(key.fd, self._left[:65536]) :] if self._left else self._left
                if self._left:
                    return
            elif piece := os.read(key.fd, 65536):
                key.data.extend(piece)
                if len(key.data) > self._most:
                    raise TooMuch(f"{self._program} wrote more than {self._most} bytes")
                return
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        self._selector.unregister(key.fileobj)
        if key.data is None and self._process.stdin is not None:
            self._process.stdin.close()
