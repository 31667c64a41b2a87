"""What is kept on this host of a pool's workers, and the lock under which it changes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backends.ssh.far.processes import Table, boot_id, look

Json = Any
LOCK_S = 10.0
_REFUSALS = {
    errno.ENOSPC: "capacity",
    errno.EAGAIN: "capacity",
    errno.ENOMEM: "capacity",
    errno.EMFILE: "capacity",
    errno.ENFILE: "capacity",
    errno.EDQUOT: "quota",
}


class Refusal(Exception):
    """Nothing was done."""

    def __init__(self, kind: str, text: str, **more: Json) -> None:
        super().__init__(text)
        self.answer = {"refused": kind, "text": text, **more}


class Doubt(Exception):
    """It cannot be told what was done."""


def trouble(failed: OSError) -> tuple[str, str]:
    where = f"{failed.filename}: " if failed.filename else ""
    return _REFUSALS.get(failed.errno or 0, "config"), where + (failed.strerror or str(failed))


def write(path: Path, text: str) -> None:
    """Whole or not at all, for its owner only."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(str(new), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def read(path: Path) -> dict[str, Json]:
    """{} where it is missing or spoilt. Raises OSError when it cannot be read: that is not the same."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def private(path: Path) -> Path:
    """A folder that is nobody else's to write, made where it is missing."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Refusal("config", f"{path} must be a folder of user {os.getuid()}, which others cannot write")
    return path


class Worker:
    def __init__(self, submission: Path, index: int) -> None:
        self.submission, self.index = submission.name, index
        self.path = submission / str(index)

    def record(self) -> tuple[int, int, str, int] | None:
        """pid, start time, boot and when, of its attendant."""
        found = read(self.path / "process")
        try:
            return int(found["pid"]), int(found["start"]), str(found["boot"]), int(found["at"])
        except (KeyError, TypeError, ValueError):
            return None

    def attended(self) -> bool:
        known = self.record()
        now = look(known[0]) if known and known[2] == boot_id() else None
        return bool(now and known and now.start == known[1] and not now.dead)

    def roots(self, now: Table) -> set[int]:
        """Whatever of it is alive: its session, and what carries its mark."""
        found = set(now.marked.get(os.fsencode(self.path), ()))
        known = self.record()
        if known and known[2] == boot_id():
            leader = now.get(known[0])
            if leader is None or leader.start == known[1]:  # else the number belongs to somebody else by now
                found |= {one.pid for one in now.values() if one.session == known[0]}
        return found

    def started(self) -> bool:
        return (self.path / "process").exists() or self.over()

    def over(self) -> bool:
        return (self.path / "ended").exists()

    def close(self, status: int | None, detail: str) -> dict[str, Json]:
        end = {"at": now_ms(), "exit_code": status, "detail": detail}
        write(self.path / "ended", json.dumps(end))
        with suppress(OSError):
            (self.path / "join-token").unlink()
        return end

    def tail(self, most: int) -> str:
        try:
            with (self.path / "worker.log").open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - most, 0))
                return file.read(most).decode(errors="replace")
        except OSError:
            return ""


class Pool:
    def __init__(self, request: dict[str, Json]) -> None:
        self.base = Path(os.path.expanduser("~"), os.path.expanduser(request["base"]))  # noqa: PTH111 -- HOME may lack
        self.path = self.base / request["host"] / request["pool"]

    def make(self) -> None:
        for folder in (self.base, self.base / "agents", self.path.parent, self.path):
            private(folder)

    def workers(self) -> Iterator[Worker]:
        try:
            submissions = sorted(self.path.iterdir())
        except FileNotFoundError:
            return
        for submission in submissions:
            if submission.name != "lock" and not submission.name.startswith("."):
                for name in sorted(names(submission), key=int):
                    yield Worker(submission, int(name))

    def worker(self, submission: str, index: int) -> Worker:
        return Worker(self.path / submission, index)

    @contextmanager
    def alone(self, patience: float = LOCK_S) -> Iterator[None]:
        end = time.monotonic() + patience
        handle = os.open(str(self.path / "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise Refusal("throttled", f"another call works on {self.path}") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(handle)

    def busy(self) -> bool:
        try:
            with self.alone(0):
                return False
        except (Refusal, OSError):
            return True


def names(submission: Path) -> list[str]:
    try:
        return [path.name for path in submission.iterdir() if path.name.isdigit()]
    except (FileNotFoundError, NotADirectoryError):  # removed since it was read
        return []


def now_ms() -> int:
    return int(time.time() * 1000)
