"""A hub on a copy of the state directory takes the place of the one that is lost."""

from pathlib import Path
from typing import Any

from worker_manager.hub import discovery
from worker_manager.hub.backup import backup


def test_a_worker_of_before_is_refused_and_its_job_runs_again_elsewhere(
    start_hub: Any, wire_worker: Any, tmp_path: Path
) -> None:
    hub = start_hub("first")
    worker = wire_worker(hub, hub.token("worker"), "w-1", cpus=1000)
    job = hub.submit("true")
    assignment = worker.take()
    assert assignment["epoch"] == 1
    backup(hub.state_dir, tmp_path / "second")
    since = hub.submit("made", "since")
    discovery.stop(hub.state_dir)

    restored = start_hub("second")
    assert restored.get("/v1/info")["generation"] == 2
    assert restored.call("GET", f"/v1/jobs/{since}").status_code == 404
    worker.hub = restored
    assert worker.call("poll", {"session": 1, "ack": 0}).status_code == 410
    result = {"job": job, "epoch": 1, "outcome": "succeeded", "run_ms": 5}
    assert worker.call("report", {"session": 1, "seq": 9, "results": [result]}).status_code == 410
    assert restored.get(f"/v1/jobs/{job}")["state"] == "queued"
    fresh = wire_worker(restored, restored.token("worker"), "w-2", cpus=1000)
    again = fresh.take()
    assert (again["job"], again["epoch"]) == (job, 2)
    fresh.finish(again)
    assert restored.get(f"/v1/jobs/{job}")["state"] == "succeeded"
