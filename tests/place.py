"""A worker-manager as a person has it: a state directory, commands on it, and the processes that they leave behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker_manager.errors import SourceUnavailable
from worker_manager.hub import discovery
from worker_manager.hub_client import HubClient

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 60.0  # only a failing test waits this long


def until(
    condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = DEADLINE_S, every: float = 0.03
) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        late = time.monotonic() > deadline
        assert not late, f"waited {seconds:g} s for {what if isinstance(what, str) else what()}"
        time.sleep(every)
    return value


@dataclass
class Place:
    state_dir: Path
    environment: dict[str, str] = field(default_factory=dict)  # of every command, beside ours
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    # ------------------------------------------------------------ commands

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "worker_manager", "--state-dir", str(self.state_dir), *words]

    def call(self, *words: str, stdin: str = "", timeout: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
        """A command to its end, whatever that is."""
        return subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=timeout,
            env=self._env(),
        )

    def run(self, *words: str, code: int = 0, stdin: str = "") -> str:
        """Its output; with what it said to the person when it was meant to fail."""
        done = self.call(*words, stdin=stdin)
        assert done.returncode == code, done
        return done.stdout if code == 0 else done.stdout + done.stderr

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """In the background, its output in the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(self.command(*words), stdout=log, stderr=log, cwd=ROOT, env=self._env())
        self.started.append(process)
        return process

    def _env(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    @property
    def log(self) -> Path:
        return self.state_dir.parent / "manager.log"

    def said(self, text: str) -> bool:
        return self.log.exists() and text in self.log.read_text()

    def leads(self) -> bool:
        return self.said("This manager leads")

    def manage(self, *words: str) -> subprocess.Popen[bytes]:
        """A manager that leads, and whose hub answers."""
        self.log.write_text("")
        process = self.start(*words)
        until(lambda: self.leads() or process.poll() is not None, "a manager that leads")
        assert process.poll() is None, self.log.read_text()
        return process

    def pools(self, text: str) -> str:
        """A configuration file with this content; its name."""
        file = self.state_dir.parent / "pools.yaml"
        file.write_text(text)
        return str(file)

    # ------------------------------------------------------------ what the hub says

    def hub(self) -> discovery.RunningHub | None:
        return discovery.find(self.state_dir) if self.state_dir.exists() else None

    def client(self) -> HubClient:
        hub = self.hub()
        assert hub is not None, "no hub runs"
        return HubClient(hub.url, token=discovery.read_token(self.state_dir, "operator"))

    def ask(self, path: str, **params: Any) -> Any:
        """Straight from the hub, where it runs: a command each time would make waiting slow."""
        if self.hub() is None:
            return {}
        with contextlib.suppress(SourceUnavailable):
            return self.client().get(path, params=params)
        return {}

    def items(self, kind: str, **params: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(f"/v1/{kind}", **params).get(kind, [])
        return found

    def job(self, id: str) -> dict[str, Any]:
        return {"state": "unknown", **self.ask(f"/v1/jobs/{id}")}

    def workers(self, *states: str) -> list[dict[str, Any]]:
        """Those in these states; without any, those that are not gone."""
        found = self.items("workers")
        return [one for one in found if (one["state"] in states if states else one["state"] != "gone")]

    def events(self, kind: str = "", subject: str = "") -> list[dict[str, Any]]:
        asked = {name: value for name, value in (("kind", kind), ("subject", subject)) if value}
        found: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            page = self.client().get("/v1/events", params={**asked, "limit": 1000, "after": after})
            found += page["events"]
            after = page["next"]
            if len(page["events"]) < 1000:
                return found

    def submit(self, *words: str) -> str:
        (job,) = self.run("submit", *words).split()
        return job

    def reaches(self, job: str, *states: str, seconds: float = DEADLINE_S) -> dict[str, Any]:
        """The job once it is in one of these states."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(self.job(job))
            return found["state"] in states

        until(there, f"{job} to be {' or '.join(states)}", seconds)
        return found

    # ------------------------------------------------------------ processes

    def processes(self) -> dict[int, str]:
        """Every live process of this place: its directory stands in their command line or environment."""
        mark = os.fsencode(self.state_dir)
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                line = (entry / "cmdline").read_bytes()
                if mark in line + (entry / "environ").read_bytes():
                    found[pid] = line.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        process.send_signal(number)
        return process.wait(DEADLINE_S)

    def empty(self) -> None:
        until(lambda: not self.processes(), lambda: f"every process to be gone: {self.processes()}")

    def clear(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def a_place(folder: Path) -> Iterator[Place]:
    """For fixtures: nothing of it is left afterwards."""
    made = Place(folder / "state")
    try:
        yield made
    finally:
        made.clear()


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
