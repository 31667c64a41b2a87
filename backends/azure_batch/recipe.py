"""A submission → the tasks that are its workers, as the request's own JSON. Asks nobody anything.

A task's id is the worker's, and its display name says whose it is. The start script travels packed in an environment
variable, so that the command line is the same for every worker and holds no text of anybody's.
The join token is an environment variable too. A resource file would be no safer: it lies in a storage account, and the
SAS that opens it would stand in the same task. Whoever may read the account's tasks can read the token; it is good for
one registration and useless afterwards. On the node it is moved to a file of mode 0600 before the worker begins.
"""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backends.azure_batch.settings import Settings
from backends.base import Submission
from backends.sound import NAME, problem_of
from backends.start import Site, script

MAX_BATCH = 100  # tasks in one call, says the service
MOST_BYTES = 1_000_000  # of one call, says the service: 1 MB
LONGEST_VARIABLE = 100_000  # Linux takes 131,072 bytes of one
MARGIN_MS = 300_000  # the worker knows its own walltime, and leaves before it; this is for one that does not
OUTPUT = "stdout.txt"
MASK = "***"

TOKEN = "WM_JOIN_TOKEN"  # noqa: S105 -- a variable's name
START = "WM_START"

_UNPACK = f'exec 2>&1; wm_start=$(printf %s "${START}" | base64 -d | gzip -dc) || exit 127; unset {START}; '
_RUN = f"/bin/sh -c '{_UNPACK}eval \"$wm_start\"'"
# People write set-up lines for bash.
_RUN_SETUP = f'/bin/sh -c \'{_UNPACK}exec "$(command -v bash || command -v sh)" -c "$wm_start"\''

# Beside the task's other files, which go with it; elsewhere where a container's user may not write there.
_TOKEN_FILE = (
    'WM_JOIN_TOKEN_FILE=$(mktemp -p "${AZ_BATCH_TASK_DIR:-.}" 2>/dev/null || mktemp)',
    f'printf %s "${TOKEN}" > "$WM_JOIN_TOKEN_FILE"',
    f"unset {TOKEN}",
    "export WM_JOIN_TOKEN_FILE",
)

_HANDLE = re.compile(rf"({NAME.pattern})-(0|[1-9]\d{{0,2}})")
_NODE_ROOT = "/mnt/batch/tasks"  # every container sees it
_PLAIN_PATH = re.compile(r"/[\w./@+-]*")


def prefix(manager: str) -> str:
    """What every id of this manager's submissions begins with, so that the service can be asked for them alone."""
    label = re.sub(r"[^a-z0-9-]+", "-", manager.lower()).strip("-")[:18].strip("-")
    return (label if label and label[0].isalpha() else f"m{label}"[:18]) + "-"


def is_handle(text: str, manager: str) -> bool:
    """Whether it can be a worker of this manager: only then is the service asked."""
    return bool(_HANDLE.fullmatch(text)) and text.startswith(prefix(manager))


def problem(submission: Submission) -> str:
    """Why this submission can never be launched, or nothing."""
    if wrong := problem_of(submission, MAX_BATCH):
        return wrong
    if not submission.id.startswith(prefix(submission.manager)):
        return f"{submission.id} does not begin with {prefix(submission.manager)}, so no listing would find it"
    if submission.work_dir and not _PLAIN_PATH.fullmatch(submission.work_dir):
        return f"the work dir {submission.work_dir!r} is not an absolute path of plain characters"
    longest = submission.count - 1
    if len(packed(submission, longest)) > LONGEST_VARIABLE or len(start(submission, longest)) > LONGEST_VARIABLE:
        return "command, set-up and environment together are too long for a task"
    return ""


def too_large(tasks: Sequence[Mapping[str, Any]]) -> str:
    size = len(json.dumps({"value": list(tasks)}).encode())
    return f"{len(tasks)} tasks of {size} bytes; one call takes {MOST_BYTES}" if size > MOST_BYTES else ""


# ------------------------------------------------ whose it is


def label(submission: Submission, index: int) -> str:
    """The display name. The service keeps no metadata with a task."""
    return _label(submission.manager, submission.pool, submission.id, index)


def _label(manager: str, pool: str, submission: str, index: int) -> str:
    words = {"manager": manager, "pool": pool, "submission": submission, "index": index}
    return json.dumps({"worker": words}, ensure_ascii=False, separators=(",", ":"))


def owner(display_name: Any) -> tuple[str, str, str, int] | None:
    """(manager, pool, submission, index) of a label of ours; None of any other."""
    try:
        words = json.loads(display_name)["worker"]
        found = (words["manager"], words["pool"], words["submission"], words["index"])
    except (TypeError, ValueError, KeyError):
        return None
    return found if [type(word) for word in found] == [str, str, str, int] else None


# ------------------------------------------------ a task


def tasks(submission: Submission, settings: Settings) -> list[dict[str, Any]]:
    return [task(submission, index, settings) for index in range(submission.count)]


def task(submission: Submission, index: int, settings: Settings) -> dict[str, Any]:
    """https://learn.microsoft.com/rest/api/batchservice/tasks/create-task"""
    made: dict[str, Any] = {
        "id": submission.worker_id(index),
        "displayName": label(submission, index),
        "commandLine": _RUN_SETUP if submission.setup else _RUN,
        "environmentSettings": _environment(submission, index),
        "constraints": _constraints(submission, settings),
        "requiredSlots": settings.slots,
        "userIdentity": _user(settings),
    }
    if settings.image:
        made["containerSettings"] = _container(submission, settings)
    if settings.log_url:
        made["outputFiles"] = [_output(submission.worker_id(index), settings)]
    return made


