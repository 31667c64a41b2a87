"""The memory of the stand-in for a Kubernetes API server: objects with versions, selectors, pages, and what changed."""

import base64
import itertools
import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Thing = dict[str, Any]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Expired(Exception):
    """What was asked for is older than what is remembered (410)."""


class Store:
    """Every write is one version of the whole, as in etcd. All methods hold the lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 1000
        self.things: dict[str, dict[str, Thing]] = defaultdict(dict)  # kind → name
        self._raw: dict[str, dict[str, bytes]] = defaultdict(dict)
        self._history: dict[str, list[tuple[int, str, dict[str, str], bytes]]] = defaultdict(list)
        self._oldest = 0
        self._pages: dict[str, list[str]] = {}
        self._tokens = itertools.count(1)

    # ------------------------------------------------ writing

    def add(self, kind: str, thing: Thing) -> Thing:
        thing.setdefault("metadata", {}).setdefault("uid", str(uuid.uuid4()))
        thing["metadata"].setdefault("creationTimestamp", now())
        return self._write(kind, thing, "ADDED")

    def update(self, kind: str, thing: Thing) -> Thing:
        return self._write(kind, thing, "MODIFIED")

    def remove(self, kind: str, name: str) -> None:
        with self.lock:
            thing = self.things[kind].get(name)
            if thing is not None:
                self._write(kind, thing, "DELETED")
                del self.things[kind][name], self._raw[kind][name]

    def _write(self, kind: str, thing: Thing, what: str) -> Thing:
        with self.lock:
            self.version += 1
            metadata = thing["metadata"]
            metadata["resourceVersion"] = str(self.version)
            raw = json.dumps(thing).encode()
            self.things[kind][metadata["name"]] = thing
            self._raw[kind][metadata["name"]] = raw
            self._history[kind].append((self.version, what, metadata.get("labels") or {}, raw))
            self.changed.notify_all()
            return thing

    def forget_history(self) -> None:
        """As etcd's compaction: older versions and continuations are gone."""
        with self.lock:
            self._oldest = self.version + 1
            self._history.clear()
            self._pages.clear()
            self.changed.notify_all()

    # ------------------------------------------------ reading

    def get(self, kind: str, name: str) -> Thing | None:
        with self.lock:
            return self.things[kind].get(name)

    def raw(self, kind: str, name: str) -> bytes | None:
        with self.lock:
            return self._raw[kind].get(name)

    def select(self, kind: str, labels: str = "", fields: str = "") -> list[Thing]:
        with self.lock:
            return [
                thing
                for thing in self.things[kind].values()
                if matches(thing["metadata"].get("labels") or {}, labels) and fields_match(thing, fields)
            ]

    def page(self, kind: str, labels: str, fields: str, limit: int, token: str) -> tuple[list[bytes], str, int]:
        """One page as raw objects, the token of the next, and the version."""
        with self.lock:
            if token:
                wanted = self._pages.pop(_decoded(token), None)
                if wanted is None:
                    raise Expired
            else:
                wanted = sorted(thing["metadata"]["name"] for thing in self.select(kind, labels, fields))
            limit = limit or len(wanted)
            here, later = wanted[:limit], wanted[limit:]
            following = ""
            if later:
                number = str(next(self._tokens))
                self._pages[number] = later
                following = base64.b64encode(number.encode()).decode()
            return [self._raw[kind][name] for name in here if name in self._raw[kind]], following, self.version

    def since(self, kind: str, version: int, labels: str) -> tuple[list[tuple[int, str, bytes]], int]:
        """What happened after it, in order. Raises Expired."""
        with self.lock:
            if version + 1 < self._oldest:
                raise Expired
            found = [
                (at, what, raw)
                for at, what, their, raw in reversed_until(self._history[kind], version)
                if matches(their, labels)
            ]
            return found[::-1], self.version


def reversed_until(
    history: list[tuple[int, str, dict[str, str], bytes]], version: int
) -> Iterator[tuple[int, str, dict[str, str], bytes]]:
    for item in reversed(history):
        if item[0] <= version:
            return
        yield item


def _decoded(token: str) -> str:
    try:
        return base64.b64decode(token).decode()
    except ValueError:
        return ""


def matches(labels: dict[str, str], selector: str) -> bool:
    """Equality only: `a=b,c!=d,e`."""
    for term in filter(None, selector.split(",")):
        if "!=" in term:
            name, _, value = term.partition("!=")
            if labels.get(name) == value:
                return False
        elif "=" in term:
            name, _, value = term.replace("==", "=").partition("=")
            if labels.get(name) != value:
                return False
        elif term not in labels:
            return False
    return True


def fields_match(thing: Thing, selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        path, _, value = term.replace("==", "=").partition("=")
        found: Any = thing
        for part in path.split("."):
            found = found.get(part, "") if isinstance(found, dict) else ""
        if found != value:
            return False
    return True
