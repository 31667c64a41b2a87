"""The local backend passes the suite, with real processes."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import Backend, Context, Submission
from backends.local import CAPABILITIES, processes
from backends.local.recipe import MARK
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.conformance.suite import Conformance
from worker_manager.clock import SystemClock

_NAME = "conformance-worker"
_FAULTS = frozenset({Fault.UNREADABLE, Fault.DIES_AT_BOOT, Fault.TIMED_OUT_BEFORE, Fault.MISCONFIGURED})

# $1 what it says, $2 its exit status or nothing, $3 deaf or nothing. It speaks when it is ready for a signal.
_SCRIPT = """
if [ "$3" = deaf ]; then trap '' TERM; else trap 'kill -KILL $!; exit 0' TERM; fi
[ -z "$1" ] || printf '%s\\n' "$1"
[ -z "$2" ] || exit "$2"
sleep 600 &
wait
"""


class LocalAdopter(Adopter):
    def __init__(self, root: Path) -> None:
        super().__init__(CAPABILITIES, _FAULTS)
        self.root = root
        self.ordered: Fault | None = None
        self.locks: list[int] = []

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        context = Context(manager, pool, str(self.folder(manager, pool)), SystemClock().now_ms, call_timeout_s or 30.0)
        return registry.create("local", {}, context)

    def folder(self, manager: str, pool: str) -> Path:
        return self.root / manager / pool

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        dies = self.ordered is Fault.DIES_AT_BOOT
        if self.ordered is Fault.MISCONFIGURED:
            return ("/nonexistent/program",)
        exits = "9" if dies else "" if behaviour.exits is None else str(behaviour.exits)
        return ("/bin/sh", "-c", _SCRIPT, _NAME, behaviour.says, exits, "deaf" if behaviour.deaf else "")

    def submission(self, *arguments: Any, **words: Any) -> Submission:
        made = super().submission(*arguments, **words)
        if self.ordered is Fault.TIMED_OUT_BEFORE:  # another process has begun to launch it, and is stuck
            folder = self.folder(made.manager, made.pool) / made.id
            folder.mkdir()
            self.locks.append(os.open(folder / "lock", os.O_RDWR | os.O_CREAT))
            fcntl.flock(self.locks[-1], fcntl.LOCK_EX)
        self.ordered = None
        return made

    def inject(self, fault: Fault) -> None:
        self.ordered = fault
        if fault is Fault.UNREADABLE:
            self.folder("wm-a", "pool").rename(self.root / "moved-away")

    def close(self) -> None:
        for lock in self.locks:
            os.close(lock)
        root = os.fsencode(f"{MARK}={self.root}/")

        def ours(table: processes.Table) -> set[int]:
            return {pid for pid in table if root in _proc(pid, "environ")}

        processes.end_all(ours)
        self.until(lambda: not ours(processes.table()), "the end of every worker of this test")

    # ------------------------------------------------ through /proc

    def alive(self, handle: str) -> bool:
        return bool(self._processes(handle))

    def token(self, handle: str) -> str:
        path = Path(self.environment(handle)["WM_JOIN_TOKEN_FILE"])
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        return path.read_text()

    def environment(self, handle: str) -> Mapping[str, str]:
        words = _proc(self._worker(handle), "environ").decode().split("\0")
        return dict(word.split("=", 1) for word in words if word)

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(_proc(self._worker(handle), "cmdline").decode().split("\0")[:-1])

    def exposed(self, handle: str) -> str:
        return "".join((_proc(pid, "cmdline") + _proc(pid, "environ")).decode() for pid in self._processes(handle))

    def _processes(self, handle: str) -> set[int]:
        mark = os.fsencode(f"WM_WORKER={handle}\0")
        return {pid for pid in processes.table() if mark in _proc(pid, "environ")}

    def _worker(self, handle: str) -> int:
        """Not the shell around it, which has the same words and starts it a moment later."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for pid in self._processes(handle):
                words = _proc(pid, "cmdline").split(b"\0")
                stat = processes.look(pid)
                if words[3:4] == [_NAME.encode()] and stat and stat.session != pid:
                    return pid
        raise AssertionError(f"{handle} did not start")


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


class TestLocal(Conformance):
    @pytest.fixture
    def adopter(self, tmp_path: Path) -> Iterator[Adopter]:
        adopter = LocalAdopter(tmp_path)
        yield adopter
        adopter.close()
