"""What a pool's manager must still know after a restart: where workers may be, and which host it had trouble with.

    <state_dir>/hosts.json             what is known of each host
    <state_dir>/launched/<submission>  where its workers went; written before any host is asked

A host that cannot be reached hides its workers. Whether that matters is told by these records, so they are synced.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.base import RefusalKind

LONGEST_MS = 600_000  # that a host is left alone


@dataclass(frozen=True)
class Aside:
    """A host that failed, and is not bothered again before a certain time."""

    kind: RefusalKind
    text: str
    at: int
    until: int
    failures: int
    by: str  # what failed: `list`, then it is not even listed; another `call`; or what was asked of the `host` itself


@dataclass(frozen=True)
class Known:
    """Of one host."""

    boot: str = ""  # which it had when something was last launched there
    listed: bool = False  # once, ever
    aside: Aside | None = None


@dataclass(frozen=True)
class Placement:
    """Where the workers of a submission went, or why not."""

    at: int  # 0: its record is spoilt, so they may be anywhere
    hosts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    left_out: Mapping[int, tuple[RefusalKind, str]] = field(default_factory=dict)

    def host_of(self, index: int) -> str:
        return next((host for host, indexes in self.hosts.items() if index in indexes), "")


class State:
    """Kept in memory as well; files that another process of the same pool has written are noticed."""

    def __init__(self, folder: Path) -> None:
        self._hosts_file = folder / "hosts.json"
        self._launched = folder / "launched"
        self._launched.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._read: dict[str, tuple[int, Placement]] = {}
        self._hosts = _hosts(_json(self._hosts_file))

    # ------------------------------------------------ hosts

    def host(self, key: str) -> Known:
        return self._hosts.get(key, Known())

    def set_aside(self, key: str, kind: RefusalKind, text: str, now: int, first_ms: int, by: str) -> None:
        """For twice as long as the last time, up to ten minutes."""
        before = self.host(key).aside
        failures = before.failures + 1 if before else 1
        pause = min(first_ms << min(failures - 1, 20), max(LONGEST_MS, first_ms))
        aside = Aside(kind, text, before.at if before else now, now + pause, failures, by)
        self._put(key, replace(self.host(key), aside=aside))

    def listed(self, key: str) -> None:
        """It answers; but what it could not do, such as to write to its disk, may last."""
        known = self.host(key)
        aside = known.aside if known.aside and known.aside.by == "host" else None
        self._put(key, replace(known, listed=True, aside=aside))

    def launched_on(self, key: str, boot: str) -> None:
        self._put(key, replace(self.host(key), boot=boot, aside=None))

    def _put(self, key: str, known: Known) -> None:
        if self._hosts.get(key) != known:
            self._hosts[key] = known
            self._save()

    def _save(self) -> None:
        hosts = {key: asdict(known) for key, known in self._hosts.items()}
        with suppress(OSError):  # what it holds makes things quicker and better explained, and is found out again
            _write(self._hosts_file, json.dumps({"hosts": hosts}), sync=False)

    # ------------------------------------------------ submissions

    def place(self, submission: str, placement: Placement) -> None:
        """Raises OSError: then nothing may be launched."""
        left = {str(index): [kind.value, text] for index, (kind, text) in placement.left_out.items()}
        text = json.dumps({"at": placement.at, "hosts": placement.hosts, "left_out": left})
        _write(self._launched / submission, text, sync=True)

    def placements(self) -> dict[str, Placement]:
        """Raises OSError."""
        found = {}
        for entry in os.scandir(self._launched):
            if entry.name.startswith("."):
                continue
            written = entry.stat().st_mtime_ns
            known = self._read.get(entry.name)
            if known is None or known[0] != written:
                known = written, _placement(_json(Path(entry.path)))
            found[entry.name] = known
        self._read = found
        return {name: placement for name, (_, placement) in found.items()}

    def forget(self, submission: str) -> None:
        (self._launched / submission).unlink(missing_ok=True)


def _hosts(found: Mapping[str, Any]) -> dict[str, Known]:
    hosts: dict[str, Known] = {}
    listed = found.get("hosts")
    for key, known in listed.items() if isinstance(listed, dict) else ():
        with suppress(KeyError, TypeError, ValueError):  # one that is spoilt is found out again
            aside = known["aside"]
            held = Aside(**{**aside, "kind": RefusalKind(aside["kind"])}) if aside else None
            hosts[str(key)] = Known(str(known["boot"]), bool(known["listed"]), held)
    return hosts


def _placement(found: Mapping[str, Any]) -> Placement:
    try:
        hosts = {str(host): tuple(map(int, indexes)) for host, indexes in found["hosts"].items()}
        left = {int(index): (RefusalKind(kind), str(text)) for index, (kind, text) in found["left_out"].items()}
        return Placement(int(found["at"]), hosts, left)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Placement(0)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, text: str, *, sync: bool) -> None:
    """Whole or not at all, for its owner only."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(handle)
    new.replace(path)
    if sync:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
