"""From a queued job to a worker on Azure Batch and back to none: real manager, hub and agent, a stand-in for Azure."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.place import Place, a_place, until
from tests.stand_ins.azure_batch import FakeBatch
from tests.stand_ins.azure_place import JOB


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[FakeBatch]:
    fake = FakeBatch(tmp_path / "azure")
    fake.make(JOB)
    yield fake
    fake.close()
    assert fake.problems == []


@pytest.fixture
def place(tmp_path: Path, azure: FakeBatch) -> Iterator[Place]:
    for made in a_place(tmp_path):
        made.environment = {"BATCH_KEY": azure.key}
        yield made


def words(azure: FakeBatch) -> tuple[str, ...]:
    account = ("--service-url", azure.url, "--account-name", azure.account, "--account-key", "env:BATCH_KEY")
    return ("azure-batch", "--cpus", "1", "--memory-mb", "64", *account, "--job-id", JOB)


def test_a_job_runs_on_a_worker_that_comes_and_goes(place: Place, azure: FakeBatch, tmp_path: Path) -> None:
    hub = f"http://127.0.0.1:{free_port()}"
    cache = tmp_path / "cache"
    flags = ("--advertise-url", hub, "--min-workers", "0", "--max-workers", "2", "--worker-idle-seconds", "1")
    quick = ("--min-seconds-between-workers", "0", "--stabilise-seconds", "0", "--worker-work-dir-prefix", str(cache))
    manager = place.manage(*flags, *quick, *words(azure))
    job = place.submit("--shell", 'echo "on $AZ_BATCH_NODE_ID"; env; cat /proc/$PPID/environ | tr "\\0" "\\n"')
    done = place.reaches(job, "succeeded", "failed")
    assert done["state"] == "succeeded", place.run("logs", job)
    said = place.run("logs", job)
    assert "wmj_" not in said
    assert "WM_START" not in said
    until(lambda: not place.workers(), "the idle worker to go")
    (task,) = azure.tasks[JOB].values()
    assert task.id.startswith("main-")
    until(lambda: task.process is not None and task.process.poll() == 0, "its end, by itself")
    assert (azure.calls["add"], azure.calls["terminate"]) == (1, 0)
    assert cache.is_dir(), "the shared work dir"
    token = next(one["value"] for one in task.spec["environmentSettings"] if one["name"] == "WM_JOIN_TOKEN")
    for file in (place.log, azure.root / JOB / task.id / "stdout.txt"):
        assert token not in file.read_text()
    assert token not in task.spec["commandLine"]
    assert place.end(manager) == 143
    place.run("down")
    place.empty()


def test_a_worker_that_is_killed_by_force_is_gone_from_azure(place: Place, azure: FakeBatch) -> None:
    flags = (
        "--advertise-url",
        f"http://127.0.0.1:{free_port()}",
        "--min-workers",
        "0",
        "--max-workers",
        "1",
        "--stabilise-seconds",
        "0",
    )
    manager = place.manage(*flags, *words(azure))
    job = place.submit("--shell", "sleep 600")
    place.reaches(job, "running")
    (worker,) = place.workers()
    place.run("delete", "worker", worker["id"], "--force")
    until(lambda: not azure.alive(JOB, worker["id"]), "the end of its processes")
    place.run("cancel", job)
    assert place.end(manager) == 143
    place.run("down")
    place.empty()


def test_job_and_pool_are_made_for_the_first_worker(place: Place, azure: FakeBatch, tmp_path: Path) -> None:
    for kept in (azure.jobs, azure.tasks, azure.pools, azure.nodes):
        kept.clear()
    pool = tmp_path / "pool.json"
    pool.write_text('{"id": "made", "vmSize": "STANDARD_D4S_V5"}')
    made = ("--create-job", "--pool-file", str(pool), "--pool", "cloud")
    flags = ("--advertise-url", f"http://127.0.0.1:{free_port()}", "--min-workers", "1", "--max-workers", "1")
    manager = place.manage(*flags, *words(azure), *made)
    until(lambda: place.workers("ready"), "a worker")
    assert azure.jobs[JOB]["poolInfo"] == {"poolId": "made"}
    assert azure.pools["made"]["enableAutoScale"]
    assert place.end(manager) == 143
    place.run("down", "--now")
    place.empty()


def test_doctor_and_render_from_the_command_line(place: Place, azure: FakeBatch) -> None:
    hub = ("--advertise-url", "https://hub.example:8443")
    azure.pools["pool-1"]["resizeErrors"] = [{"code": "AccountCoreQuotaReached", "message": "20 cores and no more"}]
    doctor = place.call(*hub, "doctor", *words(azure))
    assert "AccountCoreQuotaReached: 20 cores and no more" in doctor.stdout
    assert "ask for a larger quota" in doctor.stdout
    shown = place.call(*hub, "render", *words(azure))
    assert shown.returncode == 0, shown
    assert "/jobs/workers/addtaskcollection" in shown.stdout
    assert '"requiredSlots": 1' in shown.stdout
    assert azure.key not in shown.stdout + shown.stderr + doctor.stdout
    assert azure.calls["add"] == 0
