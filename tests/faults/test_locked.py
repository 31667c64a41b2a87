"""A database that another process keeps locked: a bounded wait, a refusal that says what to do, and no loss after."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.hubs import MortalHub
from tests.faults.sites import CALL, Crowd, Site
from tests.place import Place, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings

HOLD = """\
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""
UNUSABLE = 74
BUSY_MS = 1_000


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """By a process of its own, as a backup tool or a person with `sqlite3` would."""
    command = [sys.executable, "-c", HOLD, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdin
        assert holder.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait(30)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[MortalHub]:
    made = MortalHub(tmp_path / "hub", busy_ms=BUSY_MS)
    made.start()
    yield made
    made.close()


def test_a_locked_hub_refuses_after_a_bounded_wait_and_loses_nothing(hub: MortalHub, wire_worker: Any) -> None:
    """What was refused is sent again as it was, and is taken once. What is only read goes on."""
    database = hub.state_dir / "hub.sqlite"
    worker = wire_worker(hub, hub.token("worker"))
    running = hub.submit("cat")
    assignment = worker.take()
    result = {"job": running, "epoch": assignment["epoch"], "outcome": "succeeded", "run_ms": 5}
    report = {"session": worker.session, "seq": worker.seq + 1, "results": [result], "running": 0}

    def submit(number: int) -> Any:
        body = {"jobs": [{"command": ["true"], "name": f"job {number}"}]}
        return hub.call("POST", "/v1/jobs", body, headers={"Idempotency-Key": f"job-{number}"})

    with locked(database), ThreadPoolExecutor(8) as clients:
        began = time.monotonic()
        asked = [clients.submit(submit, number) for number in range(6)]
        asked.append(clients.submit(worker.call, "report", report))
        assert hub.get(f"/v1/jobs/{running}")["state"] == "running"
        replies = [each.result() for each in asked]
        waited = time.monotonic() - began
        for reply in replies:
            assert reply.status_code == 503, reply.text
            assert "kept locked by another process" in reply.json()["detail"]
            assert reply.headers["Retry-After"]
        assert BUSY_MS / 1000 <= waited < 10, "one wait for those before, one of its own, and load"
        assert hub.call("GET", "/healthz", by=None).status_code == 503

    until(lambda: hub.call("GET", "/healthz", by=None).status_code == 200, "the hub to write again")
    assert [job["id"] for job in hub.jobs()] == [running]
    assert [worker.call("report", report).json()["ack"] for _ in range(2)] == [report["seq"]] * 2
    assert hub.get(f"/v1/jobs/{running}")["state"] == "succeeded"
    taken = [submit(number).json() for number in range(6)]
    assert [submit(number).json() for number in range(6)] == taken
    assert len(hub.jobs()) == 7
    assert hub.process.poll() is None


def test_nothing_begins_on_a_locked_database(hub: MortalHub, place: Place) -> None:
    """Neither a hub nor a manager; each says what it waits for."""
    hub.kill()
    site = Site(place, "begins")
    discovery.start(HubSettings(place.state_dir))
    site.manage(*CALL)
    until(site.leads, "the manager to make its ledger")
    site.kill()
    with locked(hub.state_dir / "hub.sqlite"), locked(site.home / "ledger-begins.db"):
        hub.begin()
        site.manage(*CALL, "--busy-s", "1")
        assert hub.ended() == UNUSABLE
        assert site.manager.wait(60) == UNUSABLE
    assert "kept locked by another process" in hub.said()
    assert site.said("is locked by another process: end that one")
    hub.start()
    site.manage(*CALL)
    until(lambda: site.said("This manager leads") == 2, "the manager to lead")


def test_with_a_locked_ledger_nothing_is_launched_and_nobody_gives_up(place: Place) -> None:
    """Neither the leader nor the one that stands by."""
    discovery.start(HubSettings(place.state_dir))
    site = Site(place, "waits")
    crowd = Crowd(place, [site])
    short = ("--busy-s", "0.5")
    leader = site.manage(*CALL, *short)
    until(lambda: place.items("pools"), "the first plan")
    heir = site.manage(*CALL, *short, "--stand-by", "--lease-ms", "3000")
    until(lambda: site.said("this one stands by") > 0, "the other to stand by")
    with locked(site.home / "ledger-waits.db"):
        job = site.submit()
        until(lambda: site.said("The ledger cannot be written, so nothing is launched"), "the leader to say so")
        until(lambda: any("stands by" in line and "locked" in line for line in site.lines()), "the other to see it")
        assert site.processes() == []
        assert place.job(job)["state"] == "queued"
    crowd.until_all_run()
    assert (leader.poll(), heir.poll()) == (None, None)
    leader.kill()
    until(lambda: site.said("This manager leads") == 2, "the other to lead")
    site.gate.touch()
    place.reaches(job, "succeeded")
    crowd.until_nothing_is_left()
    assert len(site.ready_events()) == site.workers
