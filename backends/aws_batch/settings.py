"""What a person may set, and the same as one frozen value, with everything checked that can be checked at once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.aws import COMMON_OPTIONS
from backends.base import BackendUnusable, Option

EC2, FARGATE = "ec2", "fargate"

OPTIONS = (
    *COMMON_OPTIONS,
    Option("job-queue", default="codalab-batch-cpu", help="name or ARN of the job queue"),
    Option("job-definition-name", default="worker-manager", help="what the names of job definitions begin with"),
    Option("platform", default=EC2, choices=(EC2, FARGATE), help="what the queue's compute environments are made of"),
    Option("image", default="python:3.12-slim", help="any image with a shell and Python 3.9 or newer"),
    Option("user", default="root", help="the user inside the container"),
    Option("job-role-arn", default="", help="a role for the worker's own calls to AWS"),
    Option("execution-role-arn", default="", help="the role that pulls the image, reads secrets and writes logs"),
    Option("work-dir-volume", default="", help="what is mounted at the work dir: a path of the host, or fs-ID[/PATH]"),
    Option("volume", "list", (), help="further mounts: SOURCE:PATH or SOURCE:PATH:ro, with sources as above"),
    Option("efs-access-point", default="", help="for every EFS volume: an access point, with IAM authorization"),
    Option("secret", "list", (), help="NAME=ARN of Secrets Manager or SSM: a variable of the worker"),
    Option("privileged", "bool", False, help="full rights on the host (EC2 only)"),
    Option("shared-memory", "bytes", None, help="size of /dev/shm (EC2 only)"),
    Option("public-ip", "bool", False, help="a public address for each task (Fargate only)"),
    Option("log-group", default="", help="a log group of CloudWatch; without one /aws/batch/job"),
    Option("tag", "list", (), help="NAME=VALUE on everything that is made"),
    Option("share-identifier", default="", help="for a queue with a fair-share policy"),
    Option("scheduling-priority", "int", None, help="within the share: 0 to 9999, higher first"),
    Option("keep-ended", "duration", 3_600_000, help="how long an ended worker stays listed"),
    Option("job-filter", default="", help="without effect: workers are found by their names; kept for old commands"),
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_SYSTEM = re.compile(r"(fs-[0-9a-f]{8,40})(/.*)?")
_TAG = re.compile(r"[\w .:/=+@-]{1,128}")
_MOST_TAGS = 45  # 50 to a job, and some are ours


@dataclass(frozen=True)
class Volume:
    source: str  # a path of the host, or a path within the file system
    path: str  # in the container
    file_system: str = ""  # of EFS
    read_only: bool = False


@dataclass(frozen=True)
class Settings:
    queue: str
    prefix: str
    fargate: bool
    image: str
    user: str
    job_role: str
    execution_role: str
    work_dir_volume: Volume | None  # its path is each submission's work dir
    volumes: tuple[Volume, ...]
    access_point: str
    secrets: tuple[tuple[str, str], ...]
    privileged: bool
    shared_memory: int | None
    public_ip: bool
    log_group: str
    tags: tuple[tuple[str, str], ...]
    share: str
    priority: int | None
    keep_ended_ms: int
    job_filter: str


def settings(options: Mapping[str, Any]) -> Settings:
    """Raises BackendUnusable with a line for each mistake."""
    wrong: list[str] = []
    made = Settings(
        queue=options["job-queue"],
        prefix=options["job-definition-name"],
        fargate=options["platform"] == FARGATE,
        image=options["image"],
        user=options["user"],
        job_role=options["job-role-arn"],
        execution_role=options["execution-role-arn"],
        work_dir_volume=_work_dir(options["work-dir-volume"], wrong),
        volumes=tuple(volume for text in options["volume"] if (volume := _volume(text, wrong))),
        access_point=options["efs-access-point"],
        secrets=_pairs("secret", options["secret"], _VARIABLE, wrong),
        privileged=options["privileged"],
        shared_memory=options["shared-memory"],
        public_ip=options["public-ip"],
        log_group=options["log-group"],
        tags=_pairs("tag", options["tag"], _TAG, wrong),
        share=options["share-identifier"],
        priority=options["scheduling-priority"],
        keep_ended_ms=options["keep-ended"],
        job_filter=options["job-filter"],
    )
    wrong += _mistakes(made)
    if wrong:
        raise BackendUnusable("\n".join(wrong))
    return made


def _mistakes(made: Settings) -> Sequence[str]:
    wrong = []
    if not made.queue:
        wrong.append("job-queue: is empty")
    if not _NAME.fullmatch(made.prefix):
        wrong.append(f"job-definition-name: {made.prefix!r} is not up to 100 letters, digits, dashes and underscores")
    if not made.image or len(made.image) > 255 or re.search(r"\s", made.image):
        wrong.append(f"image: {made.image!r} is no name of an image")
    if made.priority is not None and not 0 <= made.priority <= 9999:
        wrong.append("scheduling-priority: is 0 to 9999")
    if len(made.tags) > _MOST_TAGS or [name for name, _ in made.tags if name.lower().startswith(("aws:", "wm-"))]:
        wrong.append(f"tag: at most {_MOST_TAGS}, and none whose name begins with aws: or wm-")
    return [*wrong, *_of_the_platform(made)]


def _of_the_platform(made: Settings) -> Sequence[str]:
    wrong = []
    if made.secrets and not made.execution_role:
        wrong.append("execution-role-arn: is required with secret; it is the role that reads them")
    if not made.fargate:
        return [*wrong, "public-ip: is for Fargate only"] if made.public_ip else wrong
    if not made.execution_role:
        wrong.append("execution-role-arn: is required on Fargate")
    if made.privileged:
        wrong.append("privileged: is not possible on Fargate")
    if made.shared_memory:
        wrong.append("shared-memory: cannot be set on Fargate")
    for volume in (*made.volumes, *([made.work_dir_volume] if made.work_dir_volume else ())):
        if not volume.file_system:
            wrong.append(f"volume: {volume.source} is a path of the host, and Fargate has EFS only")
    return wrong


def _work_dir(text: str, wrong: list[str]) -> Volume | None:
    if not text:
        return None
    source = _source(text)
    if source is None:
        wrong.append(f"work-dir-volume: {text!r} is neither an absolute path nor fs-ID or fs-ID/PATH")
        return None
    return Volume(source[1], "", source[0])


def _volume(text: str, wrong: list[str]) -> Volume | None:
    first, *rest = text.split(":")
    source = _source(first)
    if source is None or len(rest) not in (1, 2) or not rest[0].startswith("/") or rest[1:] not in ([], ["ro"], ["rw"]):
        wrong.append(f"volume: {text!r} is not SOURCE:PATH or SOURCE:PATH:ro; a source is /a/path or fs-ID[/PATH]")
        return None
    return Volume(source[1], rest[0], source[0], rest[1:] == ["ro"])


def _source(text: str) -> tuple[str, str] | None:
    """(file system, path); the file system is '' for a path of the host."""
    if text.startswith("/"):
        return "", text
    found = _FILE_SYSTEM.fullmatch(text)
    return (found[1], found[2] or "/") if found else None


def _pairs(option: str, texts: Sequence[str], form: "re.Pattern[str]", wrong: list[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not form.fullmatch(name) or not value or len(value) > 2048:
            wrong.append(f"{option}: {text!r} is not NAME=VALUE")
        pairs.append((name, value))
    return tuple(sorted(pairs))
