"""The machines of the stand-in for Auto Scaling: each a process tree of this one, with its own metadata service."""

import gzip
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from backends.local import processes
from tests.stand_ins import aws_identity

REGION = "us-east-1"
ROLE = "workers"
MARK = "WM_HOME"  # by this variable the processes of an instance are found
SHUTDOWN_S = 20.0  # for processes that were asked to end


class Cloud(Protocol):
    """What machines need to know of where they are."""

    folder: Path
    shared: Path
    people: aws_identity.Cloud

    @property
    def url(self) -> str: ...

    def tags_of(self, instance: str) -> Mapping[str, str]: ...


class Machine:
    """One instance: its processes, its console, its metadata."""

    def __init__(self, aws: Cloud, id: str, group: str) -> None:
        self.id = id
        self.group = group
        self.folder = aws.folder / id
        self.console = self.folder / "console"
        self._aws = aws
        self._process: subprocess.Popen[bytes] | None = None
        self._metadata: Metadata | None = None

    def boot(self, user_data: bytes) -> None:
        self.folder.mkdir(exist_ok=True)
        script = self.folder / "user-data"
        script.write_bytes(gzip.decompress(user_data) if user_data[:2] == b"\x1f\x8b" else user_data)
        self._metadata = Metadata(self._aws, self)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self._aws.shared),
            MARK: str(self.folder / "home"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._metadata.url,
            "AWS_ENDPOINT_URL": self._aws.url,
        }
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                ["/bin/sh", str(script)],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pids(self) -> set[int]:
        mark = os.fsencode(f"{MARK}={self.folder}/home\0")
        return {pid for pid in processes.table() if mark in seen_of(pid, "environ")}

    def shut_down(self, politely: bool) -> None:
        """As systemd does: TERM to the service's first process, and after a while KILL to all."""
        if self._process is not None:
            if politely and self.running:
                self._process.send_signal(signal.SIGTERM)
                end = time.monotonic() + SHUTDOWN_S
                while self.running and time.monotonic() < end:
                    time.sleep(0.02)
            mark = os.fsencode(f"{MARK}={self.folder}/home\0")
            processes.end_all(lambda table: {pid for pid in table if mark in seen_of(pid, "environ")})
            self._process.wait()
        if self._metadata is not None:
            self._metadata.close()
            self._metadata = None


class Metadata(aws_identity.FakeMetadata):
    def __init__(self, aws: Cloud, machine: Machine) -> None:
        self._aws, self._machine = aws, machine
        identity = aws.people.instance(machine.id, role=ROLE)
        super().__init__(identity, REGION)

    def _tree(self) -> dict[str, str]:
        tags = self._aws.tags_of(self._machine.id)
        prefix = "/latest/meta-data/tags/instance/"
        state = {"/latest/meta-data/autoscaling/target-lifecycle-state": "InService"}
        return super()._tree() | state | {prefix + key: value for key, value in tags.items()}


def seen_of(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
