"""The Kubernetes backend against a real API server with its real controllers; only the node is played by the test."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends import registry
from backends.base import Accepted, Backend, Context, RefusalKind, Refused, Seen, Severity, Submission, WorkerPhase
from backends.kubernetes.access import connect
from backends.kubernetes.api import Api, NoAnswer
from backends.kubernetes.settings import Access
from backends.kubernetes.view import View
from tests.stand_ins import kubernetes_server
from tests.stand_ins.kubernetes_server import Server
from worker.protocol import Shape
from worker_manager.clock import SystemClock

FILES = Path(__file__).parents[2] / "docs" / "backends" / "kubernetes"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
IN_NAMESPACE = "/api/v1/namespaces/workers"
PLACES = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": f"{IN_NAMESPACE}/serviceaccounts",
    "Role": f"{RBAC}/namespaces/workers/roles",
    "RoleBinding": f"{RBAC}/namespaces/workers/rolebindings",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
    "ResourceQuota": f"{IN_NAMESPACE}/resourcequotas",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "PersistentVolumeClaim": f"{IN_NAMESPACE}/persistentvolumeclaims",
    "Service": f"{IN_NAMESPACE}/services",
    "Deployment": "/apis/apps/v1/namespaces/workers/deployments",
}
Thing = dict[str, Any]


class Place:
    """A real cluster without nodes, as the administrator and as the node."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin: Api = connect(Access(kubeconfig=str(server.kubeconfig), context="admin"), "workers")
        self.later_ms = 0
        self.count = 0

    def call(self, method: str, path: str, body: Thing | None = None) -> Thing:
        answer = self.admin.call(method, path, time.monotonic() + 60, body=body)
        assert answer.good, f"{method} {path}: {answer.status} {answer.words()}"
        return answer.thing()

    def apply(self, name: str) -> None:
        for thing in yaml.safe_load_all((FILES / name).read_text()):
            if thing["kind"].endswith("Binding"):  # there are no pods here to have the account, so a user has it
                thing["subjects"].append({"kind": "User", "name": "manager", "apiGroup": "rbac.authorization.k8s.io"})
            self.call("POST", PLACES[thing["kind"]], thing)

    def backend(self, pool: str = "p", shape: Shape | None = None, **options: Any) -> Backend:
        values = {name.replace("_", "-"): value for name, value in options.items()}
        access = {"kubeconfig": str(self.server.kubeconfig), "context": "manager"}
        context = Context("m", pool, "/x", lambda: SystemClock().now_ms() + self.later_ms, 60.0, shape)
        return registry.create("kubernetes", {**access, **values}, context)

    def submission(self, pool: str, count: int = 1) -> Submission:
        self.count += 1
        tokens = tuple(f"token-{index}" for index in range(count))
        shape = Shape(cpus=500, memory=2**28, walltime=3_600_000)
        return Submission(f"{pool}-{self.count}", count, pool, "m", shape, ("true",), {}, tokens, "digest")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + 90
        while not (value := condition()):
            assert time.monotonic() < deadline, what
            time.sleep(0.05)
        return value

    def items(self, kind: str, selector: str = "") -> list[Thing]:
        group = "/apis/batch/v1/namespaces/workers" if kind == "jobs" else IN_NAMESPACE
        query = f"?labelSelector={selector}" if selector else ""
        found: list[Thing] = self.call("GET", f"{group}/{kind}{query}").get("items") or []
        return found

    def pod(self, job: str) -> Thing:
        """Once the Job controller has made it."""
        [pod] = self.until(lambda: self.items("pods", f"job-name={job}"), f"a pod of {job}")
        return dict(pod)

    def bind(self, job: str) -> None:
        name = self.pod(job)["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        self.call("POST", f"{IN_NAMESPACE}/pods/{name}/binding", binding)

    def says(self, job: str, **status: Any) -> None:
        """The node reports this of the pod."""
        pod = self.pod(job)
        pod["status"] = {**pod["status"], **status}
        self.call("PUT", f"{IN_NAMESPACE}/pods/{pod['metadata']['name']}/status", pod)

    def confirms(self, job: str) -> None:
        """The node says that nothing of the pod runs any more."""
        name = self.pod(job)["metadata"]["name"]
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        self.call("DELETE", f"{IN_NAMESPACE}/pods/{name}", options)

    def reaches(self, backend: Backend, *wanted: object) -> tuple[Seen, ...]:
        found: list[Seen] = []

        def there() -> bool:
            found[:] = backend.list().seen
            return tuple(one.phase for one in found) == wanted

        self.until(there, f"{wanted}, not {found}")
        return tuple(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    where = kubernetes_server.programs()
    if where is None:
        pytest.skip("no kube-apiserver here: python -m tools.kubernetes_server builds one")
    server = Server(tmp_path_factory.mktemp("kubernetes"), where)
    try:
        server.start()
        made = Place(server)
        for path in ("namespace.yaml", "role.yaml", "role-doctor.yaml", "priority.yaml", "nfs.yaml", "manager.yaml"):
            made.apply(path)
        account = f"{IN_NAMESPACE}/serviceaccounts/default"
        made.until(lambda: made.admin.call("GET", account, time.monotonic() + 60).good, "the controllers to work")
        made.call("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}})
        yield made
    finally:
        server.close()


def container(**state: Any) -> list[Thing]:
    shown = {"name": "worker", "image": "x", "imageID": "x", "ready": "running" in state, "restartCount": 0}
    return [shown | {"state": state}]


RUNNING = {"phase": "Running", "containerStatuses": container(running={"startedAt": "2026-11-20T15:00:00Z"})}


def over(code: int, reason: str) -> Thing:
    ended = {"exitCode": code, "reason": reason, "startedAt": "2026-11-20T15:00:00Z"}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": container(terminated=ended)}


@pytest.mark.parametrize("watch", [True, False])
def test_the_life_of_workers_with_just_the_rights_of_the_role(place: Place, watch: bool) -> None:
    pool = f"life-{watch}".lower()
    backend = place.backend(pool, watch=watch, page_size=2, keep_ended=3_000, service_account="worker",
                            priority_class="worker", work_claim="work", grace_period=30_000)  # fmt: skip
    made = place.submission(pool, 3)
    outcome = backend.launch(made)
    assert isinstance(outcome, Accepted)
    names = [made.worker_id(index) for index in range(3)]
    assert [one.handle for one in place.reaches(backend, *[WorkerPhase.PENDING] * 3)] == list(outcome.handles.values())
    [secret] = place.items("secrets", f"worker-manager/submission={made.id}")
    assert [owner["name"] for owner in secret["metadata"]["ownerReferences"]] == names
    for name in names:
        place.bind(name)
    place.reaches(backend, *[WorkerPhase.STARTING] * 3)
    for name in names:
        place.says(name, **RUNNING)
    seen = place.reaches(backend, *[WorkerPhase.RUNNING] * 3)
    assert {(one.started_at, one.detail) for one in seen} == {(1_795_186_800_000, "node node-1")}
    assert backend.launch(made) == outcome, "the same launch again"

    place.says(names[0], **over(137, "OOMKilled"))
    [first, *_] = place.reaches(backend, WorkerPhase.ENDED, WorkerPhase.RUNNING, WorkerPhase.RUNNING)
    assert (first.exit_code, first.refusal) == (137, RefusalKind.CONFIG)
    place.reaches(backend, WorkerPhase.RUNNING, WorkerPhase.RUNNING)  # its Job went by itself

    handles = outcome.handles
    assert isinstance(backend.terminate(handles[1] + "0", force=True), Accepted), "another UID: nothing of ours"
    assert [one.phase for one in backend.list().seen] == [WorkerPhase.RUNNING] * 2
    assert isinstance(backend.terminate(handles[1], force=False), Accepted)
    place.reaches(backend, WorkerPhase.ENDING, WorkerPhase.RUNNING)
    time.sleep(0.5)
    place.reaches(backend, WorkerPhase.ENDING, WorkerPhase.RUNNING)
    place.confirms(names[1])
    place.reaches(backend, WorkerPhase.RUNNING)
    assert place.items("secrets", f"worker-manager/submission={made.id}")
    assert isinstance(backend.terminate(handles[2], force=True), Accepted)
    grace = place.until(
        lambda: place.pod(names[2])["metadata"].get("deletionGracePeriodSeconds") == 1, "a grace of one second"
    )
    assert grace
    place.confirms(names[2])
    place.reaches(backend)
    for kind in ("jobs", "pods", "secrets"):
        place.until(lambda kind=kind: not place.items(kind, f"worker-manager/pool={pool}"), f"no {kind}")  # type: ignore[misc]
    for force in (False, True):
        assert isinstance(backend.terminate(handles[2], force=force), Accepted)


@pytest.mark.parametrize("policy", ["Background", "Orphan"])
def test_a_pod_that_runs_when_its_job_was_deleted_is_still_seen(place: Place, policy: str) -> None:
    backend = place.backend("orphans")
    made = place.submission("orphans")
    assert isinstance(backend.launch(made), Accepted)
    place.bind(made.worker_id(0))
    place.says(made.worker_id(0), **RUNNING)
    place.reaches(backend, WorkerPhase.RUNNING)
    [before] = backend.list().seen
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
    place.call("DELETE", f"/apis/batch/v1/namespaces/workers/jobs/{made.worker_id(0)}", options)
    if policy == "Orphan":
        place.until(lambda: not place.items("jobs", "worker-manager/pool=orphans"), "the Job to be gone")
        place.until(lambda: "ownerReferences" not in place.pod(made.worker_id(0))["metadata"], "a pod of nobody's")
        place.reaches(backend, WorkerPhase.RUNNING)
        assert [one.handle for one in backend.list().seen] == [before.handle]
        assert isinstance(backend.terminate(before.handle, force=False), Accepted)
    place.reaches(backend, WorkerPhase.ENDING)
    place.confirms(made.worker_id(0))
    place.reaches(backend)


def test_quotas_refuse_a_launch_or_its_pods(place: Place) -> None:
    backend = place.backend("quota")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}}
    there = len(place.items("jobs"))
    place.call("POST", PLACES["ResourceQuota"], quota | {"spec": {"hard": {"count/jobs.batch": str(there + 2)}}})
    counted = f"{PLACES['ResourceQuota']}/few"
    place.until(lambda: "used" in place.call("GET", counted).get("status", {}), "the quota to be counted")
    outcome = backend.launch(place.submission("quota", 4))
    assert isinstance(outcome, Refused)
    assert (outcome.kind, "exceeded quota: few" in outcome.text) == (RefusalKind.QUOTA, True)
    place.reaches(backend)
    place.until(lambda: not place.items("jobs", "worker-manager/pool=quota"), "the first two to be taken back")
    assert not place.items("secrets", "worker-manager/pool=quota")
    place.call("DELETE", counted)

    place.call("POST", PLACES["ResourceQuota"], quota | {"spec": {"hard": {"pods": "0"}}})
    place.until(lambda: "used" in place.call("GET", counted).get("status", {}), "the quota to be counted")
    made = place.submission("quota")
    assert isinstance(backend.launch(made), Accepted)
    place.later_ms = 60_000
    place.until(lambda: [one.refusal for one in backend.list().seen] == [RefusalKind.QUOTA], "the event of the Job")
    [waits] = backend.list().seen
    assert (waits.phase, "exceeded quota: few" in waits.detail) == (WorkerPhase.PENDING, True)
    full = next(one for one in backend.check() if one.subject == "quota few")
    assert full.severity is Severity.WARNING
    place.later_ms = 0
    place.call("DELETE", counted)
    backend.terminate(waits.handle, force=False)
    place.reaches(backend)


def test_a_launch_is_refused_in_the_servers_words(place: Place) -> None:
    for options, words, kind in (
        ({"priority_class": "nonesuch"}, "nonesuch", RefusalKind.CONFIG),
        ({"node_selector": ("a b=c",)}, "nodeSelector", RefusalKind.CONFIG),
        ({"namespace": "kube-system"}, "cannot create resource", RefusalKind.AUTH),
    ):
        backend = place.backend("refused", **options)  # type: ignore[arg-type]
        check = next(one for one in backend.check() if one.subject == "dry run")
        outcome = backend.launch(place.submission("refused"))
        if isinstance(outcome, Accepted):  # then only its pods are refused
            place.later_ms = 60_000
            place.until(lambda backend=backend: backend.list().seen[0].refusal, "the event")  # type: ignore[misc]
            [seen] = backend.list().seen
            place.later_ms = 0
            assert (seen.refusal, words in seen.detail) == (kind, True)
            backend.terminate(seen.handle, force=True)
            place.reaches(backend)
        else:
            assert isinstance(outcome, Refused)
            assert (outcome.kind, words in outcome.text) == (kind, True)
            assert (check.severity, words in check.text) == (Severity.ERROR, True)
    assert not place.items("jobs", "worker-manager/pool=refused")


def test_a_watch_and_a_continuation_whose_past_is_compacted(place: Place) -> None:
    backend = place.backend("compacted")
    made = place.submission("compacted", 4)
    assert isinstance(backend.launch(made), Accepted)
    place.reaches(backend, *[WorkerPhase.PENDING] * 4)
    path, selector = "/apis/batch/v1/namespaces/workers/jobs", "worker-manager/pool=compacted"
    query = (("labelSelector", selector), ("limit", "2"))
    first = place.admin.call("GET", path, time.monotonic() + 60, query=query).thing()
    token = first["metadata"]["continue"]
    job = place.call("GET", f"{path}/{made.worker_id(0)}")
    job["metadata"]["annotations"]["touched"] = "yes"
    place.call("PUT", f"{path}/{made.worker_id(0)}", job)
    place.server.compact()
    gone = place.admin.call("GET", path, time.monotonic() + 60, query=(*query, ("continue", token)))
    assert gone.status == 410
    view = View(path, selector, 2)
    listed = view.look(place.admin, time.monotonic() + 60, watch=True)
    assert (len(listed.things), listed.complete) == (4, True)
    view._version = "1"  # as after a pause longer than the server remembers
    view._stream = view._open(place.admin)
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    place.call("DELETE", f"{path}/{made.worker_id(3)}", options)
    place.until(lambda: len(view.look(place.admin, time.monotonic() + 60, True).things) == 3, "a list instead")
    for one in backend.list().seen:
        backend.terminate(one.handle, force=True)
    place.reaches(backend)


def test_what_is_rendered_is_taken_by_the_server_as_it_is(place: Place) -> None:
    backend = place.backend("rendered", pod_template=str(FILES / "pod-template.yaml"))
    text = backend.render(place.submission("rendered", 2))
    for thing in yaml.safe_load_all(text.replace("'***'", "Kioq")):
        thing["metadata"].pop("ownerReferences", None)
        kind = {"Job": "/apis/batch/v1/namespaces/workers/jobs", "Secret": f"{IN_NAMESPACE}/secrets"}[thing["kind"]]
        made = place.call("POST", f"{kind}?dryRun=All", thing)
        assert made["metadata"]["name"] == thing["metadata"]["name"]
        if thing["kind"] == "Job":
            took, sent = made["spec"]["template"]["spec"], thing["spec"]["template"]["spec"]
            assert took["containers"][0]["command"] == sent["containers"][0]["command"]
            assert took["affinity"] == sent["affinity"]


def test_doctor_with_the_rights_of_the_role_and_without(place: Place) -> None:
    backend = place.backend("doctor", shape=Shape(cpus=1000, memory=2**30), service_account="worker",
                            work_claim="work", priority_class="worker", node_cpus=4000, node_memory=2**34)  # fmt: skip
    findings = {one.subject: one for one in backend.check()}
    assert [one for one in findings.values() if one.severity is Severity.ERROR] == []
    assert findings["rights"].text.startswith("all ")
    assert "not bound" in findings["volume claim"].text
    elsewhere = place.backend("doctor", namespace="default")
    assert {one.subject: one.severity for one in elsewhere.check()}["rights"] is Severity.ERROR
    with pytest.raises(NoAnswer):
        connect(Access(host="https://127.0.0.1:1"), "x").call("GET", "/version", time.monotonic() + 5)
