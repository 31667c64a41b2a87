"""The two images, built and run by a real engine, on a base made here and without any network."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import needs
from tests.integration.conftest import LiveHub
from tests.place import ROOT, until
from tests.stand_ins.engine import Engine, base_image, locked, pins, wheel_of

CONTAINERS = ROOT / "containers"
TREE = ("pyproject.toml", "setup.cfg", "README.md", "LICENSE", "requirements", "containers")
PACKAGES = ("worker", "backends", "worker_manager")
SLOW_S = 180.0  # a container starts slowly on a loaded machine


@dataclass
class Images:
    engine: Engine
    context: Path

    def build(self, which: str, *words: str) -> str:
        file = str(self.context / "containers" / f"Dockerfile.{which}")
        said = ["build", "--network", "none", "--build-arg", "BASE=base:1", "-f", file, "-t", f"{which}:1", *words]
        self.engine.call(*said, str(self.context))
        return f"{which}:1"

    def run(self, image: str, *words: str, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        return self.engine.call("run", "--rm", "--network", "none", *options, image, *words, check=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    needs.root()
    for program in ("dockerd", "docker"):
        if shutil.which(program) is None:
            needs.missing(f"{program}: apt-get install docker.io")
    folder = tmp_path_factory.mktemp("containers")
    try:
        engine = Engine(folder / "engine")
    except (OSError, subprocess.SubprocessError, AssertionError) as failed:
        needs.missing(f"the right to run dockerd ({str(failed).strip().rpartition(chr(10))[2]})")
    try:
        context = a_context(folder / "context")
        base_image(folder / "base.tar", list((context / "wheels").glob("*.whl")))
        engine.take(folder / "base.tar", "base:1")
        yield Images(engine, context)
    finally:
        engine.close()


def a_context(folder: Path) -> Path:
    """What `docker build` is given: the project's own files, and wheels of all that it needs."""
    folder.mkdir()
    for name in TREE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".dockerignore", folder / ".dockerignore")
    (folder / "wheels").mkdir()
    with (folder / ".dockerignore").open("a") as ignored:
        ignored.write("!wheels\n")
    wheels = [wheel_of(name, folder / "wheels") for name, _ in pins((ROOT / "requirements" / "app.txt").read_text())]
    (folder / "requirements" / "here.txt").write_text("".join(map(locked, wheels)))
    return folder


@pytest.fixture(scope="module")
def worker(images: Images) -> str:
    return images.build("worker")


@pytest.fixture(scope="module")
def manager(images: Images) -> str:
    return images.build("manager", "--build-arg", "WHEELS=wheels", "--build-arg", "LOCK=requirements/here.txt")


