"""The Kubernetes backend passes the suite, against the stand-in cluster: real HTTP, containers as real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import registry
from backends.base import Backend, Context
from tests.conformance.adopter import Adopter, Fault
from tests.conformance.kubernetes_pods import PodAdopter, proc
from tests.conformance.suite import Conformance
from tests.stand_ins import kubernetes
from tests.stand_ins.kubernetes import Cluster, Say
from worker_manager.clock import SystemClock

_OF_CALLS = {
    Fault.THROTTLED: ("create", "jobs", Say(429, "TooManyRequests", "too many requests", Retry_After="7")),
    Fault.DENIED: ("create", "jobs", Say(401, "Unauthorized", "Unauthorized")),
    Fault.OVER_QUOTA: ("create", "jobs", Say(403, "Forbidden", 'jobs.batch "x" is forbidden: exceeded quota: many')),
    Fault.MISCONFIGURED: ("create", "jobs", Say(422, "Invalid", "Job.batch is invalid: spec.template.spec")),
    Fault.TIMED_OUT_BEFORE: ("create", "jobs", "cut-before"),
    Fault.TIMED_OUT_AFTER: ("create", "jobs", "cut-after"),
    Fault.LAUNCH_HANGS: ("create", "jobs", "hang"),
    Fault.LIST_HANGS: ("list", "pods", "hang"),
    Fault.END_HANGS: ("delete", "jobs", "hang"),
    Fault.END_TIMED_OUT_AFTER: ("delete", "jobs", "cut-after"),
    Fault.UNREADABLE: ("list", "pods", Say(500, "InternalError", "etcdserver: request timed out" + "!" * 10**6)),
    Fault.EXPIRED: ("list", "jobs", Say(401, "Unauthorized", "Unauthorized")),
    Fault.GARBAGE: ("list", "pods", "garbage"),
    Fault.PAGE_LOST: ("list", "jobs", Say(410, "Expired", "The provided continue parameter is too old")),
}
_OF_WORKERS = {
    Fault.SLOW_BOOT,
    Fault.DIES_AT_BOOT,
    Fault.DIES_WITH_A_PAGE,
    Fault.STRANGE_STATE,
    Fault.VANISHES,
}


class KubernetesAdopter(PodAdopter):
    """`watch` and small pages do not go together with faults of the list: those are for the list alone."""

    def __init__(self, root: Path, watch: bool) -> None:
        of_lists = {fault for fault, (verb, _, _) in _OF_CALLS.items() if verb == "list"}
        faults = _OF_WORKERS | set(_OF_CALLS) - (of_lists if watch else set())
        super().__init__(faults)
        self.cluster = Cluster(root)
        self.watch = watch

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        options = {"cluster-host": self.cluster.url, "watch": self.watch, "page-size": 1000 if self.watch else 2}
        # Every request is a real one: on a loaded machine the first may take longer than the suite's shortest time.
        context = Context(manager, pool, "/nonexistent", SystemClock().now_ms, max(2.0, call_timeout_s or 30.0))
        return registry.create("k8s", options, context)

    def inject(self, fault: Fault) -> None:
        if fault is Fault.DIES_AT_BOOT:
            self.dies = True
        elif fault is Fault.SLOW_BOOT:
            self.cluster.node.unschedulable = True
        elif fault is Fault.STRANGE_STATE:
            self.cluster.node.strange = 1
        elif fault is Fault.DIES_WITH_A_PAGE:
            self.cluster.node.evicting = "the node was low on disk " * 400_000
        elif fault is Fault.VANISHES:
            self.cluster.node.vanishing = 1
        else:
            verb, kind, do = _OF_CALLS[fault]
            lost = fault is Fault.PAGE_LOST  # one that expires once is read anew, so it expires twice
            for each in ("jobs", "pods") if lost else (kind,):
                self.cluster.faults.append(kubernetes.Fault(verb, each, do, 2 if lost else 1, continues=lost))

    def let_boot(self) -> None:
        self.cluster.node.room()

    def close(self) -> None:
        self.cluster.close()

    # ------------------------------------------------ what can be seen from outside

    def pods(self, job: str) -> list[str]:
        known = [pod["metadata"]["uid"] for pod in self.cluster.store.select("pods", f"controller-uid={job}")]
        return known or [folder.name for folder in (self.cluster.node.root / "pods").glob("*")]

    def exposed(self, handle: str) -> str:
        """Command lines and environments on the node; Job, pod and events of the cluster."""
        of_processes = b"".join(proc(pid, "cmdline") + proc(pid, "environ") for pid in self.processes(handle))
        store = self.cluster.store
        return of_processes.decode() + repr([store.select(kind) for kind in ("jobs", "pods", "events")])


class TestKubernetes(Conformance):
    """Every list is read whole, in pages of two."""

    @pytest.fixture
    def adopter(self, tmp_path: Path) -> Iterator[Adopter]:
        adopter = KubernetesAdopter(tmp_path, watch=False)
        yield adopter
        adopter.close()


class TestKubernetesWatched(Conformance):
    """Lists are kept up to date by a watch."""

    @pytest.fixture
    def adopter(self, tmp_path: Path) -> Iterator[Adopter]:
        adopter = KubernetesAdopter(tmp_path, watch=True)
        yield adopter
        adopter.close()
