"""A submission → the two requests of a launch: the job definition, and the job that is made from it. Pure.

What is the same for every launch of a pool stands in the definition, whose name holds a digest of its content: it is
registered once, and found by its name ever after. What differs (the submission's id, the join tokens) goes as
variables of the one job.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from backends.aws_batch import fargate
from backends.aws_batch.settings import Settings, Volume
from backends.base import Submission
from backends.sound import problem_of
from backends.start import Site, script, shell
from worker.protocol import Shape

# https://docs.aws.amazon.com/batch/latest/userguide/service_limits.html
MOST_DEFINITION_BYTES = 24 * 1024
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html
MOST_OVERRIDE_BYTES = 8192
KEPT_FOR_BATCH = 1200  # its own variables: the job's id, the names of queue and environment, the index, …
MAX_BATCH = 150  # as many join tokens of 43 characters as fit

DEFAULT_MEMORY = 2048 * 2**20  # where a pool says nothing; Batch wants a number
SHORTEST_TIMEOUT_S = 60

_MIB = 2**20
_SUBMISSION = re.compile(r"[a-z]([a-z0-9-]{0,34}[a-z0-9])?")
_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{1,200}")

# The tokens of a whole array come in one variable. Each worker keeps its own, in a file of mode 0600 (the umask is
# 077), and the variable is gone before anything else is run.
_OWN_TOKEN = (
    'if [ -n "$WM_JOIN_TOKENS" ]; then',
    "    WM_JOIN_TOKEN_FILE=$(mktemp -d)/token || exit 1",
    '    (IFS=,; set -f; set -- $WM_JOIN_TOKENS; shift "$WM_INDEX"; printf %s "$1" >"$WM_JOIN_TOKEN_FILE") || exit 1',
    "    export WM_JOIN_TOKEN_FILE",
    "    unset WM_JOIN_TOKENS WM_SUBMISSION",
    "fi",
)
_SITE = Site(submission='"$WM_SUBMISSION"', index='"${AWS_BATCH_JOB_ARRAY_INDEX:-0}"', token=_OWN_TOKEN)


def problem(submission: Submission, settings: Settings) -> str:
    """Why this submission can never be started, or nothing."""
    if wrong := problem_of(submission, MAX_BATCH):
        return wrong
    if not _SUBMISSION.fullmatch(submission.id):
        return f"{submission.id} does not begin with a letter, so no listing would find it"
    if not all(map(_TOKEN.fullmatch, submission.join_tokens)):
        return "a join token holds characters that no token has"
    return shape_problem(submission.shape, settings) or _too_long(submission, settings)


def shape_problem(shape: Shape, settings: Settings) -> str:
    if not settings.fargate:
        return ""
    if shape.gpus:
        return "Fargate has no GPUs"
    if fargate.smallest(shape.cpus, _mib(shape.memory)) is None:
        return f"Fargate has no size for {shape.cpus / 1000:g} CPUs and {_mib(shape.memory)} MiB"
    if -(-shape.disk // 2**30) > fargate.LARGEST_DISK_GIB:
        return f"Fargate has at most {fargate.LARGEST_DISK_GIB} GiB of disk"
    return ""


def _too_long(submission: Submission, settings: Settings) -> str:
    size = len(_json(definition(submission, settings)))
    if size > MOST_DEFINITION_BYTES:
        return f"the job definition has {size} bytes, {MOST_DEFINITION_BYTES} are possible: shorten the set-up lines"
    size = len(_json(overrides(submission)))
    if size > MOST_OVERRIDE_BYTES - KEPT_FOR_BATCH:
        return f"the variables of {submission.count} workers have {size} bytes, which is too much for one job"
    return ""


# ---------------------------------------------------------------- the job definition


def definition(submission: Submission, settings: Settings) -> dict[str, Any]:
    """The request that registers it. The same content has the same name, whoever asks."""
    request: dict[str, Any] = {
        "type": "container",
        "platformCapabilities": ["FARGATE" if settings.fargate else "EC2"],
        "containerProperties": _container(submission, settings),
        "retryStrategy": {"attempts": 1},  # a second attempt would be a second worker of the same name
        "propagateTags": True,
        "tags": dict(settings.tags) | {"wm-manager": submission.manager, "wm-pool": submission.pool},
    }
    if submission.shape.walltime:
        request["timeout"] = {"attemptDurationSeconds": max(SHORTEST_TIMEOUT_S, -(-submission.shape.walltime // 1000))}
    digest = hashlib.sha256(_json(request)).hexdigest()[:16]
    return {"jobDefinitionName": f"{settings.prefix}-{digest}"} | request


def runs_the_same(found: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    """Batch adds defaults to what it shows, so what decides is compared: the program, its image, and as whom."""
    theirs, ours = found.get("containerProperties") or {}, request["containerProperties"]
    return all(theirs.get(name) == ours.get(name) for name in ("command", "image", "user"))


def _container(submission: Submission, settings: Settings) -> dict[str, Any]:
    made: dict[str, Any] = {
        "image": settings.image,
        "command": list(shell(_no_references(script(submission, _SITE)), submission.setup)),
        "user": settings.user,
        "resourceRequirements": _resources(submission, settings),
    }
    optional = {
        "jobRoleArn": settings.job_role,
        "executionRoleArn": settings.execution_role,
        "secrets": [{"name": name, "valueFrom": arn} for name, arn in settings.secrets],
        "privileged": settings.privileged,
        "linuxParameters": _linux(settings),
        "logConfiguration": _logging(settings),
        **_mounts(submission, settings),
        **(_on_fargate(submission, settings) if settings.fargate else {}),
    }
    return made | {name: value for name, value in optional.items() if value}


def _no_references(text: str) -> str:
    """Batch replaces `Ref::name` in a command by a parameter. Two quotes in the middle mean nothing to a shell, within
    single quotes as well as outside, and Batch no longer sees a reference."""
    return text.replace("Ref::", "Ref''::")


def _resources(submission: Submission, settings: Settings) -> list[dict[str, str]]:
    cpus, memory = size(submission.shape.cpus, submission.shape.memory, settings.fargate)
    wanted = [("VCPU", f"{cpus / 1000:g}"), ("MEMORY", str(memory))]
    if submission.shape.gpus:
        wanted.append(("GPU", str(submission.shape.gpus)))
    return [{"type": kind, "value": value} for kind, value in wanted]


def size(milli_cpus: int, memory: int, on_fargate: bool) -> tuple[int, int]:
    """(milli-vCPUs, MiB), rounded up to what can be had: whole vCPUs on EC2, one of the sizes of Fargate."""
    if on_fargate and (found := fargate.smallest(milli_cpus, _mib(memory))):
        return found
    return max(1, -(-milli_cpus // 1000)) * 1000, _mib(memory)


def _mib(memory: int) -> int:
    return max(4, -(-(memory or DEFAULT_MEMORY) // _MIB))


def _linux(settings: Settings) -> dict[str, Any]:
    """No init process: it would keep the first environment, with the tokens, for as long as the container lives."""
    return {"sharedMemorySize": -(-settings.shared_memory // _MIB)} if settings.shared_memory else {}


def _logging(settings: Settings) -> dict[str, Any]:
    if not settings.log_group:
        return {}
    return {"logDriver": "awslogs", "options": {"awslogs-group": settings.log_group}}


def _mounts(submission: Submission, settings: Settings) -> dict[str, Any]:
    volumes = list(settings.volumes)
    if submission.work_dir:
        volumes.insert(0, _work_dir(submission.work_dir, settings))
    volumes = [volume for volume in volumes if volume.source]
    return {
        "volumes": [_volume(f"v{number}", volume, settings) for number, volume in enumerate(volumes)],
        "mountPoints": [
            {"sourceVolume": f"v{number}", "containerPath": volume.path, "readOnly": volume.read_only}
            for number, volume in enumerate(volumes)
        ],
    }


def _work_dir(path: str, settings: Settings) -> Volume:
    """On EC2 the host's folder of the same path is meant where nothing is said; Fargate has no host."""
    given = settings.work_dir_volume
    if given is None:
        return Volume("" if settings.fargate else path, path)
    return Volume(given.source, path, given.file_system)


