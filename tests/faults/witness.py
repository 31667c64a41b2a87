"""A job that leaves word of each of its attempts, and the processes of a worker, for what is done to them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.place import Place, alive, until

# $1 a folder. An attempt writes who it is, and so do two children, one of which leaves the session; the first attempts
# then wait to be let go, the last one ends at once.
SCRIPT = """
sleep 600 & here=$!
setsid sleep 600 & away=$!
echo "$$ $here $away" > "$1/$WM_ATTEMPT.new"
mv "$1/$WM_ATTEMPT.new" "$1/$WM_ATTEMPT"
echo "out of $WM_ATTEMPT"
case "$WM_ATTEMPT" in *.1) while [ ! -e "$1/go" ]; do sleep 0.05; done ;; esac
"""

POOLS = """\
version: 1
manager: {{tick: 1s}}
hub: {{lease: {lease}}}
pools:
  - name: a
    backend: local
    max-workers: {most}
    shape: {{cpus: {cpus}, memory: 256MiB}}
    limits: {{idle: {idle}, stabilise: 0s, lost-timeout: {lost}, end-grace: 1s}}
"""


def pools(
    place: Place, *, lease: str = "60s", most: int = 2, cpus: int = 1, idle: str = "10m", lost: str = "10m"
) -> str:
    return place.pools(POOLS.format(lease=lease, most=most, cpus=cpus, idle=idle, lost=lost))


@dataclass
class Witness:
    place: Place
    folder: Path
    job: str

    @classmethod
    def submitted(cls, place: Place, name: str = "witness") -> "Witness":
        folder = place.state_dir.parent / name
        folder.mkdir()
        (job,) = place.run("submit", "--name", name, "--", "sh", "-c", SCRIPT, name, str(folder)).split()
        return cls(place, folder, job)

    def pids(self, attempt: int) -> list[int]:
        """Of that attempt's processes, once it runs and the hub knows."""
        word = self.folder / f"{self.job}.{attempt}"
        until(word.exists, f"attempt {attempt} of {self.job} to run")
        until(lambda: self.shown()["attempt"] >= attempt and self.shown()["started_ms"], "the hub to know it")
        return [int(pid) for pid in word.read_text().split()]

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def shown(self) -> dict[str, Any]:
        return self.place.job(self.job)

    def succeeds(self, attempt: int) -> dict[str, Any]:
        shown = self.place.reaches(self.job, "succeeded", "failed", "cancelled")
        assert (shown["state"], shown["attempt"]) == ("succeeded", attempt), shown
        assert self.place.run("logs", self.job) == f"out of {self.job}.{attempt}\n"
        return shown

    def outcomes(self) -> list[str]:
        """Of its attempts, oldest first."""
        return [each["outcome"] for each in self.shown()["attempts"]]


def agent_of(place: Place, worker: str) -> int:
    pid = place.ask(f"/v1/workers/{worker}")["host"]["pid"]
    assert isinstance(pid, int)
    return pid


def keeper_of(agent: int) -> int:
    (keeper,) = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return int(keeper)


def shell_of(agent: int) -> int:
    return int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[1])


def send(number: int, *pids: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def all_dead(pids: list[int]) -> None:
    until(lambda: not any(map(alive, pids)), lambda: f"the end of {[pid for pid in pids if alive(pid)]}")
