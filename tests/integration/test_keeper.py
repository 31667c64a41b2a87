"""The keeper with real processes. Each scenario is an agent of its own; see keeper_scenarios.py for what it checks."""

import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).with_name("keeper_scenarios.py")
NAMES = re.findall(r"^@scenario\ndef (\w+)", SCENARIOS.read_text(), re.MULTILINE)
DEADLINE_S = 120

# The oldest interpreter the agent supports, and the newest we know: everything that touches the system's edges.
ELSEWHERE = (
    "exit_codes_and_signals_are_told_apart",
    "what_cannot_be_started_says_why",
    "output_keeps_its_order_and_its_bytes",
    "much_output_needs_little_memory_even_when_nobody_reads",
    "a_cancel_is_asked_first_and_then_forced",
    "jobs_share_what_the_worker_has",
    "a_nameless_daemon_ends_when_nobody_can_have_started_it",
    "a_killed_agent_takes_its_jobs_with_it",
    "the_end_of_the_lease_ends_everything",
    "a_killed_keeper_is_noticed_and_its_jobs_end",
    "neighbours_never_hold_more_than_there_is",
    "a_job_sees_a_clean_environment",
    "a_job_has_three_descriptors_and_default_signals",
    "an_owner_never_sees_what_another_left",
    "what_was_put_together_is_in_the_jobs_directory",
    "a_directory_is_set_aside_when_something_of_it_is_wanted",
)


def interpreter(version: str) -> str | None:
    """Where this version of Python stands on this machine, if it does."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    own = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python")))  # noqa: PTH207, PTH111
    return own[-1] if own else shutil.which(f"python{version}")


def run(python: str, name: str, work_dir: Path) -> None:
    ended = subprocess.run(
        [python, str(SCENARIOS), name, str(work_dir)], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "Traceback" not in ended.stderr, ended.stderr[-4000:]


def test_there_are_scenarios() -> None:
    assert len(NAMES) > 25
    assert set(ELSEWHERE) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_keeper(name: str, tmp_path: Path) -> None:
    run(sys.executable, name, tmp_path)


@pytest.mark.parametrize("version", ["3.9", "3.13"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_keeper_under_another_interpreter(version: str, name: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    run(python, name, tmp_path)
