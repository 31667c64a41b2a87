"""What configuration comes to: frozen values that the rest of the program is handed."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.options import Secret
from worker.protocol import Shape
from worker_manager.policy.model import Limits


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: a flag, a variable, a line of a file, or the default."""

    kind: str  # flag | environment | file | default
    where: str  # --max-workers, WORKER_MANAGER_MAX_WORKERS, pools.yaml:12, or what the default belongs to

    def __str__(self) -> str:
        return self.where if self.kind != "default" or self.where == "default" else f"default ({self.where})"


DEFAULT = Origin("default", "default")


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    id: str
    state_dir: Path
    tick_ms: int  # how long the manager waits at most between two ticks
    restart_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class HubConfig:
    server: str | None = None  # None: the embedded hub of the state directory
    token_file: Path | None = None
    ca: Path | None = None
    fingerprint: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict, repr=False)  # for a hub that we start: fields of its settings


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How the agent of a pool is started."""

    executable: tuple[str, ...] = ()  # empty: the agent that belongs to this program
    work_dir: str = ""
    max_runs: int | None = None
    idle_exit_ms: int | None = None  # asks the hub to let it go; None: as the pool's idle limit
    setup: tuple[str, ...] = ()
    delete_work_dir: bool = False
    max_work_dir_size: int | None = None
    pass_down_termination: bool = False
    exit_on_exception: bool = False
    checkin_ms: int | None = None
    dead_man_ms: int | None = None  # idle, and the hub silent, for this long: it leaves by itself
    isolation: tuple[str, ...] = ()  # ways to keep jobs apart that it tries and offers; empty: as it finds
    job_user: str = ""  # as root: none, auto or a user
    sandbox_show: tuple[str, ...] = ()
    share: str = ""  # the folder by which the workers of one machine share it, or auto; empty: each has its own part
    cache_dir: str = ""  # where inputs are kept for other jobs; empty: below the work dir
    cache_size: int | None = None
    no_cache: bool = False
    input_path: tuple[str, ...] = ()  # folders of the workers' machines from which jobs may take inputs
    transfers: int | None = None  # files at a time
    checkpoint_keep_ms: int | None = None  # what jobs saved goes when no attempt has used it for so long; 0: never
    hook_start: str = ""  # lines of shell
    hook_before_job: str = ""
    hook_after_job: str = ""
    hook_stop: str = ""
    hook_limit_ms: int = 60_000  # each of them
    wrap: str = ""  # words before the command of every job
    notices: str = "auto"  # who tells of its machine's end
    black_hole_jobs: int = 0  # leaves after so many different jobs in a row have failed at once; 0: never


@dataclass(frozen=True, slots=True)
class PoolConfig:
    name: str
    backend: str
    shape: Shape
    limits: Limits
    law: str = "pack"
    law_options: Mapping[str, Any] = field(default_factory=dict)
    owners: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    worker: WorkerSettings = WorkerSettings()
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # the backend's own, of their declared types; a secret is a Secret

    def launch_digest(self) -> str:
        """Changes when a worker launched now would differ from one launched before. Limits and laws do not count."""
        launched = {
            "backend": self.backend,
            "shape": self.shape.to_wire(),
            "worker": [str(getattr(self.worker, name)) for name in sorted(WorkerSettings.__slots__)],
            "options": {name: str(value) for name, value in self.options.items() if not isinstance(value, Secret)},
        }
        return hashlib.sha256(json.dumps(launched, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Settings:
    manager: ManagerSettings
    hub: HubConfig
    pools: tuple[PoolConfig, ...]
    values: Mapping[tuple[str | int, ...], Any] = field(default_factory=dict)  # every leaf, as a person wrote it
    origins: Mapping[tuple[str | int, ...], Origin] = field(default_factory=dict)


def default_state_dir(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_STATE_HOME") or ""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 -- HOME may be absent
    return (Path(base) if base.startswith("/") else home / ".local" / "state") / "worker-manager"
