"""`true` in each way of isolation that works here, two at a time, by one keeper: what each way costs a job.

The hub is left out: it does the same for all of them.
"""

import os
import select
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.stand_ins.engine import Engine, small_image
from tools.bench.report import Row, against
from worker.isolation import found
from worker.protocol import Assignment, Outcome, Shape
from worker.runner import Ended, Runner

ROUNDS = 3
JOBS = {"process": 1500, "process, a user of its own": 600, "sandbox": 200, "docker": 12}
WORK: dict[str, dict[str, Any]] = {
    "sandbox": {"isolation": "sandbox"},
    "docker": {"isolation": "docker", "image": "small:1", "network": False},
}


def rows() -> list[Row]:
    """Each way in turn, so that a noisy machine is noisy for all."""
    folder = Path(tempfile.mkdtemp(prefix="wm-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        with engine(folder) as env:
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
    except found.JobUserError:
        return None
    return None if learned.cannot else learned.told


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
def engine(folder: Path) -> Iterator[dict[str, str]]:
    """An engine of our own where one can run; the environment in which its client finds it."""
    try:
        made = Engine(folder / "engine")
    except (OSError, subprocess.SubprocessError, AssertionError):
        yield dict(os.environ, DOCKER_HOST=f"unix://{folder}/none")
        return
    try:
        small_image(folder / "small.tar", "true")
        made.call("import", "-c", "ENV PATH=/bin", str(folder / "small.tar"), "small:1")
        yield dict(os.environ, DOCKER_HOST=made.host)
    finally:
        made.close()


def spread(values: list[float]) -> str:
    return f"{min(values):,.1f}–{max(values):,.1f} over {len(values)} rounds"
