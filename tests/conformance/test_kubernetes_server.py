"""The Kubernetes backend passes the suite against a real API server with its real controllers; the node is ours, and
runs containers as processes. Each test has a namespace of its own."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import Backend, Context, Submission
from backends.kubernetes.access import connect
from backends.kubernetes.api import Api
from backends.kubernetes.settings import Access
from tests.conformance.adopter import Adopter, Fault
from tests.conformance.kubernetes_pods import PodAdopter, proc
from tests.conformance.suite import Conformance
from tests.stand_ins import kubernetes_server
from tests.stand_ins.kubernetes_kubelet import Kubelet
from tests.stand_ins.kubernetes_server import Server
from worker_manager.clock import SystemClock

_NAMESPACES = itertools.count(1)


class ServerAdopter(PodAdopter):
    def __init__(self, server: Server, admin: Api, kubelet: Kubelet) -> None:
        super().__init__(
            {
                Fault.SLOW_BOOT,
                Fault.DIES_AT_BOOT,
                Fault.STRANGE_STATE,
                Fault.VANISHES,
                Fault.OVER_QUOTA,
                Fault.MISCONFIGURED,
            }
        )
        self.server = server
        self.admin = admin
        self.vanishes = False
        self.kubelet = kubelet
        self.namespace = f"suite-{next(_NAMESPACES)}"
        self._call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        account = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"
        self.until(lambda: self.admin.call("GET", account, time.monotonic() + 30).good, "the namespace's account", 60)

    def _call(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        answer = self.admin.call(method, path, time.monotonic() + 60, body=body)
        assert answer.good, answer.words()
        return answer.thing()

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        options = {"kubeconfig": str(self.server.kubeconfig), "context": "admin", "namespace": self.namespace}
        context = Context(manager, pool, "/nonexistent", SystemClock().now_ms, call_timeout_s or 60.0)
        return registry.create("kubernetes", options, context)

    def inject(self, fault: Fault) -> None:
        if fault is Fault.DIES_AT_BOOT:
            self.dies = True
        elif fault is Fault.SLOW_BOOT:
            self.kubelet.full = True
        elif fault is Fault.STRANGE_STATE:
            self.kubelet.strange = 1
        elif fault is Fault.VANISHES:
            self.vanishes = True
        elif fault is Fault.MISCONFIGURED:
            self._call("DELETE", f"/api/v1/namespaces/{self.namespace}")
        else:
            self._forbid_jobs()

    def submission(self, *arguments: Any, **words: Any) -> Submission:
        made = super().submission(*arguments, **words)
        if self.vanishes:
            self.kubelet.vanishing, self.vanishes = made.worker_id(0), False
        return made

    def _forbid_jobs(self) -> None:
        place = f"/api/v1/namespaces/{self.namespace}/resourcequotas"
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
        self._call("POST", place, quota | {"spec": {"hard": {"count/jobs.batch": "0"}}})
        self.until(lambda: "used" in str(self._call("GET", f"{place}/none")["status"]), "the quota to be counted")

    def let_boot(self) -> None:
        self.kubelet.full = False

    def close(self) -> None:
        self.kubelet.full, self.kubelet.strange, self.kubelet.vanishing = False, 0, ""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 1}
        self._call("DELETE", f"/api/v1/namespaces/{self.namespace}/pods", options)
        self.admin.call("DELETE", f"/api/v1/namespaces/{self.namespace}", time.monotonic() + 60)  # perhaps it is gone

    # ------------------------------------------------ what can be seen from outside

    def pods(self, job: str) -> list[str]:
        found = self._call("GET", f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=controller-uid%3D{job}")
        known = [pod["metadata"]["uid"] for pod in found.get("items") or ()]  # type: ignore[attr-defined]
        return known or [folder.name for folder in self.kubelet.root.glob("*")]

    def exposed(self, handle: str) -> str:
        of_processes = b"".join(proc(pid, "cmdline") + proc(pid, "environ") for pid in self.processes(handle))
        places = [f"/api/v1/namespaces/{self.namespace}/{kind}" for kind in ("pods", "events")]
        places.append(f"/apis/batch/v1/namespaces/{self.namespace}/jobs")
        return of_processes.decode() + repr([self._call("GET", place) for place in places])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Api, Kubelet]]:
    where = kubernetes_server.programs()
    if where is None:
        pytest.skip("no kube-apiserver here: python -m tools.kubernetes_server builds one")
    folder = tmp_path_factory.mktemp("kubernetes")
    server = Server(folder, where)
    try:
        server.start()
        admin = connect(Access(kubeconfig=str(server.kubeconfig), context="admin"), "default")
        kubelet = Kubelet(
            connect(Access(kubeconfig=str(server.kubeconfig), context="admin"), "default"), folder / "pods"
        )
        yield server, admin, kubelet
        kubelet.close()
    finally:
        server.close()


class TestKubernetesServer(Conformance):
    @pytest.fixture
    def adopter(self, cluster: tuple[Server, Api, Kubelet], tmp_path: Path) -> Iterator[Adopter]:
        adopter = ServerAdopter(*cluster)
        yield adopter
        adopter.close()
