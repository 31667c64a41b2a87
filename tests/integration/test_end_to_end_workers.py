"""What becomes of workers and pools, as an operator sees it: from zero, back to zero, and every order one can give."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.place import DEADLINE_S, ROOT, Place, alive, until

QUICK = ["--min-seconds-between-workers", "0", "--stabilise-seconds", "0"]


def local(most: int, idle: float, *more: str) -> list[str]:
    """`worker-manager --min-workers 0 --max-workers N … local`"""
    flags = ["--min-workers", "0", "--max-workers", str(most), "--worker-idle-seconds", str(idle)]
    return [*flags, *QUICK, *more, "local", "--cpus", "1", "--memory-mb", "256"]


class Gate:
    """Jobs that run until it is opened."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "open"
        self.line = f"echo $$ > {folder}/pid; while [ ! -e {self.file} ]; do sleep 0.05; done; echo out"
        self._pid = folder / "pid"

    def open(self) -> None:
        self.file.touch()

    def pid(self) -> int:
        return int(until(lambda: self._pid.exists() and self._pid.read_text().strip(), "the job to run"))


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def end_all(place: Place, manager: "subprocess.Popen[bytes]") -> None:
    assert place.end(manager) == 143
    place.run("down")
    place.empty()


# ---------------------------------------------------------------- from zero and back


def test_from_zero_to_what_is_wanted_and_back_to_zero(place: Place) -> None:
    manager = place.manage(*local(2, 0.5))
    assert place.workers() == []
    array = place.submit("--array", "6", "--shell", "sleep 0.2")
    place.reaches(array, "succeeded")
    until(lambda: not place.workers(), "the idle workers to go")
    came = [event["subject"] for event in place.events("worker.ready")]
    gone = [event["subject"] for event in place.events("worker.gone")]
    assert len(came) == len(set(came)) == 2, "as many as may be, and none for a second time"
    assert sorted(gone) == sorted(came)
    hub = place.hub()
    assert hub is not None
    until(lambda: set(place.processes()) == {manager.pid, hub.pid}, lambda: f"only these two: {place.processes()}")
    until(lambda: [pool["observed"] for pool in place.items("pools")] == [0], "the pool to be seen empty")
    end_all(place, manager)


# ---------------------------------------------------------------- orders


def test_a_drained_worker_finishes_and_another_takes_what_comes(place: Place, gate: Gate) -> None:
    manager = place.manage(*local(2, 60))
    job = place.submit("--shell", gate.line)
    pid = gate.pid()
    worker = place.reaches(job, "running")["worker"]
    assert place.run("drain", worker, "--reason", "its disk is old").split() == [worker]
    until(lambda: place.workers("draining"), "it to drain")
    assert "its disk is old" in place.run("get", "workers")
    second = place.reaches(place.submit("--", "true"), "succeeded")
    assert second["worker"] != worker
    assert alive(pid), "who works goes on"
    gate.open()
    shown = place.reaches(job, "succeeded")
    assert (shown["attempt"], shown["worker"]) == (1, worker)
    until(lambda: place.ask(f"/v1/workers/{worker}").get("state") == "gone", "the drained worker to go")
    place.run("drain", second["worker"])
    until(lambda: not place.workers(), "the other one to go")
    end_all(place, manager)


