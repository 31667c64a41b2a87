"""What a configuration may say. pydantic checks it; `resolve.py` turns its complaints into places and advice.

version: 1
manager: {id, state-dir, tick, restart-after}
hub: {server, token-file, ca, fingerprint; listen, advertise-url, database, tls, lease, retention, …}
defaults: {anything a pool may say but name, backend and options}
pools: [{name, backend, min-workers, max-workers, shape, law, law-options, limits, owners, queues, worker, options}]
"""

import re
import shlex
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from worker.protocol import (
    UnitError,
    format_bytes,
    format_cpus,
    format_duration,
    parse_bytes,
    parse_cpus,
    parse_duration,
)


def _amount(parse: Any, example: str) -> BeforeValidator:
    def read(value: Any) -> Any:
        if value is None:
            return None
        try:
            return parse(value)
        except UnitError as error:
            raise ValueError(f"{error} (for example {example})") from None

    return BeforeValidator(read)


def _word_list(value: Any) -> Any:
    """One word may stand for a list of one; a variable or a flag separates with commas."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _no_truth(value: Any) -> Any:
    """`yes` is no number, though Python would count it as 1."""
    if isinstance(value, bool):
        raise ValueError(f"write a whole number, not {str(value).lower()}")
    return value


def _label(value: str) -> str:
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", value):
        raise ValueError(
            "write at most 20 lowercase letters, digits and dashes, beginning with a letter, for example gpu-a"
        )
    return value


def _in_words(value: str) -> str:
    try:
        shlex.split(value)
    except ValueError as error:
        raise ValueError(f"it cannot be split into words: {error}") from None
    return value


def _shared(value: object) -> str:
    if isinstance(value, bool):
        return "auto" if value else ""
    if not isinstance(value, str) or (value not in ("", "auto") and not value.startswith("/")):
        raise ValueError("write true, or a folder of the workers' machine in full")
    return value


def _shown(form: Callable[[int], str]) -> PlainSerializer:
    """As a person writes it: a bare 5000 in a file would be seconds, not milliseconds."""
    return PlainSerializer(lambda amount: form(amount).replace(" ", ""), when_used="json-unless-none")


Bytes = Annotated[int, _amount(parse_bytes, "64GiB"), _shown(format_bytes)]
Cpus = Annotated[int, _amount(parse_cpus, "2"), _shown(format_cpus)]
Duration = Annotated[int, _amount(parse_duration, "10m"), _shown(lambda ms: format_duration(ms) if ms else "0s")]
Words = Annotated[tuple[str, ...], BeforeValidator(_word_list)]
Label = Annotated[
    str, Field(strict=True), BeforeValidator(lambda value: _label(value) if isinstance(value, str) else value)
]
Count = Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(_no_truth)]
Positive = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_no_truth)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), validate_by_alias=True
    )


class ManagerPart(_Part):
    id: Label = "main"
    state_dir: str | None = None
    tick: Duration = 5000
    restart_after: Duration | None = None


def _storages(value: tuple[str, ...]) -> tuple[str, ...]:
    from worker_manager.hub.files.names import Storages as Named

    Named(value)  # raises ValueError
    return value


Storages = Annotated[Words, AfterValidator(_storages)]


class HubPart(_Part):
    """The first four say which hub; the rest is for one that this program starts itself."""

    server: str | None = None
    token_file: str | None = None
    ca: str | None = None
    fingerprint: str | None = None
    listen: str | None = None
    advertise_url: str | None = None
    database: str | None = None  # a secret reference: the URL may hold a password
    tls: Literal["auto", "own", "given", "off"] | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    behind_proxy: bool | None = None
    sts_url: str | None = None
    lease: Duration | None = None
    retention: Duration | None = None
    storages: Storages = ()  # prefixes of object storage below which it signs for jobs
    blob_keep: Duration | None = None
    blob_limit: Bytes | None = None
    log_level: Literal["debug", "info", "warning", "error"] | None = None


class ShapePart(_Part):
    cpus: Cpus = 1000
    memory: Bytes = 2048 << 20
    gpus: Count = 0
    gpu_type: str = ""
    disk: Bytes = 0
    walltime: Duration | None = None
    tags: Words = ()
    custom: dict[str, Count] = {}
    exclusive: bool = False


class LimitsPart(_Part):
    cooldown_up: Duration = 0
    cooldown_down: Duration = 0
    stabilise: Duration = 300_000
    step_up: Positive | None = None
    step_down: Positive | None = None
    idle: Duration = 600_000
    max_age: Duration | None = None
    start_timeout: Duration = 900_000
    queue_timeout: Duration | None = None
    lost_timeout: Duration = 300_000
    drain_timeout: Duration = 3_600_000
    end_grace: Duration = 60_000
    retire_drifted: bool = False
    backoff: Duration = 300_000
    backoff_cap: Duration = 1_800_000
    breaker_after: Positive = 10


class WorkerPart(_Part):
    executable: str | None = None
    work_dir: str = ""
    max_runs: Positive | None = None
    idle_exit: Duration | None = None
    setup: tuple[str, ...] = ()
    delete_work_dir: bool = False
    max_work_dir_size: Bytes | None = None
    pass_down_termination: bool = False
    exit_on_exception: bool = False
    checkin: Duration | None = None
    dead_man: Duration | None = None
    isolation: Words = ()
    job_user: str = ""
    sandbox_show: Words = ()
    share: Annotated[str, BeforeValidator(_shared)] = ""
    cache_dir: str = ""
    cache_size: Bytes | None = None
    no_cache: bool = False
    input_path: Words = ()
    transfers: Positive | None = None
    checkpoint_keep: Duration | None = None
    hook_start: str = ""
    hook_before_job: str = ""
    hook_after_job: str = ""
    hook_stop: str = ""
    hook_limit: Annotated[Duration, Field(gt=0)] = 60_000
    wrap: Annotated[str, AfterValidator(_in_words)] = ""
    notices: Literal["auto", "off", "aws", "azure", "gcp"] = "auto"
    black_hole_jobs: Count = 0


class _PoolFields(_Part):
    min_workers: Count = 0
    max_workers: Count = 10
    shape: ShapePart = ShapePart()
    law: str = "pack"
    law_options: dict[str, Any] = {}
    limits: LimitsPart = LimitsPart()
    owners: Words = ()
    queues: Words = ()
    worker: WorkerPart = WorkerPart()


class DefaultsPart(_PoolFields):
    """Checked by itself so that a mistake in it is told once, in its own place."""


class PoolPart(_PoolFields):
    name: Label
    backend: str
    options: dict[str, Any] = {}


class ConfigurationFile(_Part):
    version: Literal[1] = 1
    manager: ManagerPart = ManagerPart()
    hub: HubPart = HubPart()
    defaults: DefaultsPart = DefaultsPart()
    pools: tuple[PoolPart, ...] = ()
