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
from worker.processes import boot_ms
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


def test_a_job_that_the_engine_ends_for_its_memory_says_so(agent: Any, podman: Podman) -> None:
    """Its own exit status would only be 137, or whatever a shell makes of a child that was killed."""
    hog = "x=x; while :; do x=$x$x; done"
    main, child, fine = agent.start(
        sh(hog), sh(f"( {hog} ); echo went on; exit 3"), sh("exit 3"), work=PODMAN, shape={"memory": 32 << 20}
    )
    agent.all_ended()
    for job in (main, child):
        result = agent.results[job]
        assert (result["outcome"], result["reason"]) == ("failed", "memory-limit"), result
        assert "of 32 MiB of memory" in result["text"]
    assert "went on" in agent.text(child)
    assert (agent.results[fine]["reason"], agent.results[fine]["exit_code"]) == ("", 3)
    wait_for(lambda: podman.containers() == [], "podman to forget them")


def test_a_job_saves_what_it_has_done(agent: Any, podman: Podman, tmp_path: Path) -> None:
    told = {"signal": "USR1", "grace_ms": 60_000, "key": "abc"}
    agent.runner._checkpoints = str(tmp_path / "saved")
    script = """
        cd $WM_CHECKPOINT_DIR || exit 9
        [ -e state ] && { cat state; exit 0; }
        trap 'echo half > state; exit 7' USR1
        trap 'exit 8' TERM
        echo up
        while :; do sleep 0.1; done"""
    (job,) = agent.start(sh(script), work={**PODMAN, "checkpoint": told})
    agent.says(job, "up")
    agent.runner.hand_back_by(boot_ms() + 30_000, "drained", "its worker goes")
    agent.until(lambda: job in agent.results, "its end")
    result = agent.results.pop(job)
    assert (result["outcome"], result["exit_code"]) == ("returned", 7), (result, agent.text(job))
    folder = tmp_path / "saved" / "me" / f"{job}-abc"
    assert (folder / "state").read_text() == "half\n"
    assert folder.stat().st_uid >= 700_000
    agent.runner.hand_back_by(None, "", "")
    agent.runner.start(
        [{"job": job, "epoch": 2, "command": sh(script), "owner": "me", "work": {**PODMAN, "checkpoint": told}}]
    )
    agent.output.clear()
    agent.started.clear()
    agent.until(lambda: job in agent.results, "its end")
    assert (agent.results[job]["outcome"], agent.text(job)) == ("succeeded", "half\n")
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
