"""Job, pod and event → Seen. The platform's states in one table; whatever is not in it is UNKNOWN. Pure.

Pod phases, container states and their reasons: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
Job conditions: https://kubernetes.io/docs/concepts/workloads/controllers/job/
Reasons of an eviction: https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from backends.base import RefusalKind, Seen, WorkerPhase, clipped
from backends.kubernetes import names
from backends.kubernetes.answers import kind_of_event

Thing = Mapping[str, Any]

PHASES = {
    "Pending": WorkerPhase.PENDING,  # or STARTING: see _pending
    "Running": WorkerPhase.RUNNING,
    "Succeeded": WorkerPhase.ENDED,
    "Failed": WorkerPhase.ENDED,
    "Unknown": WorkerPhase.UNKNOWN,  # its node is silent
}

# Why a pod or container is stuck or has ended → what that means for the next launch. What is not here says nothing
# about the platform: the worker's own end.
REASONS = {
    "Unschedulable": RefusalKind.CAPACITY,
    "ErrImagePull": RefusalKind.CONFIG,
    "ImagePullBackOff": RefusalKind.CONFIG,
    "ImageInspectError": RefusalKind.CONFIG,
    "ErrImageNeverPull": RefusalKind.CONFIG,
    "InvalidImageName": RefusalKind.CONFIG,
    "RegistryUnavailable": RefusalKind.CONFIG,
    "CreateContainerConfigError": RefusalKind.CONFIG,
    "CreateContainerError": RefusalKind.CONFIG,
    "RunContainerError": RefusalKind.CONFIG,
    "ContainerCannotRun": RefusalKind.CONFIG,
    "StartError": RefusalKind.CONFIG,
    "OOMKilled": RefusalKind.CONFIG,  # its memory limit is too low for what it runs
    "Evicted": RefusalKind.CAPACITY,
    "Preempting": RefusalKind.CAPACITY,
    "NodeLost": RefusalKind.CAPACITY,
    "NodeShutdown": RefusalKind.CAPACITY,
    "Terminated": RefusalKind.CAPACITY,  # with its node
    "OutOfcpu": RefusalKind.CAPACITY,
    "OutOfmemory": RefusalKind.CAPACITY,
    "OutOfpods": RefusalKind.CAPACITY,
    "UnexpectedAdmissionError": RefusalKind.CAPACITY,
    "NodeAffinity": RefusalKind.CAPACITY,
    "PreemptionByScheduler": RefusalKind.CAPACITY,
    "DeletionByTaintManager": RefusalKind.CAPACITY,
    "EvictionByEvictionAPI": RefusalKind.CAPACITY,
    "DeletionByPodGC": RefusalKind.CAPACITY,
    "TerminationByKubelet": RefusalKind.CAPACITY,
}


def workers(jobs: Iterable[Thing], pods: Iterable[Thing], events: Mapping[str, str]) -> tuple[Seen, ...]:
    """Of everything with a pool's labels. A pod whose Job is gone may still run, so it counts. `events`: by the UID
    of a Job, why it got no pod."""
    by_job: dict[str, Thing] = {uid(job): job for job in jobs}
    pods_of: dict[str, list[Thing]] = {key: [] for key in by_job}
    for pod in pods:
        pods_of.setdefault(owner(pod), []).append(pod)
    seen = [
        one
        for key, some in pods_of.items()
        if (one := _worker(key, by_job.get(key), _foremost(some), events.get(key, "")))
    ]
    return tuple(sorted(seen, key=lambda one: (one.submission, one.index, one.handle)))


def without_pod(jobs: Iterable[Thing], pods: Iterable[Thing]) -> tuple[Thing, ...]:
    """Jobs that are to have one and have none."""
    have = {owner(pod) for pod in pods}
    return tuple(job for job in jobs if uid(job) not in have and _of_job(job, "")[0] is WorkerPhase.PENDING)


def uid(thing: Thing) -> str:
    return str(thing.get("metadata", {}).get("uid", ""))


def owner(pod: Thing) -> str:
    """The UID of its Job. Without one it stands for itself: then nothing but its own name can end it."""
    found = [ref for ref in pod.get("metadata", {}).get("ownerReferences") or () if ref.get("kind") == "Job"]
    label = (pod.get("metadata", {}).get("labels") or {}).get(names.CONTROLLER_UID, "")
    return str(found[0].get("uid")) if found else str(label or uid(pod))


def milliseconds(text: object) -> int | None:
    """Of a time as the API writes it."""
    try:
        return int(datetime.fromisoformat(str(text)).timestamp() * 1000)
    except ValueError:
        return None


def _foremost(pods: Sequence[Thing]) -> Thing | None:
    """Of several, one that is not over, and the newest."""
    over = ("Succeeded", "Failed")
    return max(
        pods,
        key=lambda pod: (_status(pod).get("phase") not in over, str(pod["metadata"].get("creationTimestamp", ""))),
        default=None,
    )


def _worker(key: str, job: Thing | None, pod: Thing | None, event: str) -> Seen | None:
    thing = job or pod or {}
    whose = names.worker_of(thing)
    if whose is None:
        return None
    submission, index = whose
    if pod is not None:
        phase, refusal, detail = _of_pod(pod)
    else:
        phase, refusal, detail = _of_job(job or {}, event)
    if job is not None and _deleted(job) and phase in (WorkerPhase.PENDING, WorkerPhase.STARTING, WorkerPhase.RUNNING):
        phase = WorkerPhase.ENDING
    state = _container(pod).get("state") or {} if pod is not None else {}
    run = state.get("terminated") or state.get("running") or {}
    return Seen(
        submission=submission,
        index=index,
        handle=str(names.Handle(f"{submission}-{index}", key)),
        phase=phase,
        started_at=milliseconds(run["startedAt"]) if run.get("startedAt") else None,
        exit_code=_exit_code(state),
        refusal=refusal,
        detail=clipped(detail),
    )


# ---------------------------------------------------------------- a pod

_Found = tuple[WorkerPhase, RefusalKind | None, str]


def _of_pod(pod: Thing) -> _Found:
    status = _status(pod)
    phase = PHASES.get(str(status.get("phase")), WorkerPhase.UNKNOWN)
    if phase is WorkerPhase.ENDED:
        return _ended(pod)
    if phase is WorkerPhase.UNKNOWN:
        refusal, words = REASONS.get(str(status.get("reason"))), _words(status.get("reason"), status.get("message"))
        return phase, refusal, words or f"pod phase {status.get('phase')}"
    if _deleted(pod):
        _, refusal, words = _disruption(pod)
        return WorkerPhase.ENDING, refusal, words or _node(pod)
    if phase is WorkerPhase.PENDING:
        return _pending(pod)
    if (_container(pod).get("state") or {}).get("terminated"):
        return WorkerPhase.ENDING, None, "the worker has ended, and what a template put beside it runs on"
    return phase, None, _node(pod)


def _pending(pod: Thing) -> _Found:
    """Without a node it waits for one; with one it is being set up."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") != "True" and not pod.get("spec", {}).get("nodeName"):
        words = _words(scheduled.get("reason"), scheduled.get("message"))
        return WorkerPhase.PENDING, REASONS.get(str(scheduled.get("reason"))), words
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in REASONS:
            words = _words(waiting.get("reason"), waiting.get("message"))
            return WorkerPhase.STARTING, REASONS[waiting["reason"]], words
    return WorkerPhase.STARTING, None, _node(pod)


