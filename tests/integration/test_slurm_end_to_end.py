"""Hub, manager, agents and a real Slurm cluster: what a person has, from a job to its result."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.place import Place, a_place, until
from tests.stand_ins.slurm import SlurmCluster, a_cluster, free_ports


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with a_cluster() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, cluster: SlurmCluster) -> Iterator[Place]:
    for place in a_place(tmp_path):
        place.environment = {**cluster.environment, "HOME": str(tmp_path)}
        yield place
        cluster.thaw()
        cluster.run("scontrol", "update", "partitionname=cpu", "state=up")
        cluster.run("scancel", f"--user={cluster.user}", check=False)


def loopback() -> tuple[str, str]:
    return "--advertise-url", f"http://127.0.0.1:{free_ports(1)[0]}"


def pool_of(place: Place, **more: str) -> str:
    lines = [f"    {name}: {value}" for name, value in more.items()]
    return place.pools(
        "\n".join(
            [
                "version: 1",
                f"hub: {{advertise-url: {loopback()[1]}}}",
                "pools:",
                "  - name: hpc",
                "    backend: slurm",
                *lines,
            ]
        )
    )


def test_a_worker_has_what_slurm_gave_it_runs_a_job_and_leaves_nothing(place: Place, cluster: SlurmCluster) -> None:
    words = ["--cpus", "3", "--memory-mb", "300", "--gpus", "2", "--partition", "gpu", "--time", "30"]
    place.manage(*loopback(), "--min-workers", "0", "--worker-idle-seconds", "1", "slurm", *words)
    says = 'echo "on $SLURM_JOB_ID: $CUDA_VISIBLE_DEVICES"'
    job = place.submit("--gpus", "2", "--cpus", "3", "--shell", says)
    done = place.reaches(job, "succeeded", "failed")
    assert done["state"] == "succeeded", done
    (worker,) = place.workers()
    shape = worker["shape"]
    assert (shape["cpus"], shape["memory"], shape["gpus"]) == (3000, 300 << 20, 2)
    assert 0 < shape["walltime"] <= 30 * 60_000, "known although this Slurm does not tell a job when it ends"
    assert re.search(r": \d,\d$", place.run("logs", job).strip())
    until(lambda: set(cluster.live_jobs()) == set(), "the idle worker to be gone from the cluster")
    until(lambda: not place.workers(), "the worker to be gone")
    work_dir = place.state_dir.parent / "slurm-worker-scratch"
    (folder,) = (work_dir / "main" / "slurm").iterdir()
    until(lambda: not list((folder / "tokens").glob("*")), "the join token to be gone")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "wmj_" not in folder.joinpath("script").read_text()
    assert "wmj_" not in folder.joinpath("worker-0.log").read_text()


def test_many_workers_are_one_job_array(place: Place, cluster: SlurmCluster) -> None:
    before = set(cluster.states())
    file = pool_of(
        place,
        **{
            "min-workers": "5",
            "max-workers": "5",
            "shape": "{cpus: 1, memory: 128MiB}",
            "options": "{partition: cpu, time: 1h}",
        },
    )
    place.start("run", "-c", file)
    until(lambda: len(place.workers("ready")) == 5, "five workers")
    mine = {id for id in cluster.states() if id not in before}
    (array,) = {id.partition("_")[0] for id in mine}
    assert mine == {f"{array}_{index}" for index in range(5)}
    jobs = [place.submit("--memory", "64MiB", "--shell", "echo $WM_WORKER") for _ in range(5)]
    for job in jobs:
        place.reaches(job, "succeeded")
    (one, *_) = place.workers("ready")
    place.run("delete", "worker", one["id"], "--force")
    until(lambda: one["id"] not in [each["id"] for each in place.workers()], "the one worker to be gone")
    until(lambda: len(mine & set(cluster.live_jobs())) == 4, "its job, and no other, to end")


def test_a_manager_that_was_killed_finds_its_workers_again(place: Place, cluster: SlurmCluster) -> None:
    words = [
        *loopback(),
        "--min-workers",
        "1",
        "--max-workers",
        "1",
        "slurm",
        "--partition",
        "cpu",
        "--memory-mb",
        "128",
    ]
    first = place.manage(*words)
    until(lambda: place.workers("ready"), "a worker")
    (worker,) = place.workers("ready")
    first.send_signal(signal.SIGKILL)
    first.wait()
    place.manage(*words)
    job = place.submit("--memory", "64MiB", "--", "true")
    place.reaches(job, "succeeded")
    assert [one["id"] for one in place.workers("ready")] == [worker["id"]]
    assert list(cluster.live_jobs().values()).count("RUNNING") == 1, (
        "one worker, and what earlier tests leave is ending"
    )


def test_a_worker_that_waits_for_too_long_is_cancelled_and_the_reason_is_told(
    place: Place, cluster: SlurmCluster
) -> None:
    before = set(cluster.states())
    cluster.run("scontrol", "update", "partitionname=cpu", "state=down")
    file = pool_of(
        place,
        **{
            "min-workers": "1",
            "shape": "{memory: 128MiB}",
            "limits": "{queue-timeout: 1s}",
            "options": "{partition: cpu, time: 1h}",
        },
    )
    place.start("run", "-c", file)
    until(lambda: "CANCELLED" in [state for id, state in cluster.states().items() if id not in before], "its end")
    (id,) = set(cluster.states()) - before
    name = cluster.run("squeue", "-h", "-t", "all", "-j", id, "-o", "%j").strip()
    why = "waits for a machine for"
    until(lambda: why in place.run("explain", "pool/hpc"), "the reason of its end")
    (line,) = (line for line in place.run("explain", "pool/hpc").splitlines() if f"end     {name}-0" in line)
    assert re.search(rf"{why} \S+ \(limit 1s\): PENDING: PartitionDown: the partition is closed", line)


@pytest.mark.soak
def test_before_its_time_limit_a_worker_hands_back_what_it_runs(place: Place, cluster: SlurmCluster) -> None:
    words = ["--partition", "cpu", "--time", "2", "--memory-mb", "128"]
    place.manage(*loopback(), "--min-workers", "0", "--max-workers", "1", "slurm", *words)
    job = place.submit("--memory", "64MiB", "--", "sleep", "600")
    place.reaches(job, "running")
    (first,) = (id for id, state in cluster.states().items() if state == "RUNNING")
    place.reaches(job, "queued", seconds=130)
    until(lambda: cluster.states()[first] == "COMPLETED", "the worker to leave by itself, before it is killed")
    assert not place.events("job.lost"), "it was returned, not lost"
    place.reaches(job, "running")