def test_the_worker_registers_runs_a_job_and_leaves_when_it_is_stopped(
    images: Images, worker: str, hub: LiveHub, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(hub.token("worker"))
    token.chmod(0o600)
    shutil.chown(token, 10001, 10001)
    job = hub.submit("/bin/sh", "-c", "id -u; echo in $(pwd); sleep 600 & echo left behind")
    mount = f"type=bind,src={token},dst=/run/token,readonly"
    words = ["--server", hub.url, "--token-file", "/run/token", "--memory", "64MiB", "--cpus", "1"]
    started = images.engine.call("run", "-d", "--network", "host", "--mount", mount, worker, *words)
    container = started.stdout.strip()

    def log() -> str:
        said = images.engine.call("logs", container, check=False)
        return said.stdout + said.stderr

    until(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "succeeded", log, SLOW_S)
    output = hub.call("GET", f"/v1/jobs/{job}/logs").text
    assert output.startswith("10001\nin /scratch/"), output
    begun = time.monotonic()
    images.engine.call("stop", "--time", "60", container)
    assert time.monotonic() - begun < 30, "TERM was not heard"
    [state] = images.engine.call("inspect", "-f", "{{.State.ExitCode}}", container).stdout.split()
    assert state == "0", log()
    until(lambda: hub.get("/v1/workers")["workers"] == [], "it to have said goodbye")
    assert token.read_text() not in log()


def test_the_worker_is_nobody_special_and_writes_only_to_its_own_folders(images: Images, worker: str) -> None:
    options = ("--read-only", "--tmpfs", "/scratch", "--entrypoint", "/bin/sh", "--cap-drop", "ALL")
    said = images.run(worker, "-c", "id -u; wm-worker --version; echo x > /usr/local/bin/wm-worker", options=options)
    assert said.stdout.splitlines()[0] == "10001"
    assert said.stdout.splitlines()[1]
    assert "Read-only" in said.stderr
    assert said.returncode != 0


def test_the_worker_without_a_hub_says_what_is_missing(images: Images, worker: str) -> None:
    said = images.run(worker)
    assert said.returncode != 0
    assert "--server" in said.stdout + said.stderr


def test_the_manager_runs_hub_and_jobs_and_keeps_its_state_in_a_volume(images: Images, manager: str) -> None:
    engine = images.engine
    engine.call("volume", "create", "state")
    options = ["-d", "--network", "none", "-v", "state:/var/lib/worker-manager"]
    words = ["--min-workers", "1", "--max-workers", "1", "up"]
    container = engine.call("run", *options, manager, *words).stdout.strip()

    def tells(*words: str) -> "subprocess.CompletedProcess[str]":
        return engine.call("exec", container, "worker-manager", *words, check=False)

    def log() -> str:
        said = engine.call("logs", container, check=False)
        return said.stdout + said.stderr

    until(lambda: tells("get", "workers").stdout.count("ready"), log, SLOW_S)
    done = tells("submit", "--wait", "--shell", "id -u; exit 3")
    assert done.returncode == 3, done
    job = done.stdout.split()[0]
    engine.call("stop", "--time", "90", container)
    [state] = engine.call("inspect", "-f", "{{.State.ExitCode}}", container).stdout.split()
    assert state == "0", log()
    again = engine.call("run", *options, manager, *words).stdout.strip()
    container = again
    until(lambda: tells("get", "job", job).returncode == 0, log, SLOW_S)
    assert "failed" in tells("get", "job", job).stdout
    engine.call("stop", "--time", "90", again)


def test_the_manager_has_what_the_lock_names_and_nothing_else(images: Images, manager: str) -> None:
    code = "import importlib.metadata as m; print(*sorted(f'{d.name.lower()}=={d.version}' for d in m.distributions()))"
    said = images.run(manager, "-c", code, options=("--entrypoint", "python3"))
    names = {text.replace("_", "-") for text in said.stdout.split()} - {"pip"}
    locked_names = {f"{name.lower()}=={version}" for name, version in pins((ROOT / "requirements/app.txt").read_text())}
    assert {name for name in names if not name.startswith(("worker-manager", "pip=="))} == locked_names, said.stderr


def test_a_package_that_is_not_what_the_lock_says_stops_the_build(images: Images, manager: str) -> None:
    lock = images.context / "requirements" / "wrong.txt"
    text = (images.context / "requirements" / "here.txt").read_text()
    lock.write_text(text.replace("--hash=sha256:", "--hash=sha256:0", 1)[:-2] + "\n")
    with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
        images.build("manager", "--build-arg", "WHEELS=wheels", "--build-arg", "LOCK=requirements/wrong.txt")


@pytest.mark.parametrize("which", ["worker", "manager"])
def test_the_files_name_no_registry_and_no_address(which: str) -> None:
    text = (CONTAINERS / f"Dockerfile.{which}").read_text()
    assert "://" not in text
    assert "# syntax" not in text, "another image would be fetched to read this one"
    bases = [line.split()[1] for line in text.splitlines() if line.startswith("FROM ")]
    assert bases == ["${BASE}", "${BASE}"]
    assert "\nUSER ${USER_ID}:${USER_ID}\n" in text
