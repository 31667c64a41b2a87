"""kill -9 of the manager at every line of a local launch: the next manager finds what runs, and makes it whole."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from backends import registry
from backends.base import Accepted, Context, Submission, WorkerPhase
from backends.local import processes
from worker.protocol import Shape
from worker_manager.clock import ManualClock

COUNT = 2
STARTED = processes.look(os.getpid()).start  # type: ignore[union-attr]
HERE = str(Path(registry.__file__).parent / "local")


def submission(name: str) -> Submission:
    return Submission(name, COUNT, "p", "m", Shape(), ("/bin/sleep", "600"), {}, ("a", "b"))


def backend(root: Path) -> Any:
    return registry.create("local", {}, Context("m", "p", str(root), ManualClock().now_ms))


def launch_and_die_at(line: int, root: Path, name: str) -> bool:
    """In a process of its own. True when it was killed, False when the launch was over before that line."""
    child = os.fork()
    if child == 0:
        try:
            manager = backend(root)
            left = line

            def count(frame: FrameType, event: str, argument: object) -> Any:
                nonlocal left
                if not frame.f_code.co_filename.startswith(HERE):
                    return None
                if event == "line":
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                return count

            sys.settrace(count)
            manager.launch(submission(name))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def shells(root: Path) -> dict[bytes, int]:
    """Folder of a worker → how many shells lead a session for it. One that is in its exec this moment is not seen yet:
    ask until the answer is the expected one."""
    prefix = os.fsencode(f"WM_WORKER_DIR={root}/")
    leaders = [pid for pid, stat in processes.table().items() if stat.session == pid and stat.start >= STARTED]
    words = [word for pid in leaders for word in _environ(pid).split(b"\0") if word.startswith(prefix)]
    return {word: words.count(word) for word in words}


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    mark = os.fsencode(f"WM_WORKER_DIR={tmp_path}/")

    def ours(table: processes.Table) -> set[int]:
        return {pid for pid in table if mark in _environ(pid)}

    processes.end_all(ours)
    until(lambda: not ours(processes.table()), "the end of everything")


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def kill_and_recover(root: Path, line: int) -> int | None:
    """How many ran when it was killed; None when the launch was over before that line."""
    if not launch_and_die_at(line, root, "m-a"):
        return None
    until(lambda: len(backend(root).list().seen) == len(shells(root)), f"line {line}: what runs is what is listed")
    running = backend(root).list()
    assert running.complete
    assert all(seen.phase is WorkerPhase.RUNNING for seen in running.seen)

    again = backend(root)
    assert isinstance(again.launch(submission("m-a")), Accepted)
    until(lambda: list(shells(root).values()) == [1] * COUNT, f"line {line}: each worker once")
    for seen in again.list().seen:
        again.terminate(seen.handle, force=True)
    return len(running.seen)


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.soak)])
def test_wherever_it_is_killed_every_worker_is_found_and_none_is_started_twice(root: Path, stride: int) -> None:
    line, ran = 1, set()
    while (running := kill_and_recover(root / str(line), line)) is not None:
        ran.add(running)
        line += stride
    assert line > 100, "the sweep was too short to mean anything"
    assert ran == {0, 1, 2}, "killed before, between and after the starts"