def test_a_deleted_worker_goes_and_a_busy_one_only_by_force(place: Place, gate: Gate) -> None:
    manager = place.manage(*local(1, 60))
    idle = place.reaches(place.submit("--", "true"), "succeeded")["worker"]
    assert place.run("delete", "worker", idle).split() == [idle]
    until(lambda: not place.workers(), "the idle one to go")
    job = place.submit("--shell", gate.line)
    pid = gate.pid()
    worker = place.reaches(job, "running")["worker"]
    refused = place.run("delete", "worker", worker, code=1)
    assert worker in refused and "force" in refused
    assert alive(pid)
    gate.open()
    assert place.reaches(job, "succeeded")["attempt"] == 1
    again = Gate(place.state_dir.parent / "again")
    again.file.parent.mkdir()
    job = place.submit("--shell", again.line)
    pid = again.pid()
    worker = place.reaches(job, "running")["worker"]
    place.run("delete", "worker", worker, "--force", "--grace-period", "1s")
    until(lambda: not alive(pid), "its job to be ended")
    again.open()
    shown = place.reaches(job, "succeeded")
    assert (shown["attempt"], shown["worker"] == worker) == (2, False)
    assert [one["outcome"] for one in shown["attempts"]][-1] == "succeeded"
    (deleted,) = place.events("worker.deleted", worker)
    assert (deleted["data"]["force"], deleted["data"]["grace_ms"]) == (True, 1000)
    place.run("delete", "worker", shown["worker"])
    until(lambda: not place.workers(), "the last one to go")
    until(lambda: len(place.processes()) == 2, lambda: f"nothing but manager and hub: {place.processes()}")
    end_all(place, manager)


def test_nothing_is_launched_while_a_pool_is_frozen_and_a_freeze_ends_by_itself(place: Place) -> None:
    manager = place.manage(*local(2, 60, "--sleep-time", "600"))
    until(lambda: place.items("pools"), "the first plan")
    place.run("freeze", "pool", "local", "--for", "1h", "--text", "the cooling is repaired")
    until(lambda: place.items("pools")[0]["frozen"], "the pool to be frozen")
    job = place.submit("--", "true")
    until(lambda: "the cooling is repaired" in place.run("explain", "job", job), "the job to say what it waits for")
    assert "the cooling is repaired" in place.run("get", "pools")
    assert place.events("worker.ready") == []
    place.run("unfreeze", "pool", "local")
    place.reaches(job, "succeeded")
    end_all_workers(place)
    place.run("freeze", "pool", "local", "--for", "3s")
    command = place.events("command.asked")[-1]
    until(lambda: place.ask(f"/v1/commands/{command['subject']}")["state"] == "done", "the manager to have heard")
    asked = command["at_ms"]
    started = place.reaches(place.submit("--", "true"), "succeeded")["started_ms"]
    assert started >= asked + 3000, "not while it was frozen"
    assert started <= asked + 120_000, "when the freeze ended, and not at the next look in ten minutes"
    assert "no-such" in place.run("freeze", "pool", "no-such", code=1)
    end_all_workers(place)
    end_all(place, manager)


def end_all_workers(place: Place) -> None:
    for worker in place.workers():
        place.run("delete", "worker", worker["id"])
    until(lambda: not place.workers(), "the workers to go")


# ---------------------------------------------------------------- one pass at a time, and none


def test_one_pass_after_another_as_from_cron(place: Place) -> None:
    once = ["--once", *local(1, 0.5)]
    place.run(*once)
    assert place.workers() == [], "nothing waits, so nothing comes; but its hub stays"
    job = place.submit("--", "true")
    place.run(*once)
    worker = place.reaches(job, "succeeded")["worker"]
    until(
        lambda: place.run(*once) == "" and not place.workers(), "a pass that finds it idle, and another that ended it"
    )
    place.run(*once)
    assert [event["subject"] for event in place.events("worker.ready")] == [worker], "one came in all"
    second = place.submit("--", "true")
    place.run(*once)
    assert place.reaches(second, "succeeded")["worker"] != worker
    until(lambda: place.run(*once) == "" and not place.workers(), "the second one to go")
    place.run("down")
    place.empty()


def test_a_dry_run_changes_nothing_and_tells_by_its_code_whether_it_would(place: Place) -> None:
    dry = ["--dry-run", "--detailed-exitcode", *local(2, 60)]
    assert json.loads(place.run(*dry))["actions"] == []
    place.run("hub", "start")
    assert json.loads(place.run(*dry))["actions"] == []
    place.submit("--array", "5", "--", "true")
    before = place.events()
    told = place.call(*dry)
    assert told.returncode == 3, told
    (launch,) = json.loads(told.stdout)["actions"]
    assert (launch["action"], launch["count"]) == ("launch", 2)
    assert place.call(*dry[:1], *dry[2:]).returncode == 0, "without --detailed-exitcode that is a success"
    assert place.events() == before
    assert place.items("workers") == place.items("pools") == []
    until(lambda: len(place.processes()) == 1, lambda: f"only the hub: {place.processes()}")