def _volume(name: str, volume: Volume, settings: Settings) -> dict[str, Any]:
    if not volume.file_system:
        return {"name": name, "host": {"sourcePath": volume.source}}
    efs: dict[str, Any] = {"fileSystemId": volume.file_system, "transitEncryption": "ENABLED"}
    if settings.access_point:  # it has a root of its own, and AWS refuses another
        efs["authorizationConfig"] = {"accessPointId": settings.access_point, "iam": "ENABLED"}
    else:
        efs["rootDirectory"] = volume.source
    return {"name": name, "efsVolumeConfiguration": efs}


def _on_fargate(submission: Submission, settings: Settings) -> dict[str, Any]:
    disk = -(-submission.shape.disk // 2**30)
    return {
        "fargatePlatformConfiguration": {"platformVersion": "LATEST"},
        "networkConfiguration": {"assignPublicIp": "ENABLED" if settings.public_ip else "DISABLED"},
        "ephemeralStorage": {"sizeInGiB": disk} if disk >= fargate.SMALLEST_DISK_GIB else None,
    }


# ---------------------------------------------------------------- the job


def job(submission: Submission, settings: Settings, definition_id: str) -> dict[str, Any]:
    """The request that submits it. An array has at least two children, so one worker is a plain job."""
    request: dict[str, Any] = {
        "jobName": job_name(submission.manager, submission.pool, submission.id),
        "jobQueue": settings.queue,
        "jobDefinition": definition_id,
        "containerOverrides": overrides(submission),
        "tags": dict(settings.tags)
        | {"wm-manager": submission.manager, "wm-pool": submission.pool, "wm-submission": submission.id},
        "propagateTags": True,
    }
    if submission.count > 1:
        request["arrayProperties"] = {"size": submission.count}
    if settings.share:
        request["shareIdentifier"] = settings.share
    if settings.priority is not None:
        request["schedulingPriorityOverride"] = settings.priority
    return request


def overrides(submission: Submission) -> dict[str, Any]:
    variables = {"WM_SUBMISSION": submission.id}
    if submission.join_tokens:
        variables["WM_JOIN_TOKENS"] = ",".join(submission.join_tokens)
    return {"environment": [{"name": name, "value": value} for name, value in variables.items()]}


def prefix(manager: str, pool: str) -> str:
    """What the names of this pool's jobs begin with. Neither a manager nor a pool has an underscore in its name, so no
    other pair has the same."""
    return f"{manager}__{pool}__"


def job_name(manager: str, pool: str, submission: str) -> str:
    return prefix(manager, pool) + submission


def submission_in(name: str, manager: str, pool: str) -> str | None:
    """None for the job of somebody else."""
    beginning = prefix(manager, pool)
    rest = name.removeprefix(beginning)
    return rest if name.startswith(beginning) and _SUBMISSION.fullmatch(rest) else None


def rendered(submission: Submission, settings: Settings) -> str:
    """Both requests, as JSON. The tokens are masked."""
    made = definition(submission, settings)
    asked = job(submission, settings, made["jobDefinitionName"])
    for variable in asked["containerOverrides"]["environment"]:
        if variable["name"] == "WM_JOIN_TOKENS":
            variable["value"] = ",".join(["***"] * submission.count)
    return "\n".join(
        (
            "# batch.RegisterJobDefinition, once: not when a definition of this name is there",
            _shown(made),
            "# batch.SubmitJob, with the revision of that definition behind its name",
            _shown(asked),
            "",
        )
    )


def _shown(request: Mapping[str, Any]) -> str:
    return json.dumps(request, indent=2, ensure_ascii=False)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
