"""A manager with workers on a real API server: hub, manager and agent are the real ones, and a job runs. Only the node
is ours (tests/stand_ins/kubernetes_kubelet.py)."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.kubernetes.access import connect
from backends.kubernetes.api import Api
from backends.kubernetes.settings import Access
from tests.place import Place, a_place, until
from tests.stand_ins import kubernetes_server
from tests.stand_ins.kubernetes_kubelet import Kubelet
from tests.stand_ins.kubernetes_server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Server, Api]]:
    where = kubernetes_server.programs()
    if where is None:
        pytest.skip("no kube-apiserver here: python -m tools.kubernetes_server builds one")
    folder = tmp_path / "kubernetes"
    folder.mkdir()
    server = Server(folder, where)
    try:
        server.start()
        api = connect(Access(kubeconfig=str(server.kubeconfig), context="admin"), "default")
        kubelet = Kubelet(
            connect(Access(kubeconfig=str(server.kubeconfig), context="admin"), "default"), folder / "pods"
        )
        yield server, api
        kubelet.close()
    finally:
        server.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield from a_place(tmp_path)


def test_a_job_runs_and_the_cluster_is_left_as_it_was(place: Place, server: tuple[Server, Api]) -> None:
    real, api = server

    def count(kind: str) -> int:
        group = "apis/batch/v1" if kind == "jobs" else "api/v1"
        query = (("labelSelector", "app.kubernetes.io/managed-by=worker-manager"),)
        answer = api.call("GET", api.place(group, kind), time.monotonic() + 60, query=query)
        return len(answer.thing().get("items") or ())

    account = api.place("api/v1", "serviceaccounts", "default")
    until(lambda: api.call("GET", account, time.monotonic() + 60).good, "the controllers to work")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        hub = f"http://127.0.0.1:{listening.getsockname()[1]}"
    limits = ("--min-workers", "0", "--max-workers", "2", "--worker-idle-seconds", "60")
    access = ("--kubeconfig", str(real.kubeconfig), "--namespace", "default", "--keep-ended", "1s")
    shape = ("--cpus", "1", "--memory-mb", "64")
    manager = place.manage("--advertise-url", hub, *limits, "kubernetes", *access, *shape)
    job = place.submit("--shell", "echo from a pod")
    worker = place.reaches(job, "succeeded")["worker"]
    assert (count("jobs"), count("pods"), count("secrets")) == (1, 1, 1)
    assert "from a pod" in place.run("logs", job)
    busy = place.submit("--shell", "sleep 600")
    place.reaches(busy, "running")
    place.run("freeze", "pool", "kubernetes", "--for", "1h")
    place.run("delete", "worker", worker, "--force", "--grace-period", "1s")
    until(lambda: place.job(busy)["state"] == "queued", "its job to go back")
    for kind in ("jobs", "pods", "secrets"):
        until(lambda kind=kind: count(kind) == 0, f"{kind} to be gone")  # type: ignore[misc]
    assert place.end(manager) == 143
    place.run("down", "--now")
