"""Workers that are cut off from their hub, by a pulled cable or by one that loses all that goes one way: each has ended
its jobs before the hub gives them to another, and goes on when the line is back."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.faults.cables import Cables, cables
from tests.place import alive, until
from worker_manager.hub.tls import fingerprint_of

# $1 a folder. An attempt writes down all its processes, one of which has left its session; then it looks whether any of
# an attempt before it is still there. The first attempt goes on until it is let go.
SCRIPT = """
setsid sleep 600 & away=$!
sleep 600 & here=$!
for pid in $(cat "$1"/*.pids 2>/dev/null); do kill -0 "$pid" 2>/dev/null && echo "still there: $pid"; done
echo "$$ $away $here" > "$1/$WM_ATTEMPT.new"; mv "$1/$WM_ATTEMPT.new" "$1/$WM_ATTEMPT.pids"
case "$WM_ATTEMPT" in *.1) while [ ! -e "$1/go" ]; do sleep 0.02; done ;; esac
echo "over: $WM_ATTEMPT"
"""
LEASE_MS = 4000
CUTS = {"pulled": "", "answers-lost": "INPUT", "requests-lost": "OUTPUT"}


class Hub:
    """On the near end of all cables, so it speaks TLS."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self.url = live.url
        self.fingerprint = fingerprint_of(live.state_dir / "tls" / "ca.pem")
        self._verify = {"verify": str(live.state_dir / "tls" / "ca.pem")}

    def get(self, path: str, **params: Any) -> Any:
        return self._live.get(path, params=params, **self._verify)

    def text(self, path: str) -> str:
        return str(self._live.call("GET", path, **self._verify).text)

    def post(self, path: str, body: Any) -> Any:
        return self._live.post(path, body, **self._verify)

    def token(self) -> str:
        return str(self.post("/v1/tokens", {"owner": "ann", "scopes": ["worker"]})["token"])

    def submit(self, folder: Path, tag: str) -> str:
        folder.mkdir()
        spec = {"command": ["sh", "-c", SCRIPT, "job", str(folder)], "resources": {"cpus": 1000}, "tags": [tag]}
        return str(self.post("/v1/jobs", {"jobs": [spec]})["jobs"][0]["id"])

    def job(self, id: str) -> Any:
        return self.get(f"/v1/jobs/{id}")

    def events(self, kind: str, subject: str) -> list[Any]:
        return list(self.get("/v1/events", kind=kind, subject=subject, limit=1000)["events"])


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Cables]:
    needs.network_namespaces()
    with cables(tmp_path) as made:
        yield made


def running(hub: Hub, job: str, folder: Path) -> list[int]:
    """The processes of its first attempt, once the hub knows that it runs."""
    until(lambda: hub.job(job)["state"] == "running", f"{job} to run")
    (word,) = until(lambda: list(folder.glob("*.pids")), "its word")
    return [int(pid) for pid in word.read_text().split()]


def test_jobs_are_dead_before_others_get_them(wires: Cables, start_hub: Any, tmp_path: Path) -> None:
    """Three workers that are cut off each in its way, a fourth that takes over, and a fifth whose line is away for a
    moment, in which its job ends."""
    hub = Hub(start_hub(listen=f"{wires.near}:0", lease_ms=LEASE_MS, poll_ms=2000))
    lines = {
        name: wires.worker(hub.url, hub.fingerprint, hub.token(), name, "--cpus", "1", "--tag", name)
        for name in [*CUTS, "blinks"]
    }
    jobs = {name: hub.submit(tmp_path / f"of-{name}", name) for name in lines}
    pids = {name: running(hub, job, tmp_path / f"of-{name}") for name, job in jobs.items()}

    for name, direction in CUTS.items():
        lines[name].cut(direction)
    lines["blinks"].pull()
    (tmp_path / "of-blinks" / "go").touch()
    until(lambda: not any(map(alive, pids["blinks"])), "the job to end while the line is away")
    lines["blinks"].plug()

    others = [flag for name in CUTS for flag in ("--tag", name)]
    wires.worker(hub.url, hub.fingerprint, hub.token(), "heir", "--cpus", "4", *others)
    for name in CUTS:
        until(lambda job=jobs[name]: hub.job(job)["state"] == "succeeded", f"the job of {name} to succeed")
        shown = hub.job(jobs[name])
        assert (shown["worker"], shown["attempt"]) == ("heir", 2)
        assert hub.text(f"/v1/jobs/{jobs[name]}/logs") == f"over: {jobs[name]}.2\n", "nothing of the first was there"
        assert not any(map(alive, pids[name]))
        assert wires.said(name, "fenced"), "by its own decision"
        assert wires.workers[name].poll() is None, "it waits for its line"

    shown = until(lambda: hub.job(jobs["blinks"])["ended_ms"] and hub.job(jobs["blinks"]), "the one that blinked")
    assert (shown["state"], shown["attempt"], shown["worker"]) == ("succeeded", 1, "blinks")
    assert hub.text(f"/v1/jobs/{jobs['blinks']}/logs") == f"over: {jobs['blinks']}.1\n"
    assert not wires.said("blinks", "fenced")

    for name in CUTS:
        lines[name].plug()
        lines[name].mend()
    for name in CUTS:
        until(lambda name=name: hub.get(f"/v1/workers/{name}")["state"] == "ready", f"{name} to be back")
        assert [each["data"]["jobs"] for each in hub.events("worker.lost", name)] == [1], "requeued once"
        assert [each["outcome"] for each in hub.job(jobs[name])["attempts"]] == ["lost", "succeeded"]
    hub.post("/v1/workers/heir/drain", {})
    for name in CUTS:
        again = hub.submit(tmp_path / f"again-{name}", name)
        (tmp_path / f"again-{name}" / "go").touch()
        until(lambda job=again: hub.job(job)["state"] == "succeeded", f"{name} to run another job")
        assert hub.job(again)["worker"] == name


# $1 a folder, $2 how long. Leaves word of itself and of a child; an attempt before it must be dead by then. (Numbers of
# processes come again in a storm: so it looks whose they are.)
TASK = """
sleep 600 & child=$!
for pid in $(cat "$1/$WM_JOB".*.pids 2>/dev/null); do
    tr '\\0' '\\n' 2>/dev/null < "/proc/$pid/environ" | grep -qx "WM_JOB=$WM_JOB" && echo "still there: $pid"
done
echo "$$ $child" > "$1/$WM_ATTEMPT.new"; mv "$1/$WM_ATTEMPT.new" "$1/$WM_ATTEMPT.pids"
sleep "$2"
echo over
"""


def storm(wires: Cables, start_hub: Any, folder: Path, seed: int, seconds: float, tasks: int) -> None:
    """Cables are cut and mended at random while an array is worked on: in the end each task has one result, and none
    began while an earlier attempt of it was alive."""
    chance = random.Random(seed)  # noqa: S311
    hub = Hub(start_hub(listen=f"{wires.near}:0", lease_ms=2500, poll_ms=1000))
    names = [f"w{number}" for number in range(4)]
    lines = {name: wires.worker(hub.url, hub.fingerprint, hub.token(), name, "--cpus", "2") for name in names}
    spec = {
        "command": ["sh", "-c", TASK, "task", str(folder), "0.4"],
        "array": {"count": tasks},
        "resources": {"cpus": 1000},
    }
    job = hub.post("/v1/jobs", {"jobs": [spec]})["jobs"][0]["id"]
    until(lambda: hub.job(job)["array"]["succeeded"] > 0, "the first results")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        cable = lines[chance.choice(names)]
        cable.cut(chance.choice(["", "INPUT", "OUTPUT"]))
        time.sleep(chance.random() * 4)
        if chance.random() < 0.7:
            cable.plug()
            cable.mend()
    for cable in lines.values():
        cable.plug()
        cable.mend()
    until(lambda: hub.job(job)["ended_ms"], lambda: f"the array to end: {hub.job(job)}", 120)
    shown = hub.job(job)
    assert shown["array"]["succeeded"] + shown["array"]["failed"] == tasks
    for task in range(tasks):
        one = hub.job(f"{job}-{task}")
        assert one["state"] == "succeeded" or one["reason"] == "lost-too-often", one
        if one["state"] == "succeeded":
            assert hub.text(f"/v1/jobs/{job}-{task}/logs") == "over\n"
            assert [each["outcome"] for each in one["attempts"]].count("succeeded") == 1


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
def test_a_storm_of_cuts(wires: Cables, start_hub: Any, tmp_path: Path, seed: int) -> None:
    storm(wires, start_hub, tmp_path, seed, seconds=60, tasks=400)
