"""What the local backend keeps on disk, so that any manager finds every worker again.

    <state_dir>/<submission>/launch.json       whose it is; written before anything is started
                             lock              held by the process that launches
                             <index>/process   pid and start time; may be missing when the manager was killed
                                     join-token  mode 0600
                                     worker.log  what worker and set-up wrote
                                     exit      the exit status, written by the shell around the worker
                                     ending    somebody asked it to end
                                     ended     the final word, written once

Files appear whole, by rename. None is synced: whatever loses them has ended the processes as well.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.local.processes import Process

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,34}[a-z0-9])?")
_HANDLE = re.compile(rf"({_NAME.pattern})-(0|[1-9]\d{{0,5}})")


class Launching(Exception):
    """Another process launches this submission at this moment."""


@dataclass(frozen=True)
class Ended:
    at: int
    exit_code: int | None
    detail: str


def is_submission(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class WorkerFolder:
    path: Path
    submission: str
    index: int

    @property
    def handle(self) -> str:
        return f"{self.submission}-{self.index}"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def token(self) -> Path:
        return self.path / "join-token"

    def prepare(self, token: str | None) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        if token is not None:
            _write(self.token, token)

    def record(self, process: Process, boot: str, at: int) -> None:
        _write(self.path / "process", json.dumps({"pid": process.pid, "start": process.start, "boot": boot, "at": at}))

    def process(self) -> tuple[Process, str, int] | None:
        """The process, the boot it belongs to and when it was started; None when that is not on record."""
        found = _read_json(self.path / "process")
        try:
            return Process(int(found["pid"]), int(found["start"])), str(found["boot"]), int(found["at"])
        except (KeyError, TypeError, ValueError):
            return None

    def exit_status(self) -> int | None:
        text = _read(self.path / "exit").strip()
        return int(text) if text.isdecimal() else None

    def note_asked(self) -> None:
        _write(self.path / "ending", "")

    def asked_to_end(self) -> bool:
        return (self.path / "ending").exists()

    def close(self, ended: Ended) -> None:
        _write(self.path / "ended", json.dumps({"at": ended.at, "exit_code": ended.exit_code, "detail": ended.detail}))
        self.token.unlink(missing_ok=True)

    def ended(self) -> Ended | None:
        found = _read_json(self.path / "ended")
        try:
            return Ended(int(found["at"]), found["exit_code"], str(found["detail"]))
        except (KeyError, TypeError, ValueError):
            return None

    def tail(self, max_bytes: int) -> str:
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - max_bytes, 0))
                return file.read(max_bytes).decode(errors="replace")
        except OSError:
            return ""


class Records:
    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    def create(self) -> None:
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    def submissions(self) -> list[str]:
        """Raises OSError when the folder cannot be read: that is not the same as none."""
        return sorted(path.name for path in self.state_dir.iterdir() if is_submission(path.name))

    def owner(self, submission: str) -> Mapping[str, Any]:
        return _read_json(self.state_dir / submission / "launch.json")

    def begin(self, submission: str, owner: Mapping[str, Any]) -> None:
        """On record before anything is started. May be repeated."""
        folder = self.state_dir / submission
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _read_json(folder / "launch.json"):
            _write(folder / "launch.json", json.dumps(owner))

    @contextmanager
    def launching(self, submission: str) -> Iterator[None]:
        """Held by one process at a time, and let go by its death. Never waits. Raises Launching."""
        handle = os.open(self.state_dir / submission / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Launching(submission) from None
            yield
        finally:
            os.close(handle)

    def is_launching(self, submission: str) -> bool:
        try:
            with self.launching(submission):
                return False
        except Launching:
            return True
        except OSError:
            return False

    def worker(self, submission: str, index: int) -> WorkerFolder:
        return WorkerFolder(self.state_dir / submission / str(index), submission, index)

    def find(self, handle: str) -> WorkerFolder | None:
        """None when it names nothing that could be ours."""
        match = _HANDLE.fullmatch(handle)
        return self.worker(match[1], int(match[2])) if match else None

    def workers(self, submission: str) -> list[WorkerFolder]:
        try:
            names = [path.name for path in (self.state_dir / submission).iterdir()]
        except FileNotFoundError:  # removed since the folder was read
            return []
        return [self.worker(submission, number) for number in sorted(int(name) for name in names if name.isdecimal())]

    def remove(self, submission: str) -> None:
        hidden = self.state_dir / f".removed-{submission}"
        with suppress(OSError):
            (self.state_dir / submission).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner only."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(_read(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