def start(submission: Submission, index: int) -> str:
    return script(submission, Site(index=str(index), token=_TOKEN_FILE if submission.join_tokens else ()))


def packed(submission: Submission, index: int) -> str:
    return base64.b64encode(gzip.compress(start(submission, index).encode(), mtime=0)).decode()


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def _environment(submission: Submission, index: int) -> list[dict[str, str]]:
    found = [{"name": START, "value": packed(submission, index)}]
    if submission.join_tokens:
        found.append({"name": TOKEN, "value": submission.join_tokens[index]})
    return found


def _constraints(submission: Submission, settings: Settings) -> dict[str, Any]:
    """It is never started twice by us: a worker that failed is the manager's affair."""
    found: dict[str, Any] = {"maxTaskRetryCount": 0}
    if submission.shape.walltime is not None:
        found["maxWallClockTime"] = duration(submission.shape.walltime + MARGIN_MS)
    if settings.retention_ms is not None:
        found["retentionTime"] = duration(settings.retention_ms)
    return found


def duration(ms: int) -> str:
    """ISO 8601, as the service writes it."""
    return f"PT{ms // 1000}S"


def _user(settings: Settings) -> dict[str, Any]:
    """Common to all tasks of a node, so that its workers share a cache."""
    if settings.user in ("root", "auto"):
        level = "admin" if settings.user == "root" else "nonadmin"
        return {"autoUser": {"scope": "pool", "elevationLevel": level}}
    return {"username": settings.user}


def _container(submission: Submission, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "imageName": settings.image,
        "containerRunOptions": " ".join(_run_options(submission, settings)),
        "workingDirectory": "taskWorkingDirectory",
    }
    if settings.registry_server:
        found["registry"] = {"registryServer": settings.registry_server}
        if settings.registry_identity:
            found["registry"]["identityReference"] = {"resourceId": settings.registry_identity}
    return found


def _run_options(submission: Submission, settings: Settings) -> Iterator[str]:
    """What the person gave comes last: Docker takes the last word for most of them."""
    shape = submission.shape
    yield "--rm --init"
    if settings.user != "auto":
        yield f"--user {settings.user}"
    if settings.container_limits:
        yield f"--cpus {shape.cpus / 1000:g}"
        if shape.memory:
            yield f"--memory {shape.memory}"
    if shape.gpus and "--gpus" not in settings.run_options and "--runtime" not in settings.run_options:
        yield "--gpus all"
    places = {place.rpartition(":")[2] for place in settings.mounts}
    for mount in settings.mounts:
        yield f"-v {mount if ':' in mount else f'{mount}:{mount}'}"
    work_dir = submission.work_dir.rstrip("/")
    if work_dir and not work_dir.startswith(f"{_NODE_ROOT}/") and not _below(work_dir, places):
        yield f"-v {work_dir}:{work_dir}"
    if settings.run_options:
        yield settings.run_options


def _below(path: str, places: set[str]) -> bool:
    return any(path == place.rstrip("/") or path.startswith(place.rstrip("/") + "/") for place in places)


def _output(worker: str, settings: Settings) -> dict[str, Any]:
    container: dict[str, Any] = {"path": worker, "containerUrl": settings.log_container}
    if settings.log_identity:
        container["identityReference"] = {"resourceId": settings.log_identity}
    return {
        "filePattern": "../std*.txt",
        "destination": {"container": container},
        "uploadOptions": {"uploadCondition": "taskcompletion"},
    }


# ------------------------------------------------ job and pool


def job(settings: Settings, manager: str) -> dict[str, Any]:
    """One that stays: it is not over when its tasks are."""
    return {
        "id": settings.job,
        "displayName": f"workers of {manager}",
        "poolInfo": {"poolId": settings.pool},
        "constraints": {"maxTaskRetryCount": 0},
        "onAllTasksComplete": "noaction",
        "metadata": [{"name": "worker-manager", "value": manager}],
    }


def pool(settings: Settings, manager: str, formula: str) -> dict[str, Any]:
    """The person's own, and a formula where it says nothing of its size."""
    made = dict(settings.pool_template or {})
    if not any(name in made for name in ("targetDedicatedNodes", "targetLowPriorityNodes", "autoScaleFormula")):
        made |= {"enableAutoScale": True, "autoScaleFormula": formula, "autoScaleEvaluationInterval": "PT5M"}
    mark = {"name": "worker-manager", "value": manager}
    return made | {"metadata": [*made.get("metadata", ()), mark]}


# ------------------------------------------------ for people


def rendered(submission: Submission, settings: Settings) -> str:
    """The request as it would be sent, its secrets masked, and what is packed in it."""
    body = {"value": [masked(made) for made in tasks(submission, settings)]}
    address = f"{settings.service_url}/jobs/{settings.job}/addtaskcollection"
    lines = [f"# POST {address}", json.dumps(body, indent=2, ensure_ascii=False)]
    lines += [f"# {START} of {submission.worker_id(0)} is this script:", start(submission, 0)]
    return "\n".join(lines)


def masked(made: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(json.dumps(made))
    for variable in shown.get("environmentSettings", ()):
        if variable["name"] == TOKEN:
            variable["value"] = MASK
    for output in shown.get("outputFiles", ()):
        container = output["destination"]["container"]
        url, query, _ = container["containerUrl"].partition("?")
        container["containerUrl"] = f"{url}?{MASK}" if query else url
    return shown
