"""Workers that share a machine: real agents with their keepers, and the real hub."""

import signal
from pathlib import Path
from typing import Any

from tests.integration.agent.machines import Machine, machine, machine_of

__all__ = ["machine", "machine_of"]


def test_three_workers_of_32_cores_number_by_number(machine: Machine) -> None:
    """Each takes one task and leaves; of what the others hold none says that it has it."""
    first = machine.worker("worker1", "--exit-after-num-runs", "1")
    machine.reaches(worker1=(32, 64))
    a = machine.task(8, 16, *machine.gate("a"))
    assert machine.runs_on(a) == "worker1"
    machine.reaches(worker1=(24, 48))
    second = machine.worker("worker2", "--exit-after-num-runs", "1")
    machine.reaches(worker1=(24, 48), worker2=(24, 48))
    b = machine.task(20, 40, *machine.gate("b"))
    assert machine.runs_on(b) == "worker2"
    third = machine.worker("worker3", "--exit-after-num-runs", "1")
    machine.reaches(worker1=(4, 8), worker2=(4, 8), worker3=(4, 8))
    machine.open("a")
    assert first.wait(20) == 0
    machine.reaches(worker2=(12, 24), worker3=(12, 24))
    machine.open("b")
    assert second.wait(20) == 0
    machine.reaches(worker3=(32, 64))
    third.send_signal(signal.SIGTERM)
    assert third.wait(20) == 0
    assert list(machine.common.iterdir()) == []


def test_a_storm_of_short_jobs_on_eight_workers_never_overcommits(hub: Any, machine_of: Any, tmp_path: Path) -> None:
    """The jobs themselves are the witness: each notes its cores when it begins and before it ends."""
    machine: Machine = machine_of("4")
    notes = tmp_path / "notes"
    names = [f"w{number}" for number in range(8)]
    machine.workers(*names, **dict.fromkeys(names[::2], ("--exit-after-num-runs", "10")))
    line = f"echo +$0 >> {notes}; sleep 0.0$WM_ARRAY_INDEX; echo -$0 >> {notes}"
    arrays = [
        hub.submit("sh", "-c", line, str(cores), array={"count": 25}, resources={"cpus": cores * 1000})
        for cores in (1, 2, 3, 4)
    ]
    machine.eventually(
        lambda: all(hub.get(f"/v1/jobs/{array}")["state"] == "succeeded" for array in arrays), "all of them", 120
    )
    used, most = 0, 0
    for note in notes.read_text().split():
        used += int(note)
        most = max(most, used)
    assert used == 0
    assert most <= 4
    assert most > 2, "they ran at the same time"
    attempts = sum(hub.get(f"/v1/jobs/{array}-{n}")["attempt"] for array in arrays for n in range(25))
    assert attempts < 250, "few were given to a worker whose neighbours were quicker"