def _ended(pod: Thing) -> _Found:
    """The nearest reason that means something for the next launch, else the container's own words."""
    status = _status(pod)
    terminated = (_container(pod).get("state") or {}).get("terminated") or {}
    of_the_pod = (str(status.get("reason") or ""), status.get("message"))
    of_the_container = (str(terminated.get("reason") or ""), terminated.get("message"))
    disruption, refusal, words = _disruption(pod)
    for reason, message in (of_the_pod, of_the_container):
        if reason in REASONS:
            return WorkerPhase.ENDED, REASONS[reason], _words(reason, message)
    if disruption:
        return WorkerPhase.ENDED, refusal, words
    reason, message = of_the_pod if of_the_pod[0] else of_the_container
    return WorkerPhase.ENDED, None, _words(reason, message)


def _disruption(pod: Thing) -> tuple[str, RefusalKind | None, str]:
    """The cluster, not the worker, decided that it ends."""
    found = _condition(pod, "DisruptionTarget")
    if found.get("status") != "True":
        return "", None, ""
    reason = str(found.get("reason") or "DisruptionTarget")
    return reason, REASONS.get(reason, RefusalKind.CAPACITY), _words(reason, found.get("message"))


def _node(pod: Thing) -> str:
    name = pod.get("spec", {}).get("nodeName")
    return f"node {name}" if name else ""


def _container(pod: Thing) -> Thing:
    """Ours; what a template puts beside it is no worker."""
    found = _status(pod).get("containerStatuses") or ()
    return next((one for one in found if one.get("name") == names.CONTAINER), {})


def _containers(pod: Thing) -> list[Thing]:
    return [*(_status(pod).get("initContainerStatuses") or ()), *(_status(pod).get("containerStatuses") or ())]


def _exit_code(state: Thing) -> int | None:
    code = (state.get("terminated") or {}).get("exitCode")
    return code if isinstance(code, int) else None


# ---------------------------------------------------------------- a Job without a pod


def _of_job(job: Thing, event: str) -> _Found:
    status = _status(job)
    for kind in ("Failed", "Complete"):
        condition = _condition(job, kind)
        if condition.get("status") == "True":
            words = _words(condition.get("reason"), condition.get("message")) if kind == "Failed" else ""
            return WorkerPhase.ENDED, None, words
    if _condition(job, "Suspended").get("status") == "True":
        return WorkerPhase.PENDING, RefusalKind.QUOTA, "the Job is suspended: a queue of the cluster holds it"
    if status.get("active"):
        return (WorkerPhase.RUNNING if status.get("ready") else WorkerPhase.STARTING), None, ""
    if event:
        return WorkerPhase.PENDING, kind_of_event(event), event
    return WorkerPhase.PENDING, None, ""


# ---------------------------------------------------------------- both


def _status(thing: Thing) -> Thing:
    return thing.get("status") or {}


def _deleted(thing: Thing) -> bool:
    return bool(thing.get("metadata", {}).get("deletionTimestamp"))


def _condition(thing: Thing, kind: str) -> Thing:
    return next((one for one in _status(thing).get("conditions") or () if one.get("type") == kind), {})


def _words(reason: object, message: object) -> str:
    return ": ".join(str(word) for word in (reason, message) if word)
