"""What `doctor` finds: is the cluster reached, may we, is what the options name there, does the shape fit a node, and
would the server take the Job. Reads, asks for reviews and makes one dry run; nothing is changed.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.base import Context, Finding, Severity, Submission
from backends.kubernetes import manifest
from backends.kubernetes.api import Answer, Api, NoAccess, NoAnswer, Query
from backends.kubernetes.quantities import amount, fits_words, shown
from backends.kubernetes.settings import Settings
from worker.protocol import Shape

BATCH, CORE = "apis/batch/v1", "api/v1"

# Every right that the backend uses: (API group, resource, verb). The Role in docs/backends/kubernetes grants these.
RIGHTS = (
    ("batch", "jobs", "create"),
    ("batch", "jobs", "list"),
    ("batch", "jobs", "watch"),
    ("batch", "jobs", "delete"),
    ("batch", "jobs", "deletecollection"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "pods", "deletecollection"),
    ("", "pods/log", "get"),
    ("", "secrets", "create"),
    ("", "events", "list"),
)
# What `check` alone reads. Without these it says less, and nothing else changes.
RIGHTS_TO_LOOK = (
    ("", "serviceaccounts", "get"),
    ("", "persistentvolumeclaims", "get"),
    ("", "resourcequotas", "list"),
)
RIGHTS_IN_THE_CLUSTER = (("", "nodes", "list"), ("scheduling.k8s.io", "priorityclasses", "get"))

ROLE = "docs/backends/kubernetes/role.yaml"


def findings(connect: Callable[[], Api], chosen: Settings, context: Context) -> tuple[Finding, ...]:
    try:
        return tuple(_Doctor(connect(), chosen, context, time.monotonic() + context.call_timeout_s).all())
    except NoAccess as failed:
        mend = "check --kubeconfig and --context, or give --cluster-host with --auth-token and --cert-path"
        return (Finding("credentials", Severity.ERROR, str(failed), mend),)
    except NoAnswer as failed:
        mend = "check the address and that this machine may connect to it: kubectl version"
        return (Finding("cluster", Severity.ERROR, str(failed), mend),)


@dataclass(frozen=True)
class _Doctor:
    api: Api
    chosen: Settings
    context: Context
    deadline: float

    def all(self) -> Iterator[Finding]:
        """The first that fails for want of an answer ends it: NoAnswer."""
        version = self._get("/version")
        if version.status == 401:
            mend = "renew the token: kubectl create token NAME --duration=24h"
            yield Finding("credentials", Severity.ERROR, version.words(), mend)
            return
        told = version.thing().get("gitVersion", "of an unknown version") if version.good else version.words()
        yield Finding("cluster", Severity.OK, f"{self.api.host}, {told}, namespace {self.api.namespace}")
        yield from self._rights()
        yield from self._named()
        yield from self._quota()
        yield from self._room()
        yield self._dry_run()

    # ------------------------------------------------ rights

    def _rights(self) -> Iterator[Finding]:
        missing = [f"{verb} {kind}" for group, kind, verb in RIGHTS if not self._may(group, kind, verb)]
        if missing:
            mend = f"kubectl apply -n {self.api.namespace} -f {ROLE}, bound to the account in use"
            yield Finding("rights", Severity.ERROR, f"not allowed: {', '.join(missing)}", mend)
        else:
            yield Finding("rights", Severity.OK, f"all {len(RIGHTS)} that a launch, a list and an end need")

    def _may(self, group: str, kind: str, verb: str) -> bool:
        resource, _, sub = kind.partition("/")
        wanted = {"namespace": self.api.namespace, "group": group, "resource": resource, "verb": verb}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted | ({"subresource": sub} if sub else {})},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self.api.call("POST", path, self.deadline, body=body)
        return answer.good and bool(answer.thing().get("status", {}).get("allowed"))

    # ------------------------------------------------ what the options name

    def _named(self) -> Iterator[Finding]:
        claim = ((self.chosen.work_volume or {}).get("persistentVolumeClaim") or {}).get("claimName", "")
        wanted = (
            ("service account", self.chosen.service_account, self.api.place(CORE, "serviceaccounts")),
            ("volume claim", claim, self.api.place(CORE, "persistentvolumeclaims")),
            ("priority class", self.chosen.priority_class, "/apis/scheduling.k8s.io/v1/priorityclasses"),
        )
        for subject, name, path in wanted:
            if name:
                yield _there(subject, name, self._get(f"{path}/{name}"))

    def _quota(self) -> Iterator[Finding]:
        answer = self._get(self.api.place(CORE, "resourcequotas"))
        for quota in _items(answer):
            hard, used = quota.get("status", {}).get("hard") or {}, quota.get("status", {}).get("used") or {}
            full = [name for name in hard if _left(hard, used, name) <= 0]
            name = quota.get("metadata", {}).get("name", "?")
            if full:
                text = ", ".join(f"{each}: {used.get(each, 0)} of {hard[each]} used" for each in full)
                yield Finding(f"quota {name}", Severity.WARNING, text, "free some, or have the quota raised")
            else:
                yield Finding(f"quota {name}", Severity.OK, f"room in each of {', '.join(sorted(hard)) or 'nothing'}")

    # ------------------------------------------------ room

    def _room(self) -> Iterator[Finding]:
        shape = self.context.shape
        if shape is None:
            return
        answer = self._get("/api/v1/nodes")
        nodes = [node for node in _items(answer) if _suits(node, self.chosen, shape)]
        if nodes:
            yield self._on_nodes(shape, nodes)
        elif self.chosen.node:
            yield self._on_paper(shape, self.chosen.node)
        else:
            why = "no node matches the node selector now" if answer.good else f"nodes cannot be seen: {answer.words()}"
            mend = "say what a node of the pool will have: --node-cpus and --node-memory"
            yield Finding("node size", Severity.WARNING, f"{why}; whether the shape fits is not known", mend)

    def _on_nodes(self, shape: Shape, nodes: Sequence[Mapping[str, Any]]) -> Finding:
        gpu = self.chosen.gpu_resource
        rooms = [tuple(_allocatable(node, name) for name in ("cpu", "memory", gpu)) for node in nodes]
        best = [fits_words(shape, (int(cpu * 1000), int(memory), int(gpus))) for cpu, memory, gpus in rooms]
        largest = max(rooms, key=lambda room: room[1])
        has = shown(int(largest[0] * 1000), int(largest[1]), int(largest[2]))
        if "" in best:
            return Finding("node size", Severity.OK, f"the shape fits; the largest node has {has} allocatable")
        mend = "make the workers smaller: some of a node's memory and CPU is kept for the system"
        return Finding(
            "node size", Severity.ERROR, f"{min(best, key=len)}: the largest node has {has} allocatable", mend
        )

    def _on_paper(self, shape: Shape, nominal: tuple[int, int, int]) -> Finding:
        """No node is there to ask: of what one is sold with, pods get a part."""
        part = self.chosen.allocatable
        room = int(nominal[0] * part), int(nominal[1] * part), nominal[2]
        has = f"{shown(*room)}, {part:.0%} of a node's nominal size (no node is there to ask)"
        if short := fits_words(shape, room):
            mend = f"make the workers smaller, such as --memory {shown(0, room[1], 0)}"
            return Finding("node size", Severity.ERROR, f"{short}: pods get {has}", mend)
        return Finding("node size", Severity.OK, f"the shape fits into {has}")

    # ------------------------------------------------ a dry run

    def _dry_run(self) -> Finding:
        """With the pool's own shape, as the server would see it: admission, Pod Security and the template included."""
        submission = Submission(
            id=_sample_id(self.context.manager),
            count=1,
            pool=self.context.pool,
            manager=self.context.manager,
            shape=self.context.shape or Shape(),
            command=("true",),
            environment={},
            join_tokens=(),
        )
        body = manifest.job(submission, 0, self.chosen)
        path = self.api.place(BATCH, "jobs")
        answer = self.api.call("POST", path, self.deadline, query=(("dryRun", "All"),), body=body)
        warnings = {name.lower(): value for name, value in answer.headers.items()}.get("warning", "")
        if not answer.good:
            mend = "change what it names: worker-manager render shows the whole Job"
            return Finding("dry run", Severity.ERROR, f"the server would refuse a Job: {answer.words()}", mend)
        if warnings:
            mend = "change what it names: worker-manager render shows the whole Job"
            return Finding("dry run", Severity.WARNING, f"the server would take a Job, and warns: {warnings}", mend)
        return Finding("dry run", Severity.OK, "the server would take a Job of this pool")

    def _get(self, path: str, query: Query = ()) -> Answer:
        return self.api.call("GET", path, self.deadline, query=query)


