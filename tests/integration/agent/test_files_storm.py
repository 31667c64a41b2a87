"""Stagers that are killed again and again while many jobs need them: each job still ends once, with the right files."""

import hashlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.integration.blob_wire import Sender

JOBS, DEATHS = 60, 5  # no more than a job may go back without harm
SCRIPT = "sleep 0.2; mkdir out; cat shared own > out/both; echo $WM_JOB > out/name"


def stager_of(pid: int) -> int:
    """0 while there is none."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if b"worker.staging" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        except OSError:
            continue
    return 0


def test_each_job_ends_once_with_its_files(hub: Any, join: Any, eventually: Any) -> None:
    agent = join(hub, hub.token("worker"), "--cpus", "4")
    alice = Sender(hub)
    shared = os.urandom(300_000)
    inputs = [{"to": "shared", "source": f"blob:{alice.send(shared)}"}]
    own = {}
    for number in range(JOBS):
        data = os.urandom(50_000 + number)
        mine = {"to": "own", "source": f"blob:{alice.send(data)}"}
        job = hub.submit("sh", "-c", SCRIPT, by=alice.token, inputs=[*inputs, mine], outputs=[{"glob": "out/**"}])
        own[job] = data
    deaths = 0
    chance = random.Random(7)  # noqa: S311
    for _ in range(DEATHS):
        stager = eventually(lambda: stager_of(agent.pid), "a stager")
        time.sleep(chance.random() * 0.3)  # anywhere in its work: no moment is the right one
        before = min(ended(hub), JOBS - 1)
        os.kill(stager, signal.SIGKILL)
        eventually(lambda before=before: ended(hub) > before, "some job to come through", 60)
        deaths += 1
        if ended(hub) == JOBS:
            break
    assert deaths > 1
    eventually(lambda: ended(hub) == JOBS, "all", 60)
    for job, data in own.items():
        shown = hub.get(f"/v1/jobs/{job}")
        assert shown["state"] == "succeeded", shown
        rows = {row["path"]: row for row in hub.get(f"/v1/jobs/{job}/files")["files"]}
        assert set(rows) == {"out/both", "out/name"}
        assert rows["out/both"]["sha256"] == hashlib.sha256(shared + data).hexdigest()
    assert agent.poll() is None


def ended(hub: Any) -> int:
    rows = hub.get("/v1/jobs?limit=200")["jobs"]
    return sum(row["state"] in ("succeeded", "failed", "cancelled") for row in rows)
