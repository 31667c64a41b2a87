"""A manager with workers on Kubernetes: a real hub, the real agent brought by its script, and a job that runs."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.place import Place, a_place, until
from tests.stand_ins.kubernetes import Cluster
from tests.stand_ins.kubernetes_node import processes_of

QUICK = ("--min-workers", "0", "--max-workers", "2", "--min-seconds-between-workers", "0", "--stabilise-seconds", "0")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "cluster")
    made.tokens = {"k8s-canary-token"}
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    for place in a_place(tmp_path):
        place.environment = {"CLUSTER_TOKEN": "k8s-canary-token"}
        yield place


def kubernetes(cluster: Cluster, *more: str) -> tuple[str, ...]:
    access = ("--cluster-host", cluster.url, "--auth-token", "env:CLUSTER_TOKEN")
    return ("kubernetes", *access, "--cpus", "1", "--memory-mb", "64", *more)


def elsewhere() -> tuple[str, ...]:
    """A hub that workers reach; plain HTTP is enough on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return ("--advertise-url", f"http://127.0.0.1:{listening.getsockname()[1]}")


def test_a_job_runs_on_a_worker_of_the_cluster_and_nothing_is_left_of_it(place: Place, cluster: Cluster) -> None:
    shared = "/mnt/worker-manager-shared"
    options = ("--work-claim", "work", "--keep-ended", "1s")
    prefix = ("--worker-work-dir-prefix", shared, "--worker-idle-seconds", "60")
    manager = place.manage(*elsewhere(), *QUICK, *prefix, *kubernetes(cluster, *options))
    job = place.submit("--shell", 'echo "on $HOSTNAME"; pwd')
    worker = place.reaches(job, "succeeded")["worker"]
    [pod] = cluster.store.select("pods")
    assert pod["metadata"]["labels"]["job-name"] == worker
    assert pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert [path.name for path in (cluster.node.root / "shared").iterdir()] != [], (
        "the work dir is on the shared volume"
    )
    visible = json.dumps([cluster.store.select(kind) for kind in ("jobs", "pods", "events")])
    for secret in ("wmj_", "k8s-canary-token"):
        assert secret not in visible
    assert (cluster.calls["create jobs"], cluster.calls["create secrets"]) == (1, 1)
    place.run("drain", worker)
    until(lambda: place.ask(f"/v1/workers/{worker}").get("state") == "gone", "the hub to know")
    for kind in ("jobs", "pods", "secrets"):
        until(lambda kind=kind: not cluster.store.select(kind), f"{kind} to be gone")  # type: ignore[misc]
    assert place.end(manager) == 143
    place.run("down")


def test_workers_that_wait_for_a_node_count_towards_the_maximum(place: Place, cluster: Cluster) -> None:
    """Where only running pods count, every tick makes another one."""
    cluster.node.unschedulable = True
    manager = place.manage(*elsewhere(), *QUICK, *kubernetes(cluster))
    for _ in range(5):
        place.submit("--", "true")
    until(lambda: len(cluster.store.select("jobs")) == 2, "as many as there may be")
    lists = cluster.calls["list jobs"]
    until(lambda: "Insufficient nvidia.com/gpu" in place.run("get", "workers", "-o", "json"), "what they wait for")
    place.submit("--", "true")
    until(lambda: cluster.calls["list jobs"] + cluster.calls["watch jobs"] > lists, "further looks")
    assert cluster.calls["create jobs"] == 2
    cluster.node.room()
    until(lambda: len(place.items("jobs", state="succeeded")) == 6, "all jobs to be done")
    assert cluster.calls["create jobs"] == 2
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_an_image_that_cannot_be_pulled_is_explained(place: Place, cluster: Cluster) -> None:
    cluster.node.bad_images["nonesuch:1"] = "ImagePullBackOff"
    manager = place.manage(*elsewhere(), *QUICK, *kubernetes(cluster, "--image", "nonesuch:1"))
    place.submit("--", "true")
    until(lambda: "ImagePullBackOff" in place.run("get", "workers", "-o", "json"), "the reason to be shown")
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_a_busy_worker_that_is_deleted_by_force_is_deleted_in_the_cluster(place: Place, cluster: Cluster) -> None:
    manager = place.manage(*elsewhere(), *QUICK, *kubernetes(cluster))
    job = place.submit("--shell", "sleep 600")
    worker = place.reaches(job, "running")["worker"]
    uid = cluster.pod_of(worker)["metadata"]["uid"]
    place.run("freeze", "pool", "kubernetes", "--for", "1h")
    place.run("delete", "worker", worker, "--force", "--grace-period", "1s")
    until(lambda: not processes_of(uid), "every process of the pod to be gone")
    until(lambda: place.job(job)["state"] == "queued", "its job to go back")
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_a_refusal_of_the_cluster_is_explained_in_its_own_words(place: Place, cluster: Cluster) -> None:
    cluster.rules = [{"apiGroups": ["", "batch"], "resources": ["jobs", "pods", "events"], "verbs": ["list", "watch"]}]
    manager = place.manage(*elsewhere(), *QUICK, *kubernetes(cluster))
    job = place.submit("--", "true")
    until(lambda: 'cannot create resource "jobs"' in place.run("explain", "job", job), "the words of the cluster")
    assert not cluster.store.select("jobs")
    assert place.end(manager) == 143
    place.run("down", "--now")


def test_doctor_and_render_say_what_there_is_and_send_nothing(place: Place, cluster: Cluster) -> None:
    told = place.call(*elsewhere(), "doctor", *kubernetes(cluster)).stdout
    assert "the server would take a Job of this pool" in told
    assert "the shape fits" in told
    shown = place.run(*elsewhere(), "render", *kubernetes(cluster))
    assert "kind: Job" in shown
    assert "kind: Secret" in shown
    assert "k8s-canary-token" not in told + shown
    assert "wmj_" not in shown
    assert not cluster.store.select("jobs")
    assert not cluster.store.select("secrets")
