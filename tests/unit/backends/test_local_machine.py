"""Do slices fit a machine: in numbers."""

import pytest

from backends.base import Severity
from backends.local.machine import Machine, slice_findings, this_machine
from worker.protocol import Shape

BOX = Machine(cpus=8000, memory=16 * 2**30)


@pytest.mark.parametrize(
    ("shape", "max_workers", "severity", "says"),
    [
        (Shape(cpus=2000, memory=2**30), 4, Severity.OK, "room for 4"),
        (Shape(cpus=2000, memory=2**30), 5, Severity.WARNING, "room for 4 workers of this shape, the pool may have 5"),
        (Shape(cpus=1000, memory=8 * 2**30), 3, Severity.WARNING, "room for 2"),
        (Shape(cpus=9000, memory=2**30), 1, Severity.ERROR, "cpus: a worker has 9, this machine 8"),
        (Shape(cpus=1000, memory=2**40), 1, Severity.ERROR, "memory: a worker has 1 TiB, this machine 16 GiB"),
        (Shape(cpus=0, memory=0), 99, Severity.OK, "any number"),
        (Shape(cpus=1000), None, Severity.OK, "room for 8"),
    ],
)
def test_one_must_fit_and_all_should(shape: Shape, max_workers: int | None, severity: Severity, says: str) -> None:
    (finding,) = slice_findings(shape, max_workers, BOX)
    assert finding.severity is severity
    assert says in finding.text
    assert bool(finding.mend) is (severity is not Severity.OK)


def test_unknown_memory_is_not_zero() -> None:
    (finding,) = slice_findings(Shape(cpus=1000, memory=2**50), 1, Machine(8000, None))
    assert finding.severity is Severity.OK


def test_a_pool_without_a_shape_is_not_judged() -> None:
    assert list(slice_findings(None, 5, BOX)) == []


def test_this_machine_has_something() -> None:
    machine = this_machine()
    assert machine.cpus >= 1000
    assert machine.memory is None or machine.memory > 2**20
