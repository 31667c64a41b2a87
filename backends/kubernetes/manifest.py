"""A submission → the objects that are sent: a Job for each worker, and one Secret with a key for each. Pure.

The pod sees of the Secret its own key only, as a file of mode 0400 (0440 where a group must read it). What stands in
the Job is no secret.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from backends.base import Submission
from backends.kubernetes import names, template
from backends.kubernetes.settings import Settings
from backends.sound import problem_of
from backends.start import Site, script, shell
from worker.protocol import Shape

TOKEN_FOLDER = "/var/run/secrets/worker-manager"  # noqa: S105 -- a place, no secret
TOKEN_FILE = f"{TOKEN_FOLDER}/join-token"
WORK_DIR = "/var/lib/worker-manager"  # where the pool says nothing
WALLTIME_SLACK_S = 120  # a worker leaves by itself when its time is over; this ends one that does not

# Nodes are taken away from under a pod by these, unless it says no; a worker that is idle leaves by itself.
STAY = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


def problem(submission: Submission, max_batch: int) -> str:
    """Why this submission can never be started, or nothing."""
    if wrong := problem_of(submission, max_batch):
        return wrong
    if submission.work_dir and not submission.work_dir.startswith("/"):
        return f"the work dir {submission.work_dir!r} is not an absolute path, so no volume can be mounted there"
    return ""


def secret(submission: Submission, owners: Mapping[str, str]) -> dict[str, Any]:
    """`owners`: the Jobs' names and UIDs. The cluster removes the Secret when the last of them is gone."""
    keys = {str(index): base64.b64encode(token.encode()).decode() for index, token in enumerate(submission.join_tokens)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": submission.id,
            "labels": names.labels(submission),
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid} for name, uid in owners.items()
            ],
        },
        "type": "Opaque",
        "immutable": True,
        "data": keys,
    }


def job(submission: Submission, index: int, settings: Settings) -> dict[str, Any]:
    labels = names.labels_of(submission, index)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": submission.worker_id(index), "labels": labels, "annotations": _annotations(submission)},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": settings.keep_ended_s,
            "template": pod(submission, index, settings),
        },
    }


def pod(submission: Submission, index: int, settings: Settings) -> dict[str, Any]:
    metadata = {"labels": names.labels_of(submission, index), "annotations": _annotations(submission) | STAY}
    ours = {"metadata": metadata, "spec": _spec(submission, index, settings)}
    whole: dict[str, Any] = template.merged(ours, settings.template)
    return whole


def _annotations(submission: Submission) -> dict[str, str]:
    """In full, whatever they are; a label's value may stand for one that cannot be a label."""
    return {
        names.MANAGER: submission.manager,
        names.POOL: submission.pool,
        names.SUBMISSION: submission.id,
        names.CONFIG: submission.config,
    }


def _spec(submission: Submission, index: int, settings: Settings) -> dict[str, Any]:
    shape = submission.shape
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.grace_s,
        "securityContext": _pod_security(settings.run_as_user),
        "containers": [_container(submission, index, settings)],
        "volumes": _volumes(submission, index, settings),
    }
    if shape.walltime:
        spec["activeDeadlineSeconds"] = shape.walltime // 1000 + WALLTIME_SLACK_S
    optional = {
        "nodeSelector": _node_selector(shape, settings),
        "tolerations": _tolerations(shape, settings),
        "serviceAccountName": settings.service_account,
        "priorityClassName": settings.priority_class,
        "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
    }
    return spec | {name: value for name, value in optional.items() if value}


