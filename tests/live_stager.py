"""A real stager process for each test that asks for one, and a hub that it fetches from."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.stand_ins.file_hub import FileHub
from worker.link.address import Endpoint, endpoint
from worker.staging import messages, starting
from worker.staging.messages import Collected, NotCollected, NotStaged, Said, Staged

DEADLINE_S = 60.0  # only a failing test waits this long
Kind = TypeVar("Kind")


class LiveStager:
    """One stager process, spoken to as the agent does."""

    def __init__(self, folder: Path, server: Endpoint, **setup: Any) -> None:
        self.work_dir = Path(setup.get("work_dir") or folder / "work")
        self.cache_dir = folder / "cache"
        self.work_dir.mkdir(exist_ok=True)
        self.heard: list[Said] = []
        self.channel, self.pid = setup.pop("start", starting.start)()
        self.setup: dict[str, Any] = {
            "worker": "w1",
            "credential": "wmw_canary-credential",
            "session": 7,
            "work_dir": str(self.work_dir),
            "cache_dir": str(self.cache_dir),
            "cache_quota": None,
            "cache_name": "agent-1",
            "agent": os.getpid(),
            "input_paths": [],
            "patience": [4, 0.01, 0.05],
            "long_patience": [8, 0.01, 0.05],
            "timeout_s": 5.0,
            **setup,
        }
        self.channel.send([messages.setup(server, self.setup)])  # type: ignore[arg-type]

    def tell(self, *message: Any) -> None:
        self.channel.send([message])

    def stage(
        self, *inputs: dict[str, Any], job: str = "j1", epoch: int = 1, owner: str = "alice", **more: Any
    ) -> None:
        self.tell(*messages.stage(job, epoch, owner, inputs, more.get("user")))

    def collect(
        self, folder: Path, *outputs: dict[str, Any], job: str = "j1", epoch: int = 1, succeeded: bool = True
    ) -> None:
        self.tell(*messages.collect(job, epoch, "alice", str(folder), outputs, succeeded))

    def hear(self, kind: type[Kind], that: Callable[[Any], bool] = lambda _: True) -> Kind:
        """The first of this kind that was not heard before. What else comes is kept."""
        until = time.monotonic() + DEADLINE_S
        while True:
            for said in self.heard:
                if isinstance(said, kind) and that(said):
                    self.heard.remove(said)
                    return said
            left = until - time.monotonic()
            assert left > 0, f"no {kind.__name__}, but {self.heard}"
            select.select([self.channel.fd], [], [], left)
            self.heard += map(messages.decode, self.channel.receive())
            assert not self.channel.closed or any(isinstance(said, kind) for said in self.heard), "the stager is gone"

    def staged(self, *inputs: dict[str, Any], **more: Any) -> Staged:
        self.stage(*inputs, **more)
        said = self.hear((Staged, NotStaged))  # type: ignore[arg-type]
        assert isinstance(said, Staged), said
        return said

    def not_staged(self, *inputs: dict[str, Any], **more: Any) -> NotStaged:
        self.stage(*inputs, **more)
        said = self.hear((Staged, NotStaged))  # type: ignore[arg-type]
        assert isinstance(said, NotStaged), said
        return said

    def collected(self, folder: Path, *outputs: dict[str, Any], **more: Any) -> Collected:
        self.collect(folder, *outputs, **more)
        said = self.hear((Collected, NotCollected))  # type: ignore[arg-type]
        assert isinstance(said, Collected), said
        return said

    def not_collected(self, folder: Path, *outputs: dict[str, Any], **more: Any) -> NotCollected:
        self.collect(folder, *outputs, **more)
        said = self.hear((Collected, NotCollected))  # type: ignore[arg-type]
        assert isinstance(said, NotCollected), said
        return said

    def drop(self, job: str = "j1", epoch: int = 1) -> None:
        self.tell(*messages.drop(job, epoch))

    def folder(self, job: str = "j1", epoch: int = 1) -> Path:
        """While it is there; else where none is."""
        return next((self.work_dir / "staged").glob(f"{job}.{epoch}~*"), self.work_dir / "staged" / "none")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.reap()

    def end(self) -> int:
        """Its exit status."""
        self.channel.close()
        return self.reap()

    def reap(self) -> int:
        if not self.pid:
            return 0
        until = time.monotonic() + DEADLINE_S
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < until, "it does not end"
            time.sleep(0.01)

    def clear(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()


StartStager = Callable[..., LiveStager]


@pytest.fixture
def hub() -> Iterator[FileHub]:
    made = FileHub()
    yield made
    made.close()


@pytest.fixture
def start_stager(tmp_path: Path, hub: FileHub) -> Iterator[StartStager]:
    started: list[LiveStager] = []

    def start(server: Endpoint | None = None, **setup: Any) -> LiveStager:
        started.append(LiveStager(tmp_path, server or endpoint(hub.url), **setup))
        return started[-1]

    yield start
    for each in started:
        each.clear()


@pytest.fixture
def stager(start_stager: StartStager) -> LiveStager:
    return start_stager()
