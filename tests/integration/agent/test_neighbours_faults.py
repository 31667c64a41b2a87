"""Workers that share a machine when one of them dies, stops or is none, and when the folder they share is spoilt."""

import contextlib
import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from tests import needs
from tests.integration.agent.machines import Machine, machine, machine_of
from tests.place import alive
from worker.machine.folder import Folder, Standing

__all__ = ["machine", "machine_of"]

DEAF = "trap '' TERM; echo $$ > %s; while :; do sleep 0.1; done"


def two(machine: Machine) -> tuple[Any, int, int]:
    """w1 runs a job of 8 cores that does not end by itself, w2 has the rest: (w1's agent and keeper, the job)."""
    first, _ = machine.workers("w1", "w2", w1=("--exit-after-num-runs", "1"))
    note = machine.folder / "pid"
    job = machine.task(8, 16, "sh", "-c", DEAF % note, on="w1")
    assert machine.runs_on(job) == "w1"
    machine.reaches(w1=(24, 48), w2=(24, 48))
    machine.eventually(lambda: note.exists() and note.read_text().strip(), "the job to begin")
    (keeper,) = machine.keepers(first.pid)
    return first, keeper, int(note.read_text())


def left_to(machine: Machine, name: str, cores: float) -> None:
    machine.eventually(lambda: machine.free()[name][0] == cores, f"{cores} cores left to {name}")


def test_a_killed_agents_share_returns_when_its_keeper_has_ended_its_jobs(machine: Machine) -> None:
    agent, keeper, pid = two(machine)
    os.kill(keeper, signal.SIGSTOP)
    agent.kill()
    agent.wait()
    for _ in range(10):
        assert machine.free()["w2"][0] == 24, "its job still runs"
        time.sleep(0.05)
    assert alive(pid)
    os.kill(keeper, signal.SIGCONT)
    left_to(machine, "w2", 32)
    assert not alive(pid)


def test_a_killed_keepers_share_returns_when_its_agent_has_ended_its_jobs(machine: Machine) -> None:
    agent, keeper, pid = two(machine)
    os.kill(keeper, signal.SIGKILL)
    left_to(machine, "w2", 32)
    assert not alive(pid)
    assert agent.wait(20) == 1


def test_one_that_is_stopped_keeps_its_share_and_nobody_waits_for_it(machine: Machine) -> None:
    agent, keeper, _ = two(machine)
    for pid in (agent.pid, keeper):
        os.kill(pid, signal.SIGSTOP)
    assert machine.runs_on(machine.task(24, 48, "true", on="w2"), "succeeded") == "w2"
    waits = machine.task(25, 48, "true")
    for _ in range(10):
        assert machine.state(waits) == "queued"
        time.sleep(0.05)
    for pid in (agent.pid, keeper):
        os.kill(pid, signal.SIGCONT)