def _sample_id(manager: str) -> str:
    return f"{manager[:20].strip('-')}-doctor" if manager else "doctor"


def _there(subject: str, name: str, answer: Answer) -> Finding:
    if answer.good:
        phase = str(answer.thing().get("status", {}).get("phase") or "there")
        if phase == "Pending":
            mend = f"kubectl describe pvc {name}"
            return Finding(subject, Severity.WARNING, f"{name}: is not bound yet", mend)
        return Finding(subject, Severity.OK, f"{name}: {phase.lower()}")
    if answer.status == 403:
        return Finding(subject, Severity.WARNING, f"{name}: may not be looked at", f"apply {ROLE}, or go on without")
    return Finding(subject, Severity.ERROR, f"{name}: {answer.words()}", f"create it, or leave the {subject} out")


def _items(answer: Answer) -> list[Mapping[str, Any]]:
    return list(answer.thing().get("items") or ()) if answer.good else []


def _left(hard: Mapping[str, Any], used: Mapping[str, Any], name: str) -> float:
    return amount(hard[name]) - amount(used.get(name, "0"))


def _allocatable(node: Mapping[str, Any], name: str) -> float:
    return amount((node.get("status", {}).get("allocatable") or {}).get(name, "0"))


def _suits(node: Mapping[str, Any], chosen: Settings, shape: Shape) -> bool:
    """It would be looked at for such a pod: ready, schedulable, with the labels that are asked for."""
    labels = node.get("metadata", {}).get("labels") or {}
    by_type = {chosen.gpu_type_label: shape.gpu_type} if chosen.gpu_type_label and shape.gpu_type else {}
    wanted = {**by_type, **chosen.node_selector}
    ready = [one.get("status") for one in node.get("status", {}).get("conditions") or () if one.get("type") == "Ready"]
    if node.get("spec", {}).get("unschedulable") or (ready and ready[0] != "True"):
        return False
    if not _allocatable(node, "memory"):
        return False  # it has not said what it has
    if shape.gpus and not _allocatable(node, chosen.gpu_resource):
        return False  # not a node of the GPU pool
    return all(labels.get(name) == value for name, value in wanted.items())
