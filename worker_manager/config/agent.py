"""A pool's configuration → the command line of its agents (docs: `wm-worker --help`)."""

import sys
from collections.abc import Mapping
from typing import Any

from backends.base import AGENT
from worker.protocol import Shape, format_cpus
from worker_manager.config.settings import PoolConfig, WorkerSettings


def agent_command(
    pool: PoolConfig, server: str, fingerprint: str | None, as_one_file: bool = False, identity: str = ""
) -> tuple[str, ...]:
    """The agent's argv. It carries no secret: the join token reaches the worker as the backend can bring it.
    `as_one_file`: on a node that has nothing of ours, so its first word stands for the file that is brought there.
    `identity`: who vouches for workers that share this very line and hold no token; the hub then tells their names."""
    worker = pool.worker
    idle_ms = pool.limits.idle_ms if worker.idle_exit_ms is None else worker.idle_exit_ms
    options: Mapping[str, Any] = {
        "server": server,
        "ca-fingerprint": f"sha256:{fingerprint}" if fingerprint else None,
        "worker-id": None if identity else "{worker}",
        "join-identity": identity or None,
        "pool": pool.name,
        "config": pool.launch_digest(),
        "work-dir": worker.work_dir or None,
        "max-work-dir-size": worker.max_work_dir_size,
        "idle-seconds": f"{idle_ms}ms",
        "exit-after-num-runs": worker.max_runs,
        "checkin-frequency-seconds": _ms(worker.checkin_ms),
        "dead-man-seconds": _ms(worker.dead_man_ms),
        "isolation": ",".join(worker.isolation) or None,
        "job-user": worker.job_user or None,
        "share": worker.share or None,
        "cache-dir": worker.cache_dir or None,
        "cache-size": worker.cache_size,
        "transfers": worker.transfers,
        "checkpoint-keep": _ms(worker.checkpoint_keep_ms),
        "notices": None if worker.notices == "auto" else worker.notices,
        "black-hole-jobs": worker.black_hole_jobs or None,
        **_slice(pool.shape),
    }
    switches = {
        "tag-exclusive": pool.shape.exclusive,
        "pass-down-termination": worker.pass_down_termination,
        "exit-on-exception": worker.exit_on_exception,
        "delete-work-dir-on-exit": worker.delete_work_dir,
        "no-cache": worker.no_cache,
    }
    words = list(worker.executable or ((AGENT,) if as_one_file else (sys.executable, "-m", "worker")))
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    words += [f"--tag={tag}" for tag in pool.shape.tags]
    words += [f"--sandbox-show={folder}" for folder in worker.sandbox_show]
    words += [f"--input-path={folder}" for folder in worker.input_path]
    words += [f"--{name}={value}" for name, value in _hooks(worker).items() if value]
    words += [f"--custom={name}={count}" for name, count in pool.shape.custom]
    return tuple(words + [f"--{name}" for name, on in switches.items() if on])


def _hooks(worker: WorkerSettings) -> Mapping[str, str]:
    """People's own lines: one that begins with a dash is no option."""
    lines = {
        "hook-start": worker.hook_start,
        "hook-before-job": worker.hook_before_job,
        "hook-after-job": worker.hook_after_job,
        "hook-stop": worker.hook_stop,
    }
    limit = f"{worker.hook_limit_ms}ms" if any(lines.values()) else ""
    return {**lines, "hook-seconds": limit, "wrap": worker.wrap}


def _slice(shape: Shape) -> dict[str, Any]:
    """What the worker offers. What the pool does not say is left to the agent to find out."""
    return {
        "cpus": format_cpus(shape.cpus),
        "memory": shape.memory or None,
        "gpus": shape.gpus,
        "gpu-type": shape.gpu_type or None,
        "disk": shape.disk or None,
        "walltime": _ms(shape.walltime),
    }


def _ms(value: int | None) -> str | None:
    return None if value is None else f"{value}ms"
