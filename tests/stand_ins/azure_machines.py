"""The machines of the stand-in for Azure Batch: tasks as processes, with what they wrote and how they ended."""

import os
import shlex
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stand_ins.azure_wire import now


@dataclass
class Task:
    spec: dict[str, Any]
    folder: Path
    state: str = "active"
    since: str = ""
    node: str = ""
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    failure: dict[str, Any] | None = None
    requeues: int = 0
    held: bool = False  # gets no node
    strange: str = ""  # shown instead of its state
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def id(self) -> str:
        return str(self.spec["id"])


@dataclass
class Node:
    id: str
    state: str = "idle"
    spot: bool = False
    errors: list[dict[str, Any]] = field(default_factory=list)
    start_task: dict[str, Any] | None = None


def start(task: Task, node: str, tmp: Path) -> None:
    wd = task.folder / "wd"
    tmp.mkdir(parents=True, exist_ok=True)
    wd.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(wd), "TMPDIR": str(tmp)}
    environment |= {"AZ_BATCH_TASK_DIR": str(task.folder), "AZ_BATCH_TASK_ID": task.id, "AZ_BATCH_NODE_ID": node}
    environment |= {one["name"]: one["value"] for one in task.spec.get("environmentSettings", ())}
    with (task.folder / "stdout.txt").open("wb") as out, (task.folder / "stderr.txt").open("wb") as err:
        argv = shlex.split(task.spec["commandLine"])
        task.process = subprocess.Popen(
            argv, cwd=wd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )


def complete(task: Task, code: int | None = None, failed: dict[str, Any] | None = None) -> None:
    task.state, task.ended, task.since = "completed", now(), now()
    task.exit_code, task.failure = code, failed
    for output in task.spec.get("outputFiles", ()) if task.node else ():
        container = output["destination"]["container"]
        base, _, query = container["containerUrl"].partition("?")
        for path in task.folder.glob("std*.txt"):
            url = f"{base}/{container['path']}/{path.name}?{query}"
            put = urllib.request.Request(url, path.read_bytes(), {"x-ms-blob-type": "BlockBlob"}, method="PUT")  # noqa: S310
            with suppress(OSError):
                urllib.request.urlopen(put, timeout=10).close()  # noqa: S310


def kill(task: Task) -> None:
    """Everything that carries the task's mark: what Azure does by its own means."""
    if task.process is None:
        return
    with suppress(ProcessLookupError):
        os.killpg(task.process.pid, signal.SIGKILL)
    task.process.wait()
    deadline = time.monotonic() + 10
    while (left := processes(task)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes(task: Task) -> list[int]:
    mark = f"AZ_BATCH_TASK_DIR={task.folder}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes() and (entry / "stat").read_text().rsplit(")")[-1][1] != "Z":
                    found.append(int(entry.name))
    return found
