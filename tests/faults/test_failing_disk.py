"""A disk that does not keep what it was given: the process ends, and nothing that was lost had been acknowledged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.faults.hubs import MortalHub
from tests.faults.sites import CALL, Crowd, Site
from tests.faults.tracing import injected
from tests.place import Place, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings

BROKEN = 74
FAILS = {
    "fdatasync": "fdatasync:error=EIO",
    "fdatasync later": "fdatasync:error=EIO:when=2+",  # per thread: the first commit is kept
    "pwrite64": "pwrite64:error=EIO",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[MortalHub]:
    made = MortalHub(tmp_path / "hub")
    made.start()
    yield made
    made.close()


def submit(hub: MortalHub, key: str) -> str | None:
    """The job's id where it was acknowledged. A repeat with the same key is the same job."""
    try:
        reply = hub.call("POST", "/v1/jobs", {"jobs": [{"command": ["true"]}]}, headers={"Idempotency-Key": key})
    except requests.RequestException:
        return None
    assert reply.status_code in (201, 503), reply.text
    return str(reply.json()["jobs"][0]["id"]) if reply.status_code == 201 else None


@pytest.mark.parametrize("fails", FAILS)
def test_a_hub_whose_disk_fails_acknowledges_nothing_more_and_ends(
    hub: MortalHub, wire_worker: Any, fails: str
) -> None:
    """Started again it has all that was acknowledged; what was not is sent again, and taken once."""
    worker = wire_worker(hub, hub.token("worker"))
    running = hub.submit("cat")
    assignment = worker.take()
    acknowledged = {f"before-{number}": submit(hub, f"before-{number}") for number in range(5)}
    assert None not in acknowledged.values()
    with injected(hub.pid, FAILS[fails]):
        refused = []
        number = 0
        while hub.process.poll() is None and number < 1000:
            number += 1
            job = submit(hub, f"after-{number}")
            if job:
                acknowledged[f"after-{number}"] = job
            else:
                refused.append(f"after-{number}")
        assert hub.ended() == BROKEN
    assert refused
    assert "look at the disk and the kernel's log" in hub.said()
    assert "later" in fails or len(acknowledged) == 5

    hub.start()
    assert set(acknowledged.values()) | {running} <= {job["id"] for job in hub.jobs()}
    again = {key: submit(hub, key) for key in [*acknowledged, *refused]}
    assert {key: again[key] for key in acknowledged} == acknowledged
    assert sorted([running, *filter(None, again.values())]) == sorted(job["id"] for job in hub.jobs())
    worker.finish(assignment)
    assert hub.get(f"/v1/jobs/{running}")["state"] == "succeeded"


def test_output_that_is_not_kept_is_not_acknowledged_and_goes_elsewhere(hub: MortalHub, wire_worker: Any) -> None:
    """Its segment is not written to any more: after a failed sync nobody knows what is in it."""
    worker = wire_worker(hub, hub.token("worker"))
    running = hub.submit("cat")
    assignment = worker.take()
    worker.report(logs=[{"job": running, "epoch": assignment["epoch"], "offset": 0, "text": "before "}])
    (segment,) = (hub.state_dir / "logs").iterdir()
    chunk = {"job": running, "epoch": assignment["epoch"], "offset": 7, "text": "after"}
    body = {"session": worker.session, "seq": worker.seq + 1, "logs": [chunk]}
    with injected(hub.pid, FAILS["fdatasync"], path=segment):
        reply = worker.call("report", body)
        assert (reply.status_code, reply.json()["code"]) == (503, "logs-unwritable")
        assert hub.call("GET", f"/v1/jobs/{running}/logs").content == b"before "
        size = segment.stat().st_size
        assert worker.call("report", body).status_code == 200, "another segment"
    assert segment.stat().st_size == size
    assert hub.call("GET", f"/v1/jobs/{running}/logs").content == b"before after"
    assert hub.process.poll() is None


@pytest.mark.parametrize("fails", ["fdatasync", "pwrite64"])
def test_a_manager_whose_ledger_fails_launches_nothing_and_ends(place: Place, fails: str) -> None:
    discovery.start(HubSettings(place.state_dir))
    site = Site(place, "broken")
    site.manage(*CALL)
    until(lambda: place.items("pools"), "the first plan")
    with injected(site.manager.pid, FAILS[fails]):
        job = site.submit()
        assert site.manager.wait(60) == BROKEN
    assert site.said("cannot be used: disk I/O error")
    assert site.processes() == []
    assert place.job(job)["state"] == "queued"

    site.manage(*CALL)
    crowd = Crowd(place, [site])
    crowd.until_all_run()
    site.gate.touch()
    place.reaches(job, "succeeded")
    crowd.until_nothing_is_left()
    assert len(site.ready_events()) == site.workers