# ---------------------------------------------------------------- managers come and go


def test_jobs_and_workers_outlive_their_manager_and_the_next_one_goes_on(place: Place, gate: Gate) -> None:
    first = place.manage(*local(2, 60))
    running = place.submit("--shell", gate.line)
    pid = gate.pid()
    worker = place.reaches(running, "running")["worker"]
    assert place.end(first, signal.SIGINT) == 130
    gate.open()
    assert place.reaches(running, "succeeded")["attempt"] == 1, "without any manager"
    assert place.reaches(place.submit("--", "true"), "succeeded")["worker"] == worker, "nor is one needed for more"
    second = place.manage(*local(2, 0.5))
    until(lambda: not place.workers(), "the new manager to let the old one's worker go")
    assert place.events("worker.draining", worker)[-1]["data"]["by"] == "main"
    assert not alive(pid)
    place.reaches(place.submit("--", "true"), "succeeded")
    until(lambda: not place.workers(), "its own to go")
    end_all(place, second)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_reaches_everything_that_the_terminal_holds(place: Place, gate: Gate, times: int) -> None:
    """A terminal sends the signal to its whole foreground group. Once: what runs is finished. Twice: it goes back."""
    until_open = ["--worker-idle-seconds", "60", "up", "--cpus", "1", "--memory", "256MiB"]
    with place.log.open("ab") as log:
        up = subprocess.Popen(place.command(*until_open), stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
    place.started.append(up)
    until(place.hub, "the hub")
    job = place.submit("--shell", gate.line)
    pid = gate.pid()
    place.reaches(job, "running")
    os.killpg(up.pid, signal.SIGINT)
    until(lambda: place.said("the workers finish what they run"), "the first one to be heard")
    until(lambda: place.workers("draining"), "the worker to drain")
    assert alive(pid) and up.poll() is None
    if times == 1:
        late = place.submit("--", "true")
        gate.open()
    else:
        os.killpg(up.pid, signal.SIGINT)
    assert up.wait(DEADLINE_S) == (0 if times == 1 else 130)
    place.empty()
    place.run("hub", "start")
    shown = place.job(job)
    assert (shown["state"], shown["attempt"]) == (("succeeded", 1) if times == 1 else ("queued", 1))
    if times == 1:
        assert place.job(late)["state"] == "queued", "nothing new was begun"
    place.run("down")
    place.empty()


def test_a_reload_disturbs_nobody_and_counts(place: Place, gate: Gate) -> None:
    def pools(most: int, cpus: str = "1") -> str:
        shape = f"shape: {{cpus: {cpus}, memory: 256MiB}}, limits: {{idle: 60s, stabilise: 0s}}"
        return place.pools(f"version: 1\npools:\n  - {{name: a, backend: local, max-workers: {most}, {shape}}}\n")

    manager = place.manage("run", "-c", pools(1))
    running, waiting = place.submit("--shell", gate.line), place.submit("--shell", gate.line)
    pid = gate.pid()
    until(lambda: "max-workers: 1 of 1" in place.run("explain", "job", waiting), "the bound to be told")
    pools(2, "much")
    manager.send_signal(signal.SIGHUP)
    until(lambda: place.said("the old one stays"), "the complaint about the wrong one")
    pools(2)
    manager.send_signal(signal.SIGHUP)
    place.reaches(waiting, "running")
    assert alive(pid)
    gate.open()
    assert [place.reaches(job, "succeeded")["attempt"] for job in (running, waiting)] == [1, 1]
    end_all_workers(place)
    end_all(place, manager)
