"""What the agent says to people: one line for each change, on stderr, as JSON or as plain words."""

import json
import sys
import time
from typing import Any, Callable, Mapping, TextIO


def utc_text(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + ".%03dZ" % (ms % 1000)


def utc_ms() -> int:
    return time.time_ns() // 1_000_000


class Journal:
    """Never fails: a stderr that is gone or full takes no job down with it."""

    def __init__(
        self, style: str, worker: str, stream: "TextIO | None" = None, now: Callable[[], int] = utc_ms
    ) -> None:
        self._json = style == "json"
        self._worker = worker
        self._stream = stream
        self._now = now

    def __call__(self, event: str, **facts: Any) -> None:
        self.say(event, facts)

    def say(self, event: str, facts: Mapping[str, Any]) -> None:
        stream = sys.stderr if self._stream is None else self._stream
        try:
            stream.write(self._line(event, facts) + "\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass

    def _line(self, event: str, facts: Mapping[str, Any]) -> str:
        at = utc_text(self._now())
        if self._json:
            return json.dumps({"at": at, "event": event, "worker": self._worker, **facts}, default=str)
        words = " ".join("%s=%s" % (name, json.dumps(value, default=str)) for name, value in facts.items())
        return ("%s %s %s %s" % (at, self._worker, event, words)).rstrip()
