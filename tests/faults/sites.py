"""One manager with one local pool and a queue of its own, on a hub that several share: so that a test can let many of
them meet their fate at the same time."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.place import DEADLINE_S, ROOT, Place, until

CONFIG = """\
version: 1
manager: {{id: {name}, tick: 1s}}
{hub}
pools:
  - name: {name}
    backend: local
    max-workers: {workers}
    queues: [{name}]
    shape: {{cpus: 100m, memory: 64MiB}}
    limits: {{idle: {idle}, stabilise: 0s, cooldown-down: 0s}}
    worker: {{{worker}}}
"""
CALL = ("--call-ms", "1000")  # intents whose call was never made are given up some seconds earlier than by default


@dataclass
class Site:
    place: Place
    name: str
    workers: int = 2  # as many as it may have, and as many as it gets jobs
    idle: str = "1s"
    worker: str = ""  # of the pool's `worker:`
    hub: str = ""  # the `hub:` section, where it is not the place's own
    state_dir: Path | None = None  # of the manager, where it is not the place's
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    # ------------------------------------------------------------ its manager

    @property
    def home(self) -> Path:
        return self.state_dir or self.place.state_dir

    @property
    def config(self) -> Path:
        return self.place.state_dir.parent / f"{self.name}.yaml"

    def write_config(self) -> Path:
        values = {"name": self.name, "workers": self.workers, "idle": self.idle, "worker": self.worker}
        self.config.write_text(CONFIG.format(hub=self.hub, **values))
        return self.config

    def manage(self, *words: str, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """A mortal manager; `before` stands before its command line."""
        command = [*before, sys.executable, "-m", "tests.faults.mortal", str(self.write_config()), *words]
        environment = {**os.environ, "WORKER_MANAGER_STATE_DIR": str(self.home)}  # also marks it as the place's
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=environment
            )
        self.started.append(process)
        self.place.started.append(process)
        return process

    @property
    def log(self) -> Path:
        return self.place.state_dir.parent / f"{self.name}.log"

    def said(self, text: str) -> int:
        """How often its log says it."""
        return self.log.read_text().count(text) if self.log.exists() else 0

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def leads(self) -> bool:
        return self.said("This manager leads") > 0

    @property
    def manager(self) -> subprocess.Popen[bytes]:
        return self.started[-1]

    def dead(self) -> bool:
        return self.manager.poll() is not None

    # ------------------------------------------------------------ its jobs

    @property
    def gate(self) -> Path:
        """Its jobs run until this file exists."""
        return self.place.state_dir.parent / f"{self.name}.gate"

    def job(self, count: int | None = None) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "command": ["sh", "-c", f"while [ ! -e '{self.gate}' ]; do sleep 0.1; done"],
            "queue": self.name,
            "resources": {"cpus": 100, "memory": 32 * 2**20},
            "retries": 0,
        }
        return {**spec, "array": {"count": count}} if count else spec

    def submit(self, count: int | None = None) -> str:
        """An array of as many jobs as it may have workers, or of `count`."""
        made = self.place.client().post("/v1/jobs", {"jobs": [self.job(count or self.workers)]})
        return str(made["jobs"][0]["id"])

    # ------------------------------------------------------------ what there is

    def ready_events(self) -> list[str]:
        """Every worker of it that was ever admitted."""
        return [one["subject"] for one in self.place.events("worker.ready") if one["data"]["pool"] == self.name]

    def ledger(self, query: str) -> list[Any]:
        """From the file, behind the manager's back. One that has no tables yet leaves every question open."""
        path = self.home / f"ledger-{self.name}.db"
        if not path.exists():
            return []
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            return [("being made", str(error), "")]
        finally:
            connection.close()

    def unresolved(self) -> list[Any]:
        """What its ledger still wonders about."""
        return [
            *self.ledger("SELECT 'open intent', id, state FROM intents WHERE closed_at IS NULL"),
            *self.ledger("SELECT 'call without outcome', id, pool FROM submissions WHERE outcome IS NULL"),
            *self.ledger("SELECT 'announced', submission, pool FROM announcements"),
        ]

    def processes(self) -> list[int]:
        """Of its workers and their jobs."""
        folder = os.fsencode(self.home / "managers" / self.name / "pools")
        mark = b"WM_WORKER_DIR=" + folder + b"/"
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def kill(self) -> None:
        """-9, where it has not died by itself."""
        for pid in self.managers():
            os.kill(pid, signal.SIGKILL)
        self.manager.wait(DEADLINE_S)

    def managers(self) -> list[int]:
        """Processes that are managers of this site, also behind a tracer."""
        mark = os.fsencode(str(self.config)) + b"\0"
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if mark in (entry / "cmdline").read_bytes() and (entry / "exe").readlink().name != "strace":
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


class Crowd:
    """Sites on one place, looked at together: at no look has one of them more workers than it may have."""

    def __init__(self, place: Place, sites: Iterable[Site]) -> None:
        self.place = place
        self.sites = list(sites)

    def admitted(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {site.name: [] for site in self.sites}
        for worker in self.place.workers("ready", "draining"):
            if worker["pool"] in found:
                found[worker["pool"]].append(worker["id"])
        for site in self.sites:
            assert len(found[site.name]) <= site.workers, f"{site.name} has too many workers: {found[site.name]}"
        return found

    def running(self) -> dict[str, int]:
        self.admitted()
        found = {site.name: 0 for site in self.sites}
        for worker in self.place.workers():
            if worker["pool"] in found:
                found[worker["pool"]] += worker["running"]
        return found

    def until_all_run(self) -> None:
        """As many jobs as each may have workers."""
        wanted = {site.name: site.workers for site in self.sites}
        until(lambda: self.running() == wanted, lambda: f"all jobs to run: {self.running()}, {self.told()}", every=0.2)

    def until_nothing_is_left(self) -> None:
        """No worker, no question open, no process."""
        until(
            lambda: not any(self.admitted().values()) and not any(site.unresolved() for site in self.sites),
            lambda: f"every intent to be resolved: {[site.unresolved() for site in self.sites]}, {self.told()}",
            every=0.2,
        )
        until(
            lambda: not any(site.processes() for site in self.sites),
            lambda: f"no process of a worker: { {site.name: site.processes() for site in self.sites} }",
            every=0.2,
        )

    def told(self) -> str:
        """The ends of their logs, for the person who reads a failed test."""
        return "\n".join(f"{site.name}: {site.log.read_text()[-1500:]}" for site in self.sites if site.log.exists())
