"""Rates from two measurements; what the agent tells of itself."""

import os
from pathlib import Path

from worker.usage import LONGEST, Own, Rates, of_process, rate


def test_a_rate_needs_two_measurements() -> None:
    rates = Rates()
    assert rates.of_jobs([("j1", 1, 500, 9, ["GPU-1"])], 1000) == {"jobs": [["j1", 1, 500, None, 9, 9, ["GPU-1"]]]}
    assert rates.of_jobs([("j1", 1, 1500, 8, [])], 3000) == {"jobs": [["j1", 1, 1500, 500, 8, 9, []]]}, "the most stays"
    assert rates.of_jobs([("j1", 2, 90, 8, [])], 4000) == {"jobs": [["j1", 2, 90, None, 8, 8, []]]}, "another attempt"
    assert rates.of_jobs([], 5000) == {"jobs": []}


def test_a_clock_that_stands_gives_no_rate() -> None:
    assert rate((1000, 5), (1000, 9)) is None
    assert rate((1000, 9), (2000, 5)) == 0, "children that went with their time do not make it negative"


def test_what_the_agent_measured_of_itself_goes_with_it() -> None:
    rates = Rates()
    rates.own = {"memory": 5}
    assert rates.of_jobs([], 1) == {"memory": 5, "jobs": []}


def test_the_message_stays_bounded() -> None:
    rows = [(f"j{number}", 1, 0, 0, []) for number in range(LONGEST + 5)]
    assert len(Rates().of_jobs(rows, 1)["jobs"]) == LONGEST


def test_the_agent_measures_itself(tmp_path: Path) -> None:
    own = Own(str(tmp_path))
    first, second = own.now([os.getpid()], 1000), own.now([os.getpid()], 2000)
    assert "cpus" not in first
    assert 0 <= second["cpus"] < 64_000
    assert second["memory"] > 2**20
    assert second["disk"] > 0
    assert of_process(2**22 + 1) == (0, 0)
    assert "disk" not in Own("/nowhere/at/all").now([], 1)
