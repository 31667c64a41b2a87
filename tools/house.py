"""A whole worker-manager in a temporary directory, started as a person would: for demo and measurements."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from worker_manager.hub_client import HubClient


class House:
    """Manager, embedded hub and local workers. Leaving the `with` block ends all of them, and `leftovers` names what
    did not go."""

    def __init__(self, pools: str, quiet: bool = True) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="worker-manager-"))
        self.state_dir = self.dir / "state"
        self.config = self.dir / "pools.yaml"
        self.config.write_text(pools)
        self._log = self.dir / "manager.log"
        self._quiet = quiet
        self._manager: subprocess.Popen[bytes] | None = None
        self.client: HubClient

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._manager = subprocess.Popen(
                self.command("run", "-c", str(self.config)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.client = self._connected()
        except BaseException:
            self.close()
            raise
        return self

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "worker_manager", "--state-dir", str(self.state_dir), *words]

    def run(self, *words: str) -> str:
        """A command line of ours, its output."""
        return subprocess.run(self.command(*words), check=True, capture_output=True, text=True).stdout

    def _connected(self) -> HubClient:
        found = self.state_dir / "hub.json"
        token = self.state_dir / "tokens" / "operator.token"
        wait_for(lambda: (found.exists() and token.exists()) or self._manager_died(), 30, "the hub to start")
        client = HubClient(json.loads(found.read_text())["url"], token_file=token)
        wait_for(lambda: bool(client.get("/v1/pools")["pools"]) or self._manager_died(), 30, "the first plan")
        return client

    def _manager_died(self) -> bool:
        if self._manager is not None and self._manager.poll() is not None:
            raise RuntimeError(f"the manager ended with {self._manager.returncode}:\n{self.log()}")
        return False

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def jobs(self, **query: Any) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self.client.get(
                "/v1/jobs", params={**query, "limit": 1000, **({"cursor": cursor} if cursor else {})}
            )
            yield from page["jobs"]
            cursor = page["next"]
            if not cursor:
                return

    def close(self) -> None:
        if self._manager and self._manager.poll() is None:
            self._manager.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._manager.wait(20)
            self._manager.kill()
            self._manager.wait()
        subprocess.run(self.command("hub", "stop"), check=False, capture_output=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self.leftovers = self._end_what_is_left()
        shutil.rmtree(self.dir, ignore_errors=True)

    def processes(self) -> list[tuple[int, str]]:
        """Every live process of this house: its directory stands in their command line or environment."""
        mark = os.fsencode(str(self.dir))
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if mark in line or mark in (entry / "environ").read_bytes():
                    found.append((int(entry.name), line.replace(b"\0", b" ").decode(errors="replace").strip()))
        return found

    def _end_what_is_left(self) -> list[str]:
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [f"{pid} {line}" for pid, line in left]


def wait_for(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.02) -> Any:
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


POOL = """\
version: 1
pools:
  - name: local
    backend: local
    min-workers: {min}
    max-workers: {max}
    shape: {{cpus: {cpus}, memory: {memory}}}
    limits: {{idle: {idle}, stabilise: 0s}}
"""


def local_pool(min_workers: int, max_workers: int, cpus: int, memory: str = "1GiB", idle: str = "10m") -> str:
    return POOL.format(min=min_workers, max=max_workers, cpus=cpus, memory=memory, idle=idle)
