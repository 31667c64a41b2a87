"""A full disk under the hub: 503, nothing is acknowledged that is not kept; with room again it goes on."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MOUNT = ["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "hub"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run([*MOUNT, str(folder)], capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_refuses_and_recovers(small_disk: Path, start_hub: Any, wire_worker: Any) -> None:
    hub = start_hub()
    worker = wire_worker(hub, hub.token("worker"))
    running = hub.submit("cat")
    assignment = worker.take()
    filler = fill(small_disk)

    acknowledged, refused = [], 0
    big = {"jobs": [{"command": ["true", "x" * 20_000]}]}
    until = time.monotonic() + 30
    while refused < 3 and time.monotonic() < until:
        reply = hub.call("POST", "/v1/jobs", big)
        if reply.status_code == 201:
            acknowledged.append(reply.json()["jobs"][0]["id"])
        else:
            refused += 1
            assert reply.status_code == 503, reply.text
            assert reply.headers["Retry-After"]
    assert refused == 3
    chunk = {"job": running, "epoch": assignment["epoch"], "offset": 0, "text": "x" * 100_000}
    body = {"session": worker.session, "seq": worker.seq + 1, "logs": [chunk]}
    assert worker.call("report", body).status_code == 503
    assert hub.call("GET", "/healthz", by=None).status_code == 503

    filler.unlink()
    until = time.monotonic() + 30
    while hub.call("GET", "/healthz", by=None).status_code != 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert worker.call("report", body).status_code == 200
    assert hub.call("GET", f"/v1/jobs/{running}/logs").content == b"x" * 100_000
    listed = {job["id"] for job in hub.get("/v1/jobs", params={"limit": 1000})["jobs"]}
    assert listed == {running, *acknowledged}
    hub.restart()
    assert {job["id"] for job in hub.get("/v1/jobs", params={"limit": 1000})["jobs"]} == listed
