"""`up` and `down`, with everything that a person may do between them."""

import os
import signal
import subprocess

import pytest

from tests.place import DEADLINE_S, Place, until
from worker_manager.cli.up import running

UP = ("up", "--cpus", "1", "--memory", "256MiB")


def busy(place: Place) -> tuple[subprocess.Popen[bytes], str]:
    """`up`, and a job that runs until it is ended."""
    up = place.manage(*UP)
    job = place.submit("--", "sleep", "600")
    until(lambda: place.job(job)["state"] == "running", "the job to run")
    return up, job


def test_a_second_up_is_refused_and_the_first_can_still_be_ended(place: Place) -> None:
    up, _ = busy(place)
    assert running(place.state_dir) == up.pid
    second = place.call(*UP)
    assert second.returncode == 75
    assert f"`up` runs already on {place.state_dir}: pid {up.pid}" in second.stderr
    assert running(place.state_dir) == up.pid
    told = place.call("down", "--now")
    assert (told.returncode, "the hub has ended" in told.stderr) == (0, True)
    assert up.wait(DEADLINE_S) == 143
    assert place.hub() is None
    until(lambda: not place.processes(), "every process to be gone")


@pytest.mark.parametrize("hub", ["the hub runs", "the hub was stopped"])
def test_down_now_ends_the_workers_of_an_up_that_died(place: Place, hub: str) -> None:
    up, job = busy(place)
    up.kill()
    up.wait()
    if hub == "the hub was stopped":
        told = place.call("down")
        assert "1 worker with 1 running job is left" in told.stderr
        assert "worker-manager down --now ends them too" in told.stderr
        assert place.hub() is None
    told = place.call("down", "--now")
    assert told.returncode == 0, told
    assert "1 worker with 1 running job is told to stop" in told.stderr
    until(lambda: not place.processes(), "every process to be gone")
    place.run("hub", "start")
    assert place.job(job)["state"] == "queued"
    place.run("down")


def test_down_leaves_a_manager_that_up_did_not_start(place: Place) -> None:
    manager = place.manage("--min-workers", "0", "local", "--memory", "256MiB")
    told = place.call("down")
    assert told.returncode == 1
    assert "the manager 'main' still runs" in told.stderr
    assert place.hub() is not None
    manager.send_signal(signal.SIGTERM)
    assert manager.wait(DEADLINE_S) == 143
    place.run("down")
    assert place.hub() is None


def test_down_where_nothing_runs(place: Place) -> None:
    for words in (("down",), ("down", "--now")):
        done = place.call(*words)
        assert (done.returncode, done.stderr) == (0, f"no hub runs on {place.state_dir}\n")
    assert not place.state_dir.exists()


def test_a_manager_tells_that_its_hub_is_gone_and_that_it_is_back(place: Place) -> None:
    place.manage("--min-workers", "0", "local", "--memory", "256MiB")
    until(lambda: place.items("pools"), "the first plan")
    place.run("hub", "stop")
    until(lambda: place.said("the backlog cannot be read, so nothing is decided"), "the manager to say so")
    place.run("hub", "start")
    until(lambda: place.said("it can be read again"), "the manager to say so")


def test_ctrl_c_ends_what_watches_with_130(place: Place) -> None:
    place.run("hub", "start")
    job = place.submit("--", "true")
    for words in (("logs", "-f", job), ("get", "jobs", "-w"), ("submit", "--wait", "--", "true")):
        log = place.state_dir.parent / "watching"
        with log.open("wb") as out:
            watching = subprocess.Popen(
                place.command(*words), stdout=out, stderr=out, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )
        place.started.append(watching)
        until(lambda log=log: log.read_bytes(), f"{words} to say something")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(DEADLINE_S) == 130, log.read_text()
        assert b"Traceback" not in log.read_bytes()
    place.run("down")
