"""One manager, one workstation, three workers that share it: the law `idle` keeps one of them idle."""

import json
from pathlib import Path

from tests.place import Place, until

GB = 10**9
POOLS = """\
version: 1
pools:
  - name: desk
    backend: local
    min-workers: 0
    max-workers: 3
    shape: {cpus: 32, memory: 64GB}
    law: idle
    limits: {stabilise: 0s}
    worker: {share: %s, max-runs: 1, isolation: [none]}
"""


class Desk:
    """What the workers say that is free, in the order in which they came: cores and GB."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place, self._folder = place, folder

    def free(self) -> list[tuple[float, float]]:
        workers = json.loads(self._place.run("get", "workers", "-o", "json"))["items"]
        rows = [each for each in workers if each["state"] in ("ready", "draining")]
        rows.sort(key=lambda each: (each["ready_ms"], each["id"]))
        return [(each["free"].get("cpus", 1000) / 1000, each["free"].get("memory", 0) / GB) for each in rows]

    def reaches(self, *free: tuple[float, float]) -> None:
        until(lambda: self.free() == [*free], lambda: f"{free}; there is {self.free()}", every=0.3)

    def task(self, cpus: int, memory: int, gate: str) -> str:
        """It runs until its gate is opened; the worker that it runs on."""
        line = f"until [ -e {self._folder / gate} ]; do sleep 0.05; done"
        job = self._place.submit("--cpus", str(cpus), "--memory", f"{memory}GB", "--shell", line)
        worker: str = self._place.reaches(job, "running")["worker"]
        return worker

    def open(self, gate: str) -> None:
        (self._folder / gate).touch()


def test_the_simple_local_pool_number_by_number(place: Place, tmp_path: Path) -> None:
    """Launch a worker when none is idle, each ends with its task, and each has what the others leave."""
    machine = tmp_path / "machine"
    manager = place.manage("run", "-c", place.pools(POOLS % machine))
    desk = Desk(place, tmp_path)
    desk.reaches((32, 64))
    first = desk.task(8, 16, "a")
    desk.reaches((24, 48), (24, 48))
    second = desk.task(20, 40, "b")
    assert second != first
    desk.reaches((4, 8), (4, 8), (4, 8))
    desk.open("a")
    desk.reaches((12, 24), (12, 24))
    desk.open("b")
    desk.reaches((32, 64))
    assert place.end(manager) == 143
    (third,) = place.workers()
    place.run("drain", third["id"])
    until(lambda: not place.workers(), "the idle one to go")
    place.run("down")
    place.empty()
    assert list(machine.iterdir()) == []