def test_who_keeps_the_folder_locked_or_writes_rubbish_only_makes_the_others_offer_less(machine: Machine) -> None:
    machine.workers("w1")
    kept = os.open(machine.common, os.O_RDONLY)
    fcntl.flock(kept, fcntl.LOCK_EX)
    job = machine.task(1, 1, "true")
    machine.reaches(w1=(0, 0))
    machine.eventually(lambda: machine.state(job) == "queued", "it to go back")
    os.close(kept)
    assert machine.runs_on(job, "succeeded") == "w1"
    machine.reaches(w1=(32, 64))
    lock = os.open(machine.common / "stranger.lock", os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (machine.common / "stranger.held").write_text("I have it all")
    machine.tell()
    machine.reaches(w1=(0, 0))
    os.close(Folder(str(machine.common)).begin("stranger", Standing({}, {"cpus": 30_000}, ())))
    machine.tell()
    machine.reaches(w1=(2, 64))
    os.close(lock)
    machine.tell()
    machine.reaches(w1=(32, 64))
    assert machine.gone("stranger")


def test_a_folder_that_is_full_keeps_nobody_who_is_there_from_anything(machine: Machine) -> None:
    with needs.small_disk(machine.common, "1m"):
        machine.common.chmod(0o1777)
        machine.workers("w1", "w2")
        filler = machine.common / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        job = machine.task(8, 16, *machine.gate("a"), on="w1")
        machine.runs_on(job)
        machine.reaches(w1=(24, 48), w2=(24, 48))
        refused = machine.tries("w3")
        assert "--share" in refused and "No space left" in refused
        machine.open("a")
        machine.runs_on(job, "succeeded")
        machine.reaches(w1=(32, 64), w2=(32, 64))
        machine.end()


class Witness(threading.Thread):
    """Adds up, all the time, the cores of jobs that are alive at the same moment, by what their processes carry."""

    def __init__(self, mark: str) -> None:
        super().__init__(daemon=True)
        self._mark = f"STORM={mark}".encode()
        self.over = threading.Event()
        self.most, self.looks = 0, 0

    def run(self) -> None:
        while not self.over.is_set():
            seen = {entry: what for entry in Path("/proc").glob("[1-9]*") if (what := self._what(entry))}
            together = dict(
                what for entry, what in seen.items() if self._what(entry) == what and alive(int(entry.name))
            )
            self.most = max(self.most, sum(together.values()))
            self.looks += 1

    def _what(self, process: Path) -> tuple[bytes, int] | None:
        try:
            carried = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return None
        if self._mark not in carried:
            return None
        env = dict(entry.split(b"=", 1) for entry in carried if b"=" in entry)
        return env[b"WM_ATTEMPT"], int(env[b"WM_CPUS"])


def test_whoever_is_killed_never_more_runs_than_there_is(machine_of: Any, hub: Any, tmp_path: Path) -> None:
    machine: Machine = machine_of("4")
    witness = Witness(str(tmp_path))
    witness.start()
    agents = dict(zip(names := [f"w{n}" for n in range(4)], machine.workers(*names), strict=True))
    for cores in (1, 2, 3):
        more = {"array": {"count": 300}, "env": {"STORM": str(tmp_path)}}
        hub.submit("sleep", "0.2", resources={"cpus": cores * 1000}, **more)
    for turn in range(6):
        machine.eventually(lambda: machine.busy() & set(agents), "one of them to have a job")
        victim = sorted(machine.busy() & set(agents) or agents)[0]  # the first may have ended meanwhile
        agent = agents.pop(victim)
        os.kill(machine.keepers(agent.pid)[0] if turn % 2 else agent.pid, signal.SIGKILL)
        (agents[f"x{turn}"],) = machine.workers(f"x{turn}")
        agent.wait(20)
    for agent in agents.values():
        agent.kill()
    machine.workers("last")
    machine.eventually(lambda: machine.shape("last") == 4, "all that was held to be free again")
    witness.over.set()
    witness.join()
    assert witness.looks > 20
    assert 3 <= witness.most <= 4, "and it was used"


def test_each_gpu_goes_to_one_job(machine: Machine) -> None:
    machine.workers("w1", "w2", w1=("--gpus", "3"), w2=("--gpus", "3"))
    notes = machine.folder / "gpus"
    line = f"echo $CUDA_VISIBLE_DEVICES >> {notes}; until [ -e {machine.folder / 'go'} ]; do sleep 0.02; done"
    jobs = [machine.task(1, 1, "sh", "-c", line, gpus=1, on=name) for name in ("w1", "w2", "w1")]
    for job in jobs:
        machine.runs_on(job)
    machine.eventually(lambda: len(notes.read_text().split()) == 3, "three GPUs")
    assert sorted(notes.read_text().split()) == ["0", "1", "2"]
    machine.open("go")


def test_a_machine_that_cannot_be_shared_is_said(machine: Machine) -> None:
    machine.common.mkdir()
    machine.common.chmod(0o777)
    said = machine.tries("w1")
    assert "--share" in said and "chmod 1777" in said
