"""Addresses that a hub has signed, for what a job fetches and keeps, stand in no log, argument, environment, file or
event, nor in what the hub tells of a job; and the job, which looks around, finds none either."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.lying_proxy import LyingProxy
from tests.integration.blob_wire import Sender
from tests.place import ROOT, until

LOOKS = """
for each in /proc/[0-9]*; do cat $each/environ $each/cmdline; ls -l $each/fd; done 2>/dev/null
env; find "$1" -type f -exec cat {} + 2>/dev/null
mkdir -p out; head -c 300000 /dev/urandom > out/kept; cat taken | wc -c
"""


@pytest.fixture
def between(hub: Any) -> Iterator[LyingProxy]:
    proxy = LyingProxy(hub.url)
    proxy.remembers = "/grants"
    yield proxy
    proxy.close()


@pytest.fixture
def worker(hub: Any, between: LyingProxy, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    token = tmp_path / "token"
    token.write_text(hub.token("worker"))
    token.chmod(0o600)
    argv = [sys.executable, "-m", "worker", "--server", between.url, "--token-file", str(token), "--cpus", "1"]
    argv += ["--worker-id", "w-1", "--work-dir", str(tmp_path / "work"), "--log-format", "json"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with (tmp_path / "agent.log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=log)
    yield process
    process.kill()
    process.wait()


def seen_of_processes(pid: int) -> bytes:
    """Arguments and environments of it and its descent; some come and go."""
    seen = b""
    with contextlib.suppress(OSError):
        for name in ("cmdline", "environ"):
            seen += Path(f"/proc/{pid}/{name}").read_bytes()
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            seen += seen_of_processes(int(child))
    return seen


def test_they_are_seen_nowhere(
    hub: Any, between: LyingProxy, worker: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    alice = Sender(hub)
    blob = alice.send(b"x" * 300_000)
    job = hub.submit(
        *("sh", "-c", LOOKS, "sh", str(tmp_path / "work")),
        by=alice.token,
        inputs=[{"to": "taken", "source": f"blob:{blob}"}],
        outputs=[{"glob": "out/*"}],
    )
    damaged = alice.send(b"y" * 5000)
    for file in (hub.state_dir / "blobs").rglob(f"*{damaged}*"):
        file.unlink()
    lost = hub.submit("true", by=alice.token, inputs=[{"to": "x", "source": f"blob:{damaged}"}])
    around = b""

    def is_over() -> bool:
        nonlocal around
        around += seen_of_processes(worker.pid)
        return all(hub.get(f"/v1/jobs/{each}")["state"] in ("succeeded", "failed") for each in (job, lost))

    until(is_over, lambda: f"the jobs to end: {hub.get(f'/v1/jobs/{job}')}")
    shown = hub.get(f"/v1/jobs/{job}")
    assert shown["state"] == "succeeded", shown
    assert (hub.get(f"/v1/jobs/{job}/files")["files"][0]["size"]) == 300_000
    answers = b"".join(between.remembered).decode()
    signed = set(re.findall(r"signature=([\w%-]{20,})", answers))
    assert len(signed) >= 3, "two to fetch, one to send"
    assert hub.get(f"/v1/jobs/{lost}")["text"], "it says why it did not succeed"

    looked = hub.output(job)
    assert looked.rstrip().endswith(b"300000")
    told = [
        hub.get(path) for path in (f"/v1/jobs/{job}", f"/v1/jobs/{lost}", f"/v1/jobs/{job}/files", "/v1/workers/w-1")
    ]
    events = hub.get("/v1/events", params={"limit": 1000})
    assert [each["kind"] for each in events["events"]].count("job.ended") >= 2
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"hub.log", "agent.log", "hub.sqlite"} <= {path.name for path in files}
    places = {str(path): path.read_bytes() for path in files}
    places |= {"processes": around, "what the job found": looked, "answers": json.dumps([told, events]).encode()}
    hits = [where for where, text in places.items() for each in signed if each.encode() in text]
    assert hits == []
