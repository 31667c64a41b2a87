"""`true` in each way of isolation that works here, two at a time, by one keeper: what each way costs a job.

The hub is left out: it does the same for all of them. A way that does not work here is named with its reason.
"""

import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.stand_ins.engine import Engine, small_image
from tests.stand_ins.podman import Podman
from tools.bench.report import Row, against
from worker.happened import Ended
from worker.isolation import found
from worker.protocol import Assignment, Outcome, Shape
from worker.runner import Runner

ROUNDS = 3
JOBS = {"process": 1500, "process, a user of its own": 600, "sandbox": 200, "docker": 12, "podman": 12, "apptainer": 12}
WORK: dict[str, dict[str, Any]] = {
    "sandbox": {"isolation": "sandbox"},
    "docker": {"isolation": "docker", "image": "small:1", "network": False},
    "podman": {"isolation": "podman", "image": "localhost/small:1", "network": False},
    "apptainer": {"isolation": "apptainer", "image": "small.sif", "network": False},
}


def rows() -> list[Row]:
    """Each way in turn, so that a noisy machine is noisy for all."""
    folder = Path(tempfile.mkdtemp(prefix="wm-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        with engines(folder) as env:
            rates = measured(folder, env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    base = statistics.median(rates["process"])
    return [
        against(f"throughput/by one keeper, {way}", statistics.median(each), "jobs/s", base, spread(each))
        for way, each in rates.items()
    ]


def measured(folder: Path, env: dict[str, str]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for way, count in JOBS.items():
            place = folder / f"{number}-{list(JOBS).index(way)}"
            learned = learn(place, way, env)
            if learned is not None:
                rates.setdefault(way, []).append(one_round(place, learned, WORK.get(way, {}), count))
    return rates


def learn(place: Path, way: str, env: dict[str, str]) -> dict[str, Any] | None:
    """None: it does not work here."""
    (place / "w" / "jobs").mkdir(parents=True)
    wanted = [way] if way in WORK else []
    user = "auto" if "user" in way else "none"
    try:
        learned = found.find(wanted, user, str(place / "w"), [], [], env, registry=str(place / "users" / "known"))
    except found.JobUserError as error:
        return lacks(way, str(error))
    return lacks(way, learned.cannot[way]) if learned.cannot else learned.told


def lacks(way: str, reason: str) -> None:
    print(f"  not here: {way}: {reason}", file=sys.stderr, flush=True)


def one_round(place: Path, learned: dict[str, Any], work: dict[str, Any], count: int) -> float:
    runner = Runner(str(place / "w" / "jobs"), Shape(cpus=2000), isolation=learned)
    shape = Shape(cpus=1000).to_wire()
    jobs = [
        Assignment(job=f"j{n}", epoch=1, owner="me", command=["true"], shape=shape, work=work) for n in range(count)
    ]
    began = time.perf_counter()
    runner.start(jobs)
    ended = 0
    while ended < count:
        select.select([runner.fileno()], [], [])
        for event in runner.read():
            if isinstance(event, Ended):
                ended += 1
                if event.result["outcome"] != Outcome.SUCCEEDED:
                    raise RuntimeError(f"a job did not succeed: {event.result}")
    took = time.perf_counter() - began
    runner.close()
    return count / took


@contextmanager
def engines(folder: Path) -> Iterator[dict[str, str]]:
    """Engines of our own where they can run, with a small image; the environment in which their clients find them."""
    image = folder / "small.tar"
    small_image(image, "true")
    words = ["import", "-c", "ENV PATH=/bin", str(image), "small:1"]
    with ExitStack() as stack:
        env = dict(os.environ)
        try:
            docker = Engine(folder / "engine")
            stack.callback(docker.close)
            docker.call(*words)
            env["DOCKER_HOST"] = docker.host
        except (OSError, subprocess.SubprocessError, AssertionError):
            env["DOCKER_HOST"] = f"unix://{folder}/none"
        if shutil.which("podman"):
            podman = Podman(folder)
            env.update(podman.env, DOCKER_HOST=env["DOCKER_HOST"])
            stack.callback(podman.call, "rmi", "-af", check=False)
            podman.call(*words, check=False)
        yield env


def spread(values: list[float]) -> str:
    return f"{min(values):,.1f}–{max(values):,.1f} over {len(values)} rounds"
