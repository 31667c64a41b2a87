"""1,000 workers launched, listed once and ended by each backend: seconds, and calls of the platform's API.

Slurm and ssh are real, on this machine; the clouds and Kubernetes are the stand-ins of the tests, behind real HTTP,
with workers that are no processes: what is measured is what our side costs, and how many calls it makes.
The aims: at most one call for each worker to launch or end it, at most one page of calls for 1,000 to list them (or as
the platform's pages are), and 1,000 workers of Slurm launched within 2 s.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backends import registry
from backends.base import Accepted, Backend, Context, Submission
from tools.bench.report import Row
from worker.protocol import Shape
from worker_manager.clock import SystemClock

WORKERS = 1_000
MANAGER, POOL = "bench", "bench"
PATIENCE_S = 120.0
COMMAND = ("/bin/sh", "-c", "exec sleep 3600")


Found = tuple[float, int | None]  # seconds, calls


@dataclass(frozen=True)
class Platform:
    backend: Backend
    calls: Callable[[], int] | None  # so far, of the platform's API (or programs run); None: there are none
    page: int = WORKERS  # what one call lists at most there
    list_calls: int | None = None  # where not pages are counted but, for example, hosts
    launch_s: float | None = None  # an aim
    workers: int = WORKERS
    note: str = ""


def run() -> list[Row]:
    rows: list[Row] = []
    for name, platform in PLATFORMS.items():
        print(f"  {name} …", file=sys.stderr, flush=True)
        with TemporaryDirectory(prefix="wm-") as folder:
            try:
                with platform(Path(folder)) as there:
                    rows += measured(name, there)
            except Missing as what:
                rows.append(Row(f"backends/{name}", 0, "-", note=f"not measured: {what}"))
    return rows


class Missing(Exception):
    """What this machine lacks."""


def measured(name: str, there: Platform) -> list[Row]:
    backend, count = there.backend, there.workers
    batch = registry.load(name).capabilities.max_batch
    submissions = [submission(number, min(batch, count - first)) for number, first in enumerate(range(0, count, batch))]

    def launch() -> None:
        for one in submissions:
            outcome = backend.launch(one)
            if not isinstance(outcome, Accepted):
                raise RuntimeError(f"{name}: {outcome}")

    launched = timed(there, launch)
    deadline = time.monotonic() + PATIENCE_S
    while len(backend.list().seen) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} lists {len(backend.list().seen)} of {count} workers")
        time.sleep(0.2)
    handles: list[str] = []
    listed = timed(there, lambda: handles.extend(seen.handle for seen in backend.list().seen))

    def end() -> None:
        for handle in handles:
            outcome = backend.terminate(handle, force=False)
            if not isinstance(outcome, Accepted):
                raise RuntimeError(f"{name}: {outcome}")

    ended = timed(there, end)
    pages = there.list_calls or ceil(count / there.page)
    paged = f"pages of {there.page:,}" if there.calls and not there.list_calls else ""
    return [
        *two_rows(f"backends/{name}: launch {count:,}", launched, there.launch_s, count, there.note),
        *two_rows(f"backends/{name}: list {count:,}", listed, None, pages, paged),
        *two_rows(f"backends/{name}: end {count:,}", ended, None, count),
    ]


def timed(there: Platform, act: Callable[[], None]) -> Found:
    before, began = there.calls() if there.calls else 0, time.perf_counter()
    act()
    return time.perf_counter() - began, there.calls() - before if there.calls else None


def two_rows(name: str, found: Found, aim_s: float | None, aim_calls: int, note: str = "") -> list[Row]:
    seconds, calls = found
    within = "" if aim_s is None else f"aim ≤ {aim_s:g}"
    said = "; ".join(filter(None, (within, note)))
    rows = [Row(name, seconds, "s", aim_s, seconds / aim_s if aim_s else None, said)]
    if calls is not None:
        rows.append(Row(f"{name}: calls", calls, "calls", aim_calls, calls / aim_calls, f"aim ≤ {aim_calls:,}"))
    return rows


def submission(number: int, count: int) -> Submission:
    return Submission(
        id=f"{MANAGER}-{number:04d}",
        count=count,
        pool=POOL,
        manager=MANAGER,
        shape=Shape(cpus=1000, memory=64 << 20),
        command=COMMAND,
        environment={},
        join_tokens=tuple(f"wmj_{number}_{index}" for index in range(count)),
    )


def made(name: str, options: Mapping[str, Any], folder: Path, environment: Mapping[str, str] | None = None) -> Backend:
    kind = registry.load(name)
    state = folder / "state"
    state.mkdir(exist_ok=True)
    return kind.create(kind.read(options, environment), Context(MANAGER, POOL, str(state), SystemClock().now_ms, 120.0))


# ---------------------------------------------------------------- the platforms


@contextmanager
def local(folder: Path) -> Iterator[Platform]:
    """Real processes, each with a shell around it: fewer of them."""
    backend = made("local", {}, folder)
    try:
        yield Platform(backend, None, workers=200, note="real processes, so fewer of them")
    finally:
        while live := [seen for seen in backend.list().seen if seen.phase != "ended"]:
            for seen in live:
                backend.terminate(seen.handle, force=True)


@contextmanager
def slurm(folder: Path) -> Iterator[Platform]:
    from tests.stand_ins.slurm import PATH, PROGRAMS, a_cluster

    if absent := [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]:
        raise Missing(f"{', '.join(absent)} (apt-get install slurmctld slurmd slurm-client munge)")
    counted = folder / "calls"
    counted.touch()
    with a_cluster() as cluster, in_environment(cluster.environment):
        for program in ("sbatch", "squeue", "scancel", "sacct", "scontrol"):
            cluster.wrap(program, f'echo >> {counted}\nexec "$REAL" "$@"')
        shared = folder / "shared"
        shared.mkdir()
        backend = made("slurm", {"partition": "cpu", "slurm-work-dir": str(shared)}, folder)
        yield Platform(backend, lambda: counted.stat().st_size, launch_s=2.0, note="a real cluster")


@contextmanager
def ssh(folder: Path) -> Iterator[Platform]:
    """Real processes as well."""
    from tests.stand_ins.ssh import SSHD, SshSite

    if not SSHD or shutil.which("ssh") is None:
        raise Missing("ssh and sshd (apt-get install openssh-client openssh-server)")
    site = SshSite(folder)
    try:
        hosts = [f"{name} slots=1000" for name in site.hosts]
        options = {**site.options, "hosts": hosts, "remote-dir": str(folder / "remote")}
        backend, note = made("ssh", options, folder), "real hosts of OpenSSH and real processes, so fewer of them"
        yield Platform(backend, site.calls, workers=100, list_calls=len(hosts), note=note)
    finally:
        site.close()


@contextmanager
def kubernetes(folder: Path) -> Iterator[Platform]:
    from tests.stand_ins.kubernetes import Cluster

    cluster = Cluster(folder, runs=False, validates=False)
    try:
        backend = made("kubernetes", {"cluster-host": cluster.url}, folder)
        yield Platform(backend, lambda: sum(cluster.calls.values()), page=500)
    finally:
        cluster.close()


@contextmanager
def aws_batch(folder: Path) -> Iterator[Platform]:
    from tests.stand_ins.aws_batch import PAGE_WITH_FILTER, BatchStandIn, Fate

    with BatchStandIn(folder) as aws, in_environment(aws.credentials):
        aws.make_queue("bench")
        aws.fate_of_all = Fate(stays="RUNNABLE")
        backend = made("aws-batch", {"endpoint-url": aws.url, "job-queue": "bench"}, folder)
        yield Platform(backend, lambda: aws.count("batch"), page=PAGE_WITH_FILTER)


@contextmanager
def ec2_asg(folder: Path) -> Iterator[Platform]:
    from tests.stand_ins.ec2_asg import AsgStandIn

    with AsgStandIn(folder, boots=False) as aws, in_environment(aws.credentials):
        aws.make_group("bench", MANAGER, POOL, largest=2 * WORKERS)
        backend = made("ec2-asg", {"endpoint-url": aws.url, "group": "bench"}, folder)
        yield Platform(
            backend,
            lambda: aws.count("autoscaling") + aws.count("ec2"),
            page=50,
            workers=400,
            note="the stand-in's own lists grow with the square of its instances",
        )


@contextmanager
def azure_batch(folder: Path) -> Iterator[Platform]:
    from tests.stand_ins.azure_batch import FakeBatch

    fake = FakeBatch(folder, runs=False)
    try:
        fake.make("bench")
        options = {"service-url": fake.url, "job-id": "bench", "account-name": fake.account, "account-key": "env:KEY"}
        yield Platform(made("azure-batch", options, folder, {"KEY": fake.key}), lambda: sum(fake.calls.values()))
    finally:
        fake.close()


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            with suppress(KeyError):
                os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


PLATFORMS: Mapping[str, Callable[[Path], AbstractContextManager[Platform]]] = {
    "slurm": slurm,
    "kubernetes": kubernetes,
    "aws-batch": aws_batch,
    "azure-batch": azure_batch,
    "ec2-asg": ec2_asg,
    "ssh": ssh,
    "local": local,
}
