"""Jobs in containers of a real docker engine: what they see, what they may use, how they end, that they are gone."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.integration.isolation_scenarios import reads_its_inputs
from tests.integration.keeper_scenarios import Agent, sh, wait_for
from tests.stand_ins.engine import Engine, small_image
from tests.stand_ins.registry import Registry
from worker.isolation import found
from worker.processes import boot_ms
from worker.runner import KeeperDied

Start = Callable[..., Any]
DOCKER = {"isolation": "docker", "image": "small:1", "network": False}


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("image") / "small.tar"
    small_image(archive, "setsid", "touch", "true", "grep")
    return archive


@pytest.fixture(scope="module")
def engine(rootfs: Path) -> Iterator[Engine]:
    needs.root()
    for program in ("dockerd", "docker"):
        if shutil.which(program) is None:
            needs.missing(f"{program}: apt-get install docker.io")
    folder = Path(tempfile.mkdtemp(prefix="wm-docker-", dir="/var/tmp"))
    try:
        made = Engine(folder / "engine")
    except (OSError, subprocess.SubprocessError, AssertionError) as failed:
        needs.missing(f"the right to run dockerd ({str(failed).strip().rpartition(chr(10))[2]})")
    try:
        made.call("import", "-c", "ENV PATH=/bin", str(rootfs), "small:1")
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def registry(rootfs: Path) -> Iterator[Registry]:
    made = Registry(rootfs)
    yield made
    made.close()


@pytest.fixture
def start(engine: Engine, tmp_path: Path) -> Iterator[Start]:
    """`start()`: an agent's runner that offers docker."""
    agents: list[Any] = []

    def begin(name: str = "w-1") -> Any:
        work_dir = tmp_path / "work" / name
        (work_dir / "jobs").mkdir(parents=True)
        registry = str(tmp_path / "users" / "known")
        env = {**os.environ, "DOCKER_HOST": engine.host}
        learned = found.find(["docker"], "none", str(work_dir), [], [], env, registry=registry)
        assert (learned.can, learned.cannot) == (("docker",), {})
        agents.append(Agent(work_dir / "jobs", isolation=learned.told))
        return agents[-1]

    yield begin
    for agent in agents:
        agent.runner.close()


def containers(engine: Engine) -> list[str]:
    return engine.call("ps", "-aq").stdout.split()


def gone(engine: Engine) -> None:
    """No process of any container is left; what is written about the last may take the engine a moment to forget."""
    assert engine.call("ps", "-q").stdout.split() == []
    wait_for(lambda: containers(engine) == [], "the engine to forget them")


def run(agent: Any, *command: str, **more: Any) -> Any:
    """The result of a job in a container, and its output."""
    (job,) = agent.start(list(command), **{"work": DOCKER, **more})
    agent.until(lambda: job in agent.results, "its end")
    return agent.results[job], agent.text(job)


def test_a_job_in_a_container_has_its_directory_its_user_and_its_own_environment(start: Start, engine: Engine) -> None:
    agent = start()
    script = (
        "id -u; touch here; ls -ld $HOME; pwd; echo $SECRET; echo $PATH; grep -c : /proc/net/dev; cat /proc/self/status"
    )
    result, text = run(agent, *sh(script), env={"SECRET": "it's $HOME # secret"})
    lines = text.splitlines()
    assert result["outcome"] == "succeeded", result
    assert int(lines[0]) >= 700_000
    assert lines[1].startswith("drwx------ 2 " + lines[0])
    assert lines[2].endswith("/jobs/slots/1")
    assert lines[3:5] == ["it's $HOME # secret", "/bin"]
    assert lines[5] == "1", "there is a network"
    assert "CapBnd:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines
    gone(engine)


def test_a_job_in_a_container_reads_its_inputs_and_no_others(start: Start, engine: Engine, tmp_path: Path) -> None:
    reads_its_inputs(tmp_path, start(), DOCKER)
    gone(engine)


