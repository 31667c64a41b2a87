"""A checked tree → Settings."""

import shlex
from pathlib import Path as FilePath
from typing import Any

from backends.base import Option
from backends.options import read
from worker.protocol import ANYTHING, Shape, join_tags
from worker_manager.config.layers import Tree, leaves
from worker_manager.config.request import Catalogue, Request
from worker_manager.config.schema import ConfigurationFile, HubPart, LimitsPart, PoolPart, ShapePart, WorkerPart
from worker_manager.config.settings import (
    DEFAULT,
    HubConfig,
    ManagerSettings,
    Origin,
    PoolConfig,
    Settings,
    WorkerSettings,
    default_state_dir,
)
from worker_manager.config.yaml_file import Path
from worker_manager.policy.model import Limits

_LIMITS_WITH_TIME = (
    "cooldown_up",
    "cooldown_down",
    "stabilise",
    "idle",
    "max_age",
    "start_timeout",
    "queue_timeout",
    "lost_timeout",
    "drain_timeout",
    "end_grace",
    "backoff",
    "backoff_cap",
)

CODALAB_AGENT = "cl-worker"  # speaks another protocol: where a command line names it, our own agent is meant
DATABASE = Option("database", secret=True)  # its URL may hold a password
_OWN_HUB = (
    "listen",
    "advertise_url",
    "tls",
    "tls_certificate",
    "tls_key",
    "behind_proxy",
    "sts_url",
    "blob_limit",
    "log_level",
)
_OWN_HUB_TIMES = ("lease", "retention", "blob_keep")


def build(tree: Tree, request: Request, catalogue: Catalogue) -> Settings:
    checked = ConfigurationFile.model_validate(tree.value)
    state_dir = checked.manager.state_dir
    manager = ManagerSettings(
        id=checked.manager.id,
        state_dir=FilePath(state_dir).expanduser() if state_dir else default_state_dir(request.environment),
        tick_ms=checked.manager.tick,
        restart_after_ms=checked.manager.restart_after,
    )
    hub = _hub(checked.hub, request)
    pools = tuple(_pool(part, request, catalogue) for part in checked.pools)
    values, origins = _shown_values(checked, tree, manager)
    return Settings(manager, hub, pools, values, origins)


def _hub(part: HubPart, request: Request) -> HubConfig:
    own = {name: getattr(part, name) for name in _OWN_HUB if getattr(part, name) is not None}
    own |= {"storages": part.storages} if part.storages else {}
    own |= {f"{name}_ms": getattr(part, name) for name in _OWN_HUB_TIMES if getattr(part, name) is not None}
    if part.database:
        own |= read((DATABASE,), {"database": part.database}, request.environment)
    return HubConfig(part.server, _path(part.token_file), _path(part.ca), part.fingerprint, own)


def _path(text: str | None) -> FilePath | None:
    return FilePath(text).expanduser() if text else None


def _pool(part: PoolPart, request: Request, catalogue: Catalogue) -> PoolConfig:
    backend = catalogue.canonical(part.backend) or part.backend
    return PoolConfig(
        name=part.name,
        backend=backend,
        shape=_shape(part.shape),
        limits=_limits(part),
        law=part.law,
        law_options=part.law_options,
        owners=part.owners,
        queues=part.queues,
        worker=_worker(part.worker),
        options=read(catalogue.options(backend), part.options, request.environment),
    )


def _shape(part: ShapePart) -> Shape:
    return Shape(
        cpus=part.cpus,
        memory=part.memory,
        gpus=part.gpus,
        gpu_type=part.gpu_type,
        disk=part.disk,
        walltime=part.walltime,
        tags=join_tags(part.tags),
        custom=tuple(sorted(part.custom.items())),
        exclusive=part.exclusive,
        can=(ANYTHING,),
    )


def _limits(part: PoolPart) -> Limits:
    limits: LimitsPart = part.limits
    values: dict[str, Any] = {f"{name}_ms": getattr(limits, name) for name in _LIMITS_WITH_TIME}
    values |= {name: getattr(limits, name) for name in ("step_up", "step_down", "retire_drifted", "breaker_after")}
    return Limits(min_workers=part.min_workers, max_workers=part.max_workers, **values)


def _worker(part: WorkerPart) -> WorkerSettings:
    return WorkerSettings(
        executable=() if part.executable in (None, CODALAB_AGENT) else tuple(shlex.split(part.executable)),
        work_dir=part.work_dir,
        max_runs=part.max_runs,
        idle_exit_ms=part.idle_exit,
        setup=part.setup,
        delete_work_dir=part.delete_work_dir,
        max_work_dir_size=part.max_work_dir_size,
        pass_down_termination=part.pass_down_termination,
        exit_on_exception=part.exit_on_exception,
        checkin_ms=part.checkin,
        dead_man_ms=part.dead_man,
        isolation=tuple(part.isolation),
        job_user=part.job_user,
        sandbox_show=tuple(part.sandbox_show),
        share=part.share,
        cache_dir=part.cache_dir,
        cache_size=part.cache_size,
        no_cache=part.no_cache,
        input_path=tuple(part.input_path),
        transfers=part.transfers,
        checkpoint_keep_ms=part.checkpoint_keep,
        hook_start=part.hook_start,
        hook_before_job=part.hook_before_job,
        hook_after_job=part.hook_after_job,
        hook_stop=part.hook_stop,
        hook_limit_ms=part.hook_limit,
        wrap=part.wrap,
        notices=part.notices,
        black_hole_jobs=part.black_hole_jobs,
    )


def _shown_values(
    checked: ConfigurationFile, tree: Tree, manager: ManagerSettings
) -> tuple[dict[Path, Any], dict[Path, Origin]]:
    """Every setting there is, as it was written where it was, else its default."""
    whole = checked.model_dump(by_alias=True, exclude={"defaults", "version"}, mode="json")
    whole["manager"]["state-dir"] = str(manager.state_dir)
    for pool in whole["pools"]:
        pool.pop("options", None)
    values = {path: value for path, value in leaves(whole) if path != ("pools",)}
    origins = {path: tree.origins.get(path, DEFAULT) for path in values}
    for path, value in leaves(tree.value):
        if path[:1] in (("manager",), ("hub",), ("pools",)) and path != ("pools",):
            values[path] = value
            origins[path] = tree.origins.get(path) or tree.origin(path) or DEFAULT
    return values, origins
