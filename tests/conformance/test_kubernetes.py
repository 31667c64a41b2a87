"""The Kubernetes backend passes the suite, against the stand-in cluster: real HTTP, containers as real processes."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backends import registry
from backends.base import Backend, Context
from backends.kubernetes import CAPABILITIES, names
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.conformance.suite import Conformance
from tests.stand_ins import kubernetes
from tests.stand_ins.kubernetes import Cluster, Say
from worker_manager.clock import SystemClock

_NAME = "conformance-worker"

# $1 what it says, $2 its exit status or nothing, $3 deaf or nothing. It speaks when it is ready for a signal.
_SCRIPT = """
if [ "$3" = deaf ]; then trap '' TERM; else trap 'kill -KILL $!; exit 0' TERM; fi
[ -z "$1" ] || printf '%s\\n' "$1"
[ -z "$2" ] || exit "$2"
sleep 600 &
wait
"""

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
_OF_WORKERS = {Fault.SLOW_BOOT, Fault.DIES_AT_BOOT, Fault.STRANGE_STATE, Fault.VANISHES}


class KubernetesAdopter(Adopter):
    """`watch` and small pages do not go together with faults of the list: those are for the list alone."""

    def __init__(self, root: Path, watch: bool) -> None:
        of_lists = {fault for fault, (verb, _, _) in _OF_CALLS.items() if verb == "list"}
        faults = _OF_WORKERS | set(_OF_CALLS) - (of_lists if watch else set())
        super().__init__(CAPABILITIES, frozenset(faults))
        self.cluster = Cluster(root)
        self.watch = watch
        self.dies = False

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        options = {"cluster-host": self.cluster.url, "watch": self.watch, "page-size": 1000 if self.watch else 2}
        context = Context(manager, pool, "/nonexistent", SystemClock().now_ms, call_timeout_s or 30.0)
        return registry.create("k8s", options, context)

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        exits = "9" if self.dies else "" if behaviour.exits is None else str(behaviour.exits)
        self.dies = False
        return ("/bin/sh", "-c", _SCRIPT, _NAME, behaviour.says, exits, "deaf" if behaviour.deaf else "")

    def inject(self, fault: Fault) -> None:
        if fault is Fault.DIES_AT_BOOT:
            self.dies = True
        elif fault is Fault.SLOW_BOOT:
            self.cluster.node.unschedulable = True
        elif fault is Fault.STRANGE_STATE:
            self.cluster.node.strange = 1
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

    # ------------------------------------------------ through the stand-in's node, and /proc

    def alive(self, handle: str) -> bool:
        return bool(self._processes(handle))

    def token(self, handle: str) -> str:
        path = Path(self.environment(handle)["WM_JOIN_TOKEN_FILE"])
        assert path.stat().st_mode & 0o777 == 0o400
        assert [other.name for other in path.parent.iterdir()] == [path.name], "the tokens of others"
        return path.read_text()

    def environment(self, handle: str) -> Mapping[str, str]:
        words = _proc(self._worker(handle), "environ").decode().split("\0")
        return dict(word.split("=", 1) for word in words if word)

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(_proc(self._worker(handle), "cmdline").decode().split("\0")[:-1])

    def exposed(self, handle: str) -> str:
        """Command lines and environments on the node; Job, pod and events of the cluster."""
        of_processes = b"".join(_proc(pid, "cmdline") + _proc(pid, "environ") for pid in self._processes(handle))
        store = self.cluster.store
        return of_processes.decode() + repr([store.select(kind) for kind in ("jobs", "pods", "events")])

    def _processes(self, handle: str) -> list[int]:
        job = names.handle(handle)
        assert job is not None
        pods = self.cluster.store.select("pods", f"controller-uid={job.uid}")
        gone = [pod.name for pod in (self.cluster.node.root / "pods").glob("*")] if not pods else []
        return [
            pid for uid in [pod["metadata"]["uid"] for pod in pods] + gone for pid in self.cluster.node.processes(uid)
        ]

    def _worker(self, handle: str) -> int:
        """The script before it has another command line, and becomes the worker."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for pid in self._processes(handle):
                if _proc(pid, "cmdline").split(b"\0")[3:4] == [_NAME.encode()] and _proc(pid, "environ"):
                    return pid
        raise AssertionError(f"{handle} did not start")


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


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