def test_nothing_of_its_environment_is_in_an_argument(start: Start) -> None:
    agent = start()
    (job,) = agent.start(sh("echo up; sleep 600"), work=DOCKER, env={"SECRET": "never-in-ps"})
    agent.says(job, "up")
    said = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert "never-in-ps" not in said
    agent.runner.cancel(job, 1, grace_ms=0)
    agent.all_ended()


def test_its_limits_are_the_engines(start: Start, engine: Engine) -> None:
    agent = start()
    shape = {"cpus": 1500, "memory": 64 << 20}
    work = {**DOCKER, "max_processes": 20, "max_files": 50}
    (job,) = agent.start(sh("echo up; sleep 600"), work=work, shape=shape)
    agent.says(job, "up")
    form = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.Ulimits}}"
    words = engine.call("inspect", "-f", form, *containers(engine)).stdout
    assert words.split()[:3] == ["1500000000", str(64 << 20), "20"], words
    assert "nofile" in words
    assert "50" in words
    agent.runner.cancel(job, 1, grace_ms=0)
    agent.all_ended()


def test_statuses_and_what_cannot_be_started(start: Start) -> None:
    agent = start()
    assert run(agent, "sh", "-c", "exit 3")[0]["exit_code"] == 3
    assert run(agent, "no-such-command")[0]["exit_code"] == 127
    result, _ = run(agent, *sh("kill -SEGV $$"))
    assert (result["exit_code"], "SIGSEGV" in result["text"]) == (139, True)
    result, _ = run(agent, "true", env={"TWO": "two\nlines"})
    assert (result["outcome"], result["reason"]) == ("failed", "start-failed")
    assert "line break" in result["text"]


def test_cancel_reaches_the_container_and_grace_is_kept(start: Start, engine: Engine) -> None:
    agent = start()
    kind, deaf = agent.start(
        sh('trap "echo got it; exit 7" TERM; echo up; while :; do sleep 0.1; done'),
        sh('trap "" TERM; echo up; while :; do sleep 0.1; done'),
        work=DOCKER,
        grace_ms=1000,
    )
    for job in (kind, deaf):
        agent.says(job, "up")
        agent.runner.cancel(job, 1)
    agent.all_ended()
    assert (agent.results[kind]["exit_code"], "got it" in agent.text(kind)) == (7, True)
    assert (agent.results[deaf]["outcome"], agent.results[deaf]["signal"]) == ("cancelled", 9)
    gone(engine)


def test_a_job_that_the_engine_ends_for_its_memory_says_so(start: Start, engine: Engine) -> None:
    """Its own exit status would only be 137, or whatever a shell makes of a child that was killed."""
    agent = start()
    hog = "x=x; while :; do x=$x$x; done"
    main, child, fine = agent.start(
        sh(hog), sh(f"( {hog} ); echo went on; exit 3"), sh("exit 3"), work=DOCKER, shape={"memory": 32 << 20}
    )
    agent.all_ended()
    for job in (main, child):
        result = agent.results[job]
        assert (result["outcome"], result["reason"]) == ("failed", "memory-limit"), result
        assert "of 32 MiB of memory" in result["text"]
    assert "went on" in agent.text(child)
    assert (agent.results[fine]["reason"], agent.results[fine]["exit_code"]) == ("", 3)
    gone(engine)


def test_a_job_saves_what_it_has_done(start: Start, engine: Engine, tmp_path: Path) -> None:
    agent = start()
    told = {"signal": "USR1", "grace_ms": 60_000, "key": "abc"}
    agent.runner._checkpoints = str(tmp_path / "saved")
    script = """
        cd $WM_CHECKPOINT_DIR || exit 9
        [ -e state ] && { cat state; exit 0; }
        trap 'echo half > state; exit 7' USR1
        trap 'exit 8' TERM
        echo up
        while :; do sleep 0.1; done"""
    (job,) = agent.start(sh(script), work={**DOCKER, "checkpoint": told})
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
        [{"job": job, "epoch": 2, "command": sh(script), "owner": "me", "work": {**DOCKER, "checkpoint": told}}]
    )
    agent.output.clear()
    agent.started.clear()
    agent.until(lambda: job in agent.results, "its end")
    assert (agent.results[job]["outcome"], agent.text(job)) == ("succeeded", "half\n")
    gone(engine)


