"""`worker.pyz` under every Python from 3.9 on that this machine has, with nothing but its standard library."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.integration.test_keeper import interpreter
from worker_manager.hub import pyz

VERSIONS = [f"3.{minor}" for minor in range(9, 15)]
SYSTEM = "/usr/bin/python3"


@pytest.fixture(scope="module")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pyz") / "worker.pyz"
    made.write_bytes(pyz.build())
    return made


def runs(hub: Any, agent: Any) -> None:
    """It registers, runs jobs (one that ends, one that is handed back), and leaves."""
    hub.assign(hub.job("j1", "sh", "-c", "echo hello; cd / && exec sh -c 'echo $WM_ATTEMPT'"))
    assert hub.result("j1")["outcome"] == "succeeded"
    assert hub.logs["j1", 1] == b"hello\nj1.1\n"
    hub.assign(hub.job("j2", "sleep", "1000"))
    agent.process.send_signal(signal.SIGTERM)
    agent.signal_again(signal.SIGTERM)
    assert agent.exit_code() == 0, agent.errors.read_text()
    assert hub.result("j2")["outcome"] == "returned"
    assert not agent.said("error")


@pytest.mark.parametrize("version", VERSIONS)
def test_it_runs_under(fake_hub: Any, start_agent: Any, single_file: Path, version: str) -> None:
    python = interpreter(version)
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no Python {version} on this machine")
    agent = start_agent(program=[python, "-I", "-S", str(single_file)], env={"PYTHONPATH": ""})
    runs(fake_hub, agent)
    (told,) = fake_hub.registrations
    assert told["host"]["python"].startswith(version + ".")


def test_it_runs_under_the_systems_own_as_it_is_launched(fake_hub: Any, start_agent: Any, single_file: Path) -> None:
    """Without options, and with whatever the distribution has put beside it."""
    if not Path(SYSTEM).exists():
        needs.missing(f"{SYSTEM}: apt-get install python3")
    probe = [SYSTEM, "-c", "import sys; sys.exit(sys.version_info < (3, 9))"]
    if subprocess.run(probe).returncode:
        pytest.skip(f"{SYSTEM} is older than 3.9")
    runs(fake_hub, start_agent(program=[SYSTEM, str(single_file)], env={"PYTHONPATH": ""}))
