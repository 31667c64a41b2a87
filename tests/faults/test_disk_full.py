"""A full disk under database, output or ledger: nothing is acknowledged that is not kept, nothing is launched that is
not written; with room again it goes on."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.faults.sites import CALL, Crowd, Site
from tests.place import Place, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings

SmallDisk = Callable[[Path], Path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mounts one on a folder."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(needs.small_disk(folder, "6m"))


def fill(folder: Path) -> Path:
    """To the last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def is_sound(database: Path) -> bool:
    with closing(sqlite3.connect(database)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def output_of(job: str, assignment: Any, worker: Any) -> dict[str, Any]:
    chunk = {"job": job, "epoch": assignment["epoch"], "offset": 0, "text": "x" * 100_000}
    return {"session": worker.session, "seq": worker.seq + 1, "logs": [chunk]}


def test_a_full_database_refuses_and_recovers(
    small_disk: SmallDisk, tmp_path: Path, start_hub: Any, wire_worker: Any
) -> None:
    disk = small_disk(tmp_path / "hub")
    hub = start_hub()
    worker = wire_worker(hub, hub.token("worker"))
    running = hub.submit("cat")
    body = output_of(running, worker.take(), worker)
    filler = fill(disk)

    acknowledged = []
    big = {"jobs": [{"command": ["true", "x" * 20_000]}]}

    def refused() -> bool:
        reply = hub.call("POST", "/v1/jobs", big)
        if reply.status_code == 201:
            acknowledged.append(reply.json()["jobs"][0]["id"])
            return False
        assert reply.status_code == 503, reply.text
        assert reply.headers["Retry-After"]
        return True

    for _ in range(3):
        until(refused, "the disk to be full")
    assert worker.call("report", body).status_code == 503
    assert hub.call("GET", "/healthz", by=None).status_code == 503

    filler.unlink()
    until(lambda: hub.call("GET", "/healthz", by=None).status_code == 200, "the hub to write again")
    assert worker.call("report", body).status_code == 200
    assert hub.call("GET", f"/v1/jobs/{running}/logs").content == b"x" * 100_000
    listed = {job["id"] for job in hub.get("/v1/jobs", params={"limit": 1000})["jobs"]}
    assert listed == {running, *acknowledged}
    hub.restart()
    assert {job["id"] for job in hub.get("/v1/jobs", params={"limit": 1000})["jobs"]} == listed
    discovery.stop(hub.state_dir)
    assert is_sound(hub.state_dir / "hub.sqlite")


def test_full_output_is_refused_and_everything_else_goes_on(
    small_disk: SmallDisk, tmp_path: Path, start_hub: Any, wire_worker: Any
) -> None:
    """Output has a disk of its own here: the hub takes jobs and results, and a worker keeps what it could not send."""
    disk = small_disk(tmp_path / "hub" / "logs")
    hub = start_hub()
    worker = wire_worker(hub, hub.token("worker"))
    running = hub.submit("cat")
    assignment = worker.take()
    worker.report(logs=[{"job": running, "epoch": assignment["epoch"], "offset": 0, "text": "before "}])
    filler = fill(disk)

    chunk = {"job": running, "epoch": assignment["epoch"], "offset": 7, "text": "x" * 100_000}
    body = {"session": worker.session, "seq": worker.seq + 1, "logs": [chunk]}
    for _ in range(3):
        reply = worker.call("report", body)
        assert (reply.status_code, reply.json()["code"]) == (503, "logs-unwritable")
        assert reply.headers["Retry-After"]
    assert hub.call("GET", f"/v1/jobs/{running}/logs").content == b"before "
    assert hub.call("GET", "/healthz", by=None).status_code == 200
    hub.submit("true")

    filler.unlink()
    assert worker.call("report", body).status_code == 200
    worker.seq += 1
    worker.finish(assignment)
    assert hub.get(f"/v1/jobs/{running}")["state"] == "succeeded"
    hub.restart()
    assert hub.call("GET", f"/v1/jobs/{running}/logs").content == b"before " + b"x" * 100_000


def test_a_full_ledger_launches_nothing_and_goes_on_with_room(
    small_disk: SmallDisk, tmp_path: Path, place: Place
) -> None:
    """The manager and its lease live on. Another that wants to begin is told what to do."""
    found = discovery.start(HubSettings(place.state_dir))
    token = discovery.token_file(place.state_dir, "manager")
    hub = f"hub: {{server: '{found.url}', token-file: '{token}'}}"
    site = Site(place, "full", hub=hub, state_dir=small_disk(place.state_dir / "manager"))
    site.manage(*CALL)
    until(lambda: place.items("pools"), "the first plan")
    filler = fill(site.home)
    job = site.submit()
    until(lambda: site.said("is full: make room; nothing is launched meanwhile") > 0, "the ledger to be full")
    assert place.job(job)["state"] == "queued"
    assert site.processes() == []
    assert place.events("launch.claimed") == []
    assert not site.dead()

    other = Site(place, "other", hub=hub, state_dir=site.home)
    other.manage(*CALL)
    assert other.manager.wait(60) == 74
    assert other.said("is full: make room")

    filler.unlink()
    crowd = Crowd(place, [site])
    crowd.until_all_run()
    site.gate.touch()
    place.reaches(job, "succeeded")
    crowd.until_nothing_is_left()
    assert len(site.ready_events()) == site.workers
    assert site.said("This manager leads") == 1
    place.end(site.manager)
    assert is_sound(site.home / "ledger-full.db")
