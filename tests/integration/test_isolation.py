"""Jobs kept apart, with real processes, as root and as somebody else. See isolation_scenarios.py for the checks."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.integration.test_keeper import interpreter

SCENARIOS = Path(__file__).with_name("isolation_scenarios.py")
NAMES = re.findall(r"^@scenario\ndef (\w+)", SCENARIOS.read_text(), re.MULTILINE)
NEED_ROOT = {
    "two_owners_with_users_of_their_own_see_nothing_of_each_other",
    "a_user_stays_the_owners",
    "a_user_of_its_own_owns_what_was_put_together_for_it",
    "what_cannot_be_started_says_why_as_before",
    "the_devices_of_gpus_are_seen_in_a_sandbox_by_who_asked_for_one",
}
NEED_NO_SANDBOX = {"two_owners_as_plain_processes_do_see_each_other", "what_is_not_there_is_refused"} | NEED_ROOT
NEED_NO_SANDBOX -= {"the_devices_of_gpus_are_seen_in_a_sandbox_by_who_asked_for_one"}
# The oldest interpreter the agent supports, and the newest we know: what forks and changes the user.
ELSEWHERE = (
    "a_sandboxed_job_has_a_clean_start",
    "nothing_gets_out_of_a_sandbox_alive",
    "two_owners_with_users_of_their_own_see_nothing_of_each_other",
    "what_cannot_be_started_says_why_as_before",
)
NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where other users may come, as pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="wm-isolation-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def run(name: str, folder: Path, python: str, user: int | None = None) -> None:
    command = [python, "-B", str(SCENARIOS), name, str(folder)]
    who: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    clean = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean, check=False, **who)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr, done.stderr[-4000:]


@pytest.mark.parametrize("name", NAMES)
def test_as_whom_we_are(name: str, folder: Path) -> None:
    if name in NEED_ROOT:
        needs.root()
    if name not in NEED_NO_SANDBOX:
        needs.sandbox()
    run(name, folder, sys.executable)


@pytest.mark.parametrize("version", ["3.9", "3.13"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_under_another_interpreter(version: str, name: str, folder: Path) -> None:
    needs.root()
    needs.sandbox()
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    run(name, folder, python)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEED_ROOT])
def test_as_somebody_without_rights(name: str, folder: Path) -> None:
    needs.root()
    needs.sandbox()
    python = next((p for p in ("/usr/bin/python3", sys.executable) if can(p)), "")
    if not python:
        needs.missing("a Python that everybody may run: apt-get install python3")
    shutil.chown(folder, NOBODY, NOBODY)
    run(name, folder, python, NOBODY)


def can(python: str) -> bool:
    probe = [python, "-c", f"import sys; open({str(SCENARIOS)!r}); sys.exit(sys.version_info < (3, 9))"]
    try:
        return subprocess.run(probe, capture_output=True, user=NOBODY, group=NOBODY, extra_groups=[]).returncode == 0
    except OSError:
        return False
