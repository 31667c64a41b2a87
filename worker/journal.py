"""What the agent says to people: one line for each change, on stderr, as JSON or as plain words."""

import json
import os
import select
import time
from typing import Any, Callable, Mapping

STDERR = 2


def utc_text(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + ".%03dZ" % (ms % 1000)


def utc_ms() -> int:
    return time.time_ns() // 1_000_000


AT_ONCE = 4096  # bytes for which a pipe has room where it has room at all, and which it takes as a whole


class Journal:
    """Never fails and never waits: a stderr that is full, or a pipe that nobody empties, takes no job down with it."""

    def __init__(self, style: str, worker: str, file: int = STDERR, now: Callable[[], int] = utc_ms) -> None:
        self._json = style == "json"
        self._worker = worker
        self._file = file
        self._now = now
        self._room = select.poll()
        self._room.register(file, select.POLLOUT)
        self._torn = False  # the last line has no end

    def call_it(self, worker: str) -> None:
        """The hub has told another name than it began with."""
        self._worker = worker or self._worker

    def __call__(self, event: str, **facts: Any) -> None:
        self.say(event, facts)

    def say(self, event: str, facts: Mapping[str, Any]) -> None:
        """One line in one write where it is short enough, so that several writers do not tear each other's lines. Of
        one that is longer the end may be missing."""
        data = (("\n" if self._torn else "") + self._line(event, facts) + "\n").encode("utf-8", "backslashreplace")
        try:
            for at in range(0, len(data), AT_ONCE):
                if not self._room.poll(0):
                    self._torn = self._torn or at > 0
                    return
                os.write(self._file, data[at : at + AT_ONCE])
            self._torn = False
        except OSError:
            pass

    def _line(self, event: str, facts: Mapping[str, Any]) -> str:
        at = utc_text(self._now())
        if self._json:
            return json.dumps({"at": at, "event": event, "worker": self._worker, **facts}, default=str)
        words = " ".join("%s=%s" % (name, json.dumps(value, default=str)) for name, value in facts.items())
        return ("%s %s %s %s" % (at, self._worker, event, words)).rstrip()