@pytest.mark.parametrize("killed", ["client", "keeper", "agent"])
def test_no_container_outlives_whoever_is_killed(start: Start, engine: Engine, killed: str) -> None:
    agent = start()
    (job,) = agent.start(sh("setsid sleep 600 & echo up; sleep 600"), work=DOCKER)
    agent.says(job, "up")
    assert len(containers(engine)) == 1
    if killed == "client":
        os.kill(agent.runner._pids[job, 1], 9)
        agent.all_ended()
        assert agent.results[job]["outcome"] == "failed"
    elif killed == "keeper":
        os.kill(agent.keeper, 9)
        with pytest.raises(KeeperDied):
            agent.all_ended()
    else:
        os.close(agent.runner.fileno())
        wait_for(lambda: containers(engine) == [], "the keeper to remove it")
        os.waitpid(agent.keeper, 0)
        agent.runner._pid = 0
    gone(engine)


def test_what_agent_and_keeper_left_goes_with_the_next_start_of_any_agent(start: Start, engine: Engine) -> None:
    agent, living = start(), start("w-2")
    (job,) = agent.start(sh("echo up; sleep 600"), work=DOCKER)
    (other,) = living.start(sh("echo up; sleep 600"), work=DOCKER)
    agent.says(job, "up")
    living.says(other, "up")
    both = containers(engine)
    os.kill(agent.runner._pids[job, 1], 19)  # so that nobody is told that the keeper dies
    os.kill(agent.keeper, 9)
    os.waitpid(agent.keeper, 0)
    agent.runner._pid = 0
    assert containers(engine) == both
    start("w-3")
    assert len(containers(engine)) == 1
    assert living.runner.running() == {(other, 1): "running"}
    living.runner.cancel(other, 1, grace_ms=0)
    living.all_ended()
    gone(engine)


# ---------------------------------------------------------------- images


def test_an_image_is_pulled_once_and_the_job_says_so(start: Start, registry: Registry, engine: Engine) -> None:
    agent = start()
    work = {**DOCKER, "image": f"{registry.address}/small:1"}
    try:
        result, text = run(agent, "true", work=work)
        assert result["outcome"] == "succeeded", text
        assert "pulling image" in text
        assert run(agent, "true", work=work)[1] == ""
        assert registry.pulls >= 1
    finally:
        engine.call("rmi", "-f", work["image"], check=False)


@pytest.mark.parametrize(
    ("instead", "outcome", "reason"),
    [
        ((404, "MANIFEST_UNKNOWN"), "failed", "image-missing"),
        ((403, "DENIED"), "failed", "image-missing"),
        ((503, "UNAVAILABLE"), "returned", "image-unreachable"),
        ((429, "TOOMANYREQUESTS"), "returned", "image-unreachable"),
    ],
)
def test_whose_fault_it_is_that_an_image_does_not_come(
    start: Start, registry: Registry, instead: tuple[int, str], outcome: str, reason: str
) -> None:
    registry.instead = instead
    result, text = run(start(), "true", work={**DOCKER, "image": f"{registry.address}/small:1"})
    assert (result["outcome"], result["reason"]) == (outcome, reason), (result, text)
    assert "could not be pulled" in result["text"]


def test_a_registry_that_is_not_there_is_not_the_jobs_fault(start: Start, registry: Registry) -> None:
    registry.close()
    result, _ = run(start(), "true", work={**DOCKER, "image": f"{registry.address}/small:1"})
    assert (result["outcome"], result["reason"]) == ("returned", "image-unreachable"), result


def test_a_pull_is_cancelled_like_anything_else(start: Start, registry: Registry) -> None:
    registry.delay_s = 5
    agent = start()
    (job,) = agent.start(["true"], work={**DOCKER, "image": f"{registry.address}/small:1"}, grace_ms=500)
    agent.says(job, "pulling image")
    agent.runner.cancel(job, 1)
    agent.all_ended()
    assert agent.results[job]["outcome"] == "cancelled"
    assert agent.results[job]["run_ms"] < 4000
