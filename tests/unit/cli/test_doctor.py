"""A check that hangs, raises or lacks something is a finding like any other."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.base import BackendUnusable, Finding, Severity
from tests.unit.cli.house import FakeHub, House
from worker_manager.cli.doctor import Running
from worker_manager.hub_access import NoHub


def only(found: object) -> Finding:
    (finding,) = found  # type: ignore[misc]
    assert isinstance(finding, Finding)
    return finding


def test_a_check_that_hangs_is_left_behind() -> None:
    release = threading.Event()

    def check() -> list[Finding]:
        release.wait(60)
        return []

    try:
        finding = only(Running(check).findings("slurm", 0.05))
    finally:
        release.set()
    assert (finding.subject, finding.severity) == ("slurm", Severity.ERROR)
    assert finding.text == "the check did not come to an end within 0.05 s"
    assert "--timeout" in finding.mend


def test_a_check_that_raises_says_what_in_a_page() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("first", Severity.OK, "well")
        raise ValueError("odd " * 10**6)

    finding = only(Running(check).findings("k8s", 10))
    assert finding.severity is Severity.ERROR
    assert finding.text.startswith("the check itself failed: ValueError: odd odd")
    assert len(finding.text) <= 2000
    assert finding.mend


@pytest.mark.parametrize(
    ("error", "text", "mend"),
    [
        (
            "the backend k8s needs kubernetes, which is not installed: pip install 'worker-manager[kubernetes]'",
            "the backend k8s needs kubernetes, which is not installed",
            "pip install 'worker-manager[kubernetes]'",
        ),
        ("queue: is required", "queue: is required", "worker-manager k8s --help shows its options"),
    ],
)
def test_a_backend_that_cannot_be_made_says_what_mends_it(error: str, text: str, mend: str) -> None:
    def check() -> list[Finding]:
        raise BackendUnusable(error)

    finding = only(Running(check).findings("k8s", 10))
    assert (finding.severity, finding.text, finding.mend) == (Severity.ERROR, text, mend)


def test_a_check_that_says_nothing_is_told() -> None:
    assert only(Running(lambda: ()).findings("mute", 10)).severity is Severity.WARNING


def house() -> House:
    return House(FakeHub({("GET", "/v1/info"): NoHub("no hub runs on /s: start one")}))


def test_a_pool_of_the_command_line_is_checked_and_its_trouble_is_the_exit_code() -> None:
    there = house()
    done = there.run("doctor", "-o", "json", "memory", "--pool", "mine")
    assert done.code == 0, done
    found = {one["subject"]: one["severity"] for one in json.loads(done.stdout)["items"]}
    assert found["hub"] == "warning"
    assert any(subject.startswith("mine: ") for subject in found)
    after = json.loads(there.run("doctor", "memory", "-o", "json", "--pool", "mine").stdout)
    assert after == json.loads(done.stdout), "an option may stand on either side of the backend's name"


def test_what_mends_a_trouble_stands_below_it() -> None:
    told = house().ok("doctor", "memory").splitlines()
    where = next(number for number, line in enumerate(told) if line.startswith("warning  hub"))
    assert told[where + 1].strip() == "→ worker-manager up, or hub start"


def test_an_option_that_makes_no_sense_is_asked_wrongly() -> None:
    done = house().run("doctor", "memory", "--nonsense", "1")
    assert done.code == 2


def test_looking_makes_nothing(tmp_path: Path) -> None:
    House(FakeHub({("GET", "/v1/info"): {}})).run("--state-dir", str(tmp_path / "state"), "doctor", "memory")
    assert not (tmp_path / "state").exists()
