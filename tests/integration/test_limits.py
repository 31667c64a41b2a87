"""Limits of jobs with real processes, guarded by the kernel's groups and by looking. See limit_scenarios.py."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_keeper import DEADLINE_S, interpreter

SCENARIOS = Path(__file__).with_name("limit_scenarios.py")
NAMES = re.findall(r"^@scenario\ndef (\w+)", SCENARIOS.read_text(), re.MULTILINE)
NO_GROUPS_HERE = 77

# The groups themselves, and what only they can do.
NEED_GROUPS = {
    "a_fork_bomb_stays_small",
    "a_group_goes_with_its_job",
    "a_killed_keeper_leaves_nothing_after_the_next_start",
    "a_keeper_that_lives_keeps_its_groups",
    "the_agent_of_a_killed_keeper_removes_its_groups",
    "groups_below_a_job_go_with_it",
}
CASES = [(name, way) for name in NAMES for way in ("group", "watch") if way == "group" or name not in NEED_GROUPS]


def run(python: str, name: str, way: str, work_dir: Path) -> None:
    ended = subprocess.run(
        [python, str(SCENARIOS), name, way, str(work_dir)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if ended.returncode == NO_GROUPS_HERE:
        pytest.skip("nobody may make control groups on this machine")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "Traceback" not in ended.stderr, ended.stderr[-4000:]


def test_there_are_scenarios() -> None:
    assert len(NAMES) > 12
    assert set(NAMES) >= NEED_GROUPS


@pytest.mark.parametrize(("name", "way"), CASES)
def test_limits(name: str, way: str, tmp_path: Path) -> None:
    run(sys.executable, name, way, tmp_path)


@pytest.mark.parametrize("way", ["group", "watch"])
def test_the_oldest_interpreter_has_them_too(way: str, tmp_path: Path) -> None:
    python = interpreter("3.9")
    if python is None:
        pytest.skip("no Python 3.9 on this machine")
    run(python, "too_much_memory_ends_the_job", way, tmp_path)