def _container(submission: Submission, index: int, settings: Settings) -> dict[str, Any]:
    work_dir = submission.work_dir or WORK_DIR
    mounts = [{"name": "work", "mountPath": work_dir}]
    if submission.join_tokens:
        mounts.append({"name": "join-token", "mountPath": TOKEN_FOLDER, "readOnly": True})  # type: ignore[dict-item]
    home = [{"name": "HOME", "value": "/tmp"}] if settings.run_as_user else []  # noqa: S108 -- the pod's own
    container: dict[str, Any] = {
        "name": names.CONTAINER,
        "image": settings.image,
        "command": command(submission, index),
        "env": [*home, {"name": "WM_WORK_DIR", "value": work_dir}],
        "resources": resources(submission.shape, settings.gpu_resource),
        "securityContext": _container_security(settings.run_as_user),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    return container | ({"imagePullPolicy": settings.pull_policy} if settings.pull_policy else {})


def command(submission: Submission, index: int) -> list[str]:
    token = (f"WM_JOIN_TOKEN_FILE={TOKEN_FILE}", "export WM_JOIN_TOKEN_FILE") if submission.join_tokens else ()
    argv = shell(script(submission, Site(index=str(index), token=token)), submission.setup)
    return [unexpanded(word) for word in argv]


def unexpanded(text: str) -> str:
    """The cluster replaces `$(NAME)` in a command, and takes `$$` for one dollar."""
    return text.replace("$", "$$")


def resources(shape: Shape, gpu_resource: str) -> dict[str, Any]:
    """Requests equal limits: what the worker was promised, and no more."""
    amounts = {
        "cpu": f"{shape.cpus}m" if shape.cpus else "",
        "memory": str(shape.memory) if shape.memory else "",
        "ephemeral-storage": str(shape.disk) if shape.disk else "",
        gpu_resource: str(shape.gpus) if shape.gpus else "",
    }
    wanted = {name: amount for name, amount in amounts.items() if amount}
    return {"requests": wanted, "limits": dict(wanted)}


def _volumes(submission: Submission, index: int, settings: Settings) -> list[dict[str, Any]]:
    disk = submission.shape.disk
    own = {"emptyDir": {"sizeLimit": str(disk)} if disk else {}}
    volumes = [{"name": "work", **(settings.work_volume or own)}]
    if submission.join_tokens:
        only = [{"key": str(index), "path": TOKEN_FILE.rpartition("/")[2]}]
        shown = {"secretName": submission.id, "defaultMode": 0o400, "items": only}
        volumes.append({"name": "join-token", "secret": shown})
    return volumes


def _node_selector(shape: Shape, settings: Settings) -> dict[str, str]:
    by_type = {settings.gpu_type_label: shape.gpu_type} if settings.gpu_type_label and shape.gpu_type else {}
    return {**by_type, **settings.node_selector}


def _tolerations(shape: Shape, settings: Settings) -> Sequence[Mapping[str, str]]:
    """Nodes with GPUs are commonly tainted with the resource's name."""
    gpu = {"key": settings.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}
    return [*settings.tolerations, *([gpu] if shape.gpus else [])]


def _pod_security(user: int) -> dict[str, Any]:
    anyone = {"seccompProfile": {"type": "RuntimeDefault"}}
    if not user:
        return anyone
    ids = {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "fsGroup": user}
    return anyone | ids | {"fsGroupChangePolicy": "OnRootMismatch"}


def _container_security(user: int) -> dict[str, Any]:
    """For another user than root it is the restricted profile; root keeps what it needs to become its jobs' users."""
    return {"allowPrivilegeEscalation": False} | ({"capabilities": {"drop": ["ALL"]}} if user else {})


def rendered(submission: Submission, settings: Settings, namespace: str) -> str:
    """As YAML that `kubectl create -f -` would take, with every token masked."""
    import yaml

    objects = [job(submission, index, settings) for index in range(submission.count)]
    if submission.join_tokens:
        masked = secret(submission, {submission.worker_id(index): "***" for index in range(submission.count)})
        masked["data"] = dict.fromkeys(masked["data"], "***")
        objects.append(masked)
    for one in objects:
        one["metadata"] = {"namespace": namespace, **one["metadata"]} if namespace else one["metadata"]
    text: str = yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True, width=120)
    return text
