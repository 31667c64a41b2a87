"""What is known of one kind of object without reading all of it each time: a list, kept up to date by a watch.

The list is the truth. A watch adds to it for at most MAX_AGE_S; when it breaks, ends with an error (410: the server has
forgotten where we were) or says what cannot be read, the next look is a list again. A watch that the server has closed
at its time is resumed where it ended. Only a list or an event DELETED takes an object away, so a watch that has gone
silent can show too much for a while, never too little; and what we create ourselves is put in at once.

The stream is read by a thread of its own that ends with it, at most WATCH_S after the last look began one; it holds
nothing but the connection and a queue.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.kubernetes.api import Api, NoAnswer
from backends.kubernetes.listing import Listed, everything

WATCH_S = 50  # of one watch; the server closes it
MAX_AGE_S = 120.0  # then a list, whatever the watch said
SLACK_S = 10  # the server is late in closing it

Thing = Mapping[str, Any]


class View:
    """Of one kind and selector. Used by one thread."""

    def __init__(
        self, path: str, selector: str, page_size: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._selector = selector
        self._page_size = page_size
        self._monotonic = monotonic
        self._things: dict[str, Thing] = {}
        self._version = ""
        self._listed_at = 0.0
        self._stream: Stream | None = None

    def look(self, api: Api, deadline: float, watch: bool) -> Listed:
        """Raises NoAnswer. Never blocks on the watch."""
        if (
            self._stream is not None
            and self._monotonic() - self._listed_at < MAX_AGE_S
            and self._follow(api, self._stream)
        ):
            return Listed(tuple(self._things.values()), self._version, complete=True)
        self.forget()
        listed = everything(api, self._path, self._selector, self._page_size, deadline)
        if watch and listed.complete and listed.version:
            self._things = {_uid(thing): thing for thing in listed.things}
            self._version, self._listed_at = listed.version, self._monotonic()
            self._stream = self._open(api)
        return listed

    def put(self, thing: Thing) -> None:
        """We made it, so it is there, though the watch may not have said so yet."""
        if self._stream is not None:
            self._things.setdefault(_uid(thing), thing)

    def forget(self) -> None:
        """The next look is a list."""
        if self._stream is not None:
            self._stream.abandon()
        self._stream = None

    def _follow(self, api: Api, stream: "Stream") -> bool:
        """What has come since; False: it cannot be relied on any longer."""
        while True:
            event = stream.next()
            if event is None:
                return True
            if event.kind == "END":
                self._stream = self._open(api)
                return True
            if not self._apply(event):
                return False

    def _apply(self, event: "Event") -> bool:
        version = (event.thing.get("metadata") or {}).get("resourceVersion")
        if event.kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or not version:
            return False
        self._version = str(version)
        if event.kind == "DELETED":
            self._things.pop(_uid(event.thing), None)
        elif event.kind != "BOOKMARK":
            self._things[_uid(event.thing)] = event.thing
        return True

    def _open(self, api: Api) -> "Stream":
        query = [
            ("watch", "true"),
            ("labelSelector", self._selector),
            ("resourceVersion", self._version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(WATCH_S)),
        ]
        return Stream(api, self._path, query)


@dataclass(frozen=True)
class Event:
    kind: str  # ADDED, MODIFIED, DELETED, BOOKMARK, ERROR as the server says; END: it closed the watch in order
    thing: Thing = field(default_factory=dict)


class Stream:
    """One watch, read by a thread into a queue."""

    def __init__(self, api: Api, path: str, query: list[tuple[str, str]]) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._abandoned = threading.Event()
        arguments = (api, path, query, self._events, self._abandoned)
        threading.Thread(target=_read, args=arguments, name=f"watch {path}", daemon=True).start()

    def next(self) -> Event | None:
        try:
            return self._events.get_nowait()
        except queue.Empty:
            return None

    def abandon(self) -> None:
        """Its thread ends with the next line, or with the watch."""
        self._abandoned.set()


def _read(
    api: Api, path: str, query: list[tuple[str, str]], events: "queue.SimpleQueue[Event]", abandoned: threading.Event
) -> None:
    try:
        with api.lines(path, WATCH_S + SLACK_S, query) as (status, lines):
            if status != 200:
                events.put(Event("ERROR"))
                return
            heard = False
            for line in lines:
                if abandoned.is_set():
                    return
                events.put(_event(line))
                heard = True
        events.put(Event("END" if heard else "ERROR"))  # one that says nothing at all may be nobody's
    except NoAnswer:
        events.put(Event("ERROR"))


def _event(line: bytes) -> Event:
    try:
        found = json.loads(line)
        return Event(str(found["type"]), found["object"] if isinstance(found["object"], dict) else {})
    except (ValueError, KeyError, TypeError):
        return Event("ERROR")


def _uid(thing: Thing) -> str:
    return str((thing.get("metadata") or {}).get("uid", ""))
