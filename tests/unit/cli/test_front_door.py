"""Help, mistakes on the command line, errors → exit codes."""

import os
import subprocess
import sys

import pytest

from tests.unit.cli.house import FakeHub, House
from worker_manager.errors import HubError, LeaseHeld, SourceUnavailable, StoreError

EVERY_COMMAND = (
    *("up", "down", "run", "submit", "get", "describe", "logs", "explain", "cancel", "drain", "undrain", "delete"),
    *("freeze", "unfreeze", "hub", "token", "config", "doctor", "render", "version", "completion", "local"),
)


def test_the_help_names_every_command_and_backend() -> None:
    told = House().ok("--help")
    assert {line.split()[0] for line in told.splitlines() if line.startswith("  ") and line.strip()} >= set(
        EVERY_COMMAND
    )


def test_the_help_loads_nothing_slow() -> None:
    script = (
        "import sys\nfrom worker_manager.cli.main import run\nfrom worker_manager.cli.world import World\n"
        "run(['--help'], World())\n"
        "slow = {'sqlalchemy', 'requests', 'pydantic', 'rich', 'structlog', 'starlette', 'uvicorn', 'yaml'}\n"
        "print(sorted(slow & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_every_command_has_a_help(name: str) -> None:
    told = House().ok(name, "--help")
    assert told.startswith(f"Usage: worker-manager {name}")
    assert len(told.splitlines()) > 3


def test_a_backends_help_shows_what_it_declares() -> None:
    told = House().ok("local", "--help")
    assert "--cpus" in told
    assert "--keep-ended" in told


def test_a_global_option_after_the_command_says_where_it_belongs() -> None:
    for words in (("local", "--max-workers", "3"), ("local", "--max-workers=3"), ("get", "--max-workers", "3", "jobs")):
        told = House().refused(*words)
        assert f"--max-workers belongs before the command: worker-manager --max-workers … {words[0]} …" in told


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("sbumit", "--", "true"), "There is no command sbumit. Did you mean submit?"),
        (("lokal",), "There is no command lokal. Did you mean local?"),
        (("get", "jbos"), "There is no command jbos. Did you mean jobs?"),
        (("submit", "ls", "-l"), "What belongs to the job's command stands after --"),
        (("describe", "what", "j1"), "name one thing: job ID or worker ID or pool ID"),
        (("explain", "pool"), "name one thing: job ID or pool ID"),
        (("get", "jobs", "--stat", "queued"), "--state"),
        (("--max-worker", "3", "local"), "--max-workers"),
        (("get", "jobs", "--state", "done"), "'done' is not one of"),
    ],
)
def test_a_slip_gets_a_hint_and_exit_code_2(words: tuple[str, ...], hint: str) -> None:
    result = House().run(*words)
    assert result.code == 2
    assert hint in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SourceUnavailable("the hub at http://h cannot be reached: connection refused"), 1),
        (HubError(403, "scope", "this token may not do that"), 1),
        (StoreError("the database is locked"), 74),
        (LeaseHeld("another manager leads"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_have_exit_codes_and_a_sentence(error: BaseException, code: int) -> None:
    result = House(FakeHub({("GET", "/v1/pools"): error})).run("get", "pools")
    assert result.code == code
    assert str(error) in result.stderr
    assert "Traceback" not in result.stderr


def test_connection_options_are_taken_before_and_after_the_command() -> None:
    for words in (("--state-dir", "/x", "get", "pools"), ("get", "pools", "--state-dir", "/x")):
        house = House(FakeHub({("GET", "/v1/pools"): {"pools": []}}))
        house.ok(*words)
        assert str(house.settings[0].manager.state_dir) == "/x"


def test_a_server_may_come_from_the_environment() -> None:
    house = House(FakeHub({("GET", "/v1/pools"): {"pools": []}}), {"WORKER_MANAGER_SERVER": "https://h:1"})
    house.ok("get", "pools")
    assert house.settings[0].hub.server == "https://h:1"


def test_a_variable_that_means_nothing_is_told_and_the_rest_goes_on() -> None:
    given = {
        "WORKER_MANAGER_MAX_WORKRES": "3",
        "WORKER_MANAGER_LOCAL_CPSU": "2",
        "WORKER_MANAGER_LOCAL_CPUS": "2",
        "WORKER_MANAGER_XYZZY": "1",
        "WORKER_MANAGER_CONFIG": "/c",
    }
    result = House(environment=given).run("version")
    assert result.code == 0
    assert result.stderr.splitlines() == [
        "worker-manager: WORKER_MANAGER_LOCAL_CPSU is set and means nothing; did you mean WORKER_MANAGER_LOCAL_CPUS?",
        "worker-manager: WORKER_MANAGER_MAX_WORKRES is set and means nothing; did you mean WORKER_MANAGER_MAX_WORKERS?",
        "worker-manager: WORKER_MANAGER_XYZZY is set and means nothing",
    ]


def test_every_global_option_is_a_variable() -> None:
    hub = FakeHub({("GET", "/v1/jobs"): {"jobs": [{"id": "j1", "state": "running"}], "next": None}})
    always = {"WORKER_MANAGER_COLOR": "always"}
    assert "\x1b[36m" in House(hub, always).ok("get", "jobs")
    assert "\x1b" not in House(hub, always).ok("--color", "never", "get", "jobs")
    told = House(hub, {"WORKER_MANAGER_COLOR": "pink"}).refused("get", "jobs")
    assert "WORKER_MANAGER_COLOR: 'pink' is not one of" in told


def test_a_reader_that_went_away_is_no_failure() -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "worker_manager", "completion", "bash"]
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_configuration_that_is_not_there_is_named() -> None:
    assert House().refused("run", "-c", "/not/there.yaml") == "worker-manager: there is no file /not/there.yaml\n"
    told = House().refused("run")
    assert "name a configuration with -c FILE (there is none at /nowhere/.config/worker-manager/config.yaml" in told
