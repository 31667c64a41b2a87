"""Signals as something to wait for: TERM, INT and HUP ask to stop, USR1 asks what is going on, USR2 says that the
machine is taken away soon."""

import os
import signal
from typing import List

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Catches from its making on. `fileno` is readable when `taken` has something."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (*STOPS, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._noted)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)

    def _noted(self, number: int, frame: object) -> None:
        """The wake-up descriptor has it already; the handler only keeps the default action away."""

    def fileno(self) -> int:
        return self._out

    def taken(self) -> List[str]:
        """What came since the last call: `dump`, `notice`, or the name of a signal to stop."""
        try:
            numbers = os.read(self._out, 4096)
        except BlockingIOError:
            return []
        names = []
        for number in numbers:
            if number == signal.SIGUSR1:
                names.append("dump")
            elif number == signal.SIGUSR2:
                names.append("notice")
            elif number in STOPS:
                names.append(signal.Signals(number).name)
        return names
