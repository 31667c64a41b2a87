"""A hub that is the test's own child: it may die, its exit code is known, and it is started again where it was."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.conftest import LiveHub
from tests.place import DEADLINE_S, ROOT, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings


class MortalHub(LiveHub):
    def __init__(self, state_dir: Path, **settings: Any) -> None:
        self.settings = HubSettings(state_dir, **settings)
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state_dir / discovery.SETTINGS).write_text(self.settings.to_json())

    def begin(self, *before: str) -> None:
        """Without waiting for it; `before` stands before its command line."""
        with (self.state_dir / discovery.LOG).open("ab") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "worker_manager.hub", str(self.state_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def start(self, *before: str) -> None:
        self.begin(*before)
        until(lambda: self.is_ready() or self.process.poll() is not None, "the hub to be ready")
        assert self.process.poll() is None, discovery.tail(self.state_dir)

    def is_ready(self) -> bool:
        found = discovery.find(self.state_dir, 1.0)
        if found is not None:
            self.found = found
        return found is not None

    def kill(self) -> None:
        """-9, and until nothing of it is left."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(DEADLINE_S)

    def described(self) -> str:
        """For the person who reads a failed test."""
        found = discovery.recorded(self.state_dir)
        return f"exit code {self.process.poll()}, recorded as {found}, said {self.said()[-2000:]}"

    def said(self) -> str:
        return (self.state_dir / discovery.LOG).read_text()

    def jobs(self) -> list[dict[str, Any]]:
        """Every job, oldest first."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.get("/v1/jobs", params={"limit": 1000, **({"cursor": cursor} if cursor else {})})
            found += page["jobs"]
            cursor = page["next"]
            if not cursor:
                return found[::-1]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


__all__: Sequence[str] = ["MortalHub"]
