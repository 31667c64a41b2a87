"""Jobs in containers of a real podman: no daemon, its containers are descendants of the keeper."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.integration.isolation_scenarios import reads_its_inputs
from tests.integration.keeper_scenarios import Agent, sh, wait_for
from tests.stand_ins.engine import small_image
from tests.stand_ins.podman import Podman
from worker.isolation import found
from worker.runner import KeeperDied

PODMAN = {"isolation": "podman", "image": "localhost/small:1", "network": False}


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    needs.root()
    for program, package in (("podman", "podman"), ("catatonit", "catatonit"), ("runc", "runc")):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/libexec/podman") is None:
            needs.missing(f"{program}: apt-get install {package}")
    folder = Path(tempfile.mkdtemp(prefix="wm-podman-", dir="/var/tmp"))
    made = Podman(folder)
    small_image(folder / "small.tar", "setsid", "true")
    made.call("import", "-c", "ENV PATH=/bin", str(folder / "small.tar"), "small:1")
    probe = ["run", "--rm", "--network", "none", "--cap-drop", "ALL", "--init", "localhost/small:1", "true"]
    try:
        tried = subprocess.run(["podman", *probe], env=made.env, capture_output=True, text=True, check=False)
        if tried.returncode != 0:
            needs.missing(f"the right to run podman ({tried.stderr.strip()[-200:]})")
        yield made
    finally:
        made.call("rm", "-af", check=False)
        made.call("rmi", "-af", check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def agent(podman: Podman, tmp_path: Path) -> Iterator[Any]:
    work_dir = tmp_path / "work" / "w-1"
    (work_dir / "jobs").mkdir(parents=True)
    registry = str(tmp_path / "users" / "known")
    learned = found.find(["podman"], "none", str(work_dir), [], [], podman.env, registry=registry)
    assert (learned.can, learned.cannot) == (("podman",), {})
    made = Agent(work_dir / "jobs", isolation=learned.told)
    yield made
    made.runner.close()


def test_a_job_its_user_its_status_and_its_strays(agent: Any, podman: Podman) -> None:
    who, three, stray = agent.start(
        sh("id -u; echo $SECRET"), sh("exit 3"), sh("setsid sleep 600 & echo done"), work=PODMAN, env={"SECRET": "a b"}
    )
    agent.all_ended()
    number, secret = agent.text(who).splitlines()
    assert (int(number) >= 700_000, secret) == (True, "a b")
    assert (agent.results[three]["exit_code"], agent.results[stray]["exit_code"]) == (3, 0)
    wait_for(lambda: podman.containers() == [], "podman to forget them")


def test_a_job_in_a_container_reads_its_inputs_and_no_others(agent: Any, podman: Podman, tmp_path: Path) -> None:
    reads_its_inputs(tmp_path, agent, PODMAN)
    wait_for(lambda: podman.containers() == [], "podman to forget them")


def test_cancel_reaches_the_container_and_grace_is_kept(agent: Any, podman: Podman) -> None:
    kind, deaf = agent.start(
        sh('trap "echo got it; exit 7" TERM; echo up; while :; do sleep 0.1; done'),
        sh('trap "" TERM; echo up; while :; do sleep 0.1; done'),
        work=PODMAN,
        grace_ms=2000,
    )
    for job in (kind, deaf):
        agent.says(job, "up")
        agent.runner.cancel(job, 1)
    agent.all_ended()
    assert (agent.results[kind]["exit_code"], "got it" in agent.text(kind)) == (7, True), agent.results
    assert agent.results[deaf]["signal"] == 9
    wait_for(lambda: podman.containers() == [], "podman to forget them")


@pytest.mark.parametrize("killed", ["client", "keeper"])
def test_no_container_outlives_whoever_is_killed(agent: Any, podman: Podman, killed: str) -> None:
    (job,) = agent.start(sh("echo up; sleep 600"), work=PODMAN)
    agent.says(job, "up")
    os.kill(agent.runner._pids[job, 1] if killed == "client" else agent.keeper, 9)
    if killed == "client":
        agent.all_ended()
    else:
        with pytest.raises(KeeperDied):
            agent.all_ended()
    wait_for(lambda: podman.containers() == [], "podman to forget it")


def test_a_registry_that_is_not_there_is_not_the_jobs_fault(agent: Any) -> None:
    (job,) = agent.start(["true"], work={**PODMAN, "image": "127.0.0.1:9/x:1"})
    agent.all_ended()
    assert (agent.results[job]["outcome"], agent.results[job]["reason"]) == ("returned", "image-unreachable")
