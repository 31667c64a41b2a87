"""What sinfo writes, read for people."""

import pytest

from backends.base import Severity
from backends.slurm.doctor import Nodes, fit, parse_sinfo
from worker.protocol import Shape

GIB = 2**30


def test_nodes_that_are_alike_are_one_line() -> None:
    text = (
        "gpu|up|1-00:00:00|64+|257000|gpu:a100:4(S:0-1),gpu:h100:2|12|idle\nall|down|infinite|8|16000|(null)|2|down*\n"
    )
    gpu, everything = parse_sinfo(text)
    assert gpu == Nodes("gpu", "up", 1440, 64, 257000 * 2**20, 6, frozenset({"a100", "h100"}), 12, "idle")
    assert (everything.minutes, everything.gpus, everything.state) == (None, 0, "down*")


@pytest.mark.parametrize("gres", ["gpu:4", "gpu:4(S:0)", "gpu:tesla:4", "craynetwork:1,gpu:tesla:4(S:0-1)"])
def test_gpus_are_counted(gres: str) -> None:
    (one,) = parse_sinfo(f"p|up|infinite|8|16000|{gres}|1|idle")
    assert one.gpus == 4


def test_what_is_no_line_is_skipped() -> None:
    assert parse_sinfo("<html>\nslurm_load_node: error\n\n") == ()


def test_the_largest_node_is_told_when_nothing_fits() -> None:
    nodes = parse_sinfo("p|up|infinite|8|16000|(null)|1|idle\np|up|infinite|4|64000|gpu:a100:2|1|alloc\n")
    assert fit("p", list(nodes), Shape(cpus=8000, memory=GIB)).severity is Severity.OK
    assert fit("p", list(nodes), Shape(cpus=4000, memory=GIB, gpus=2, gpu_type="a100")).severity is Severity.OK
    for shape in (Shape(cpus=8000, memory=32 * GIB), Shape(gpus=1, gpu_type="h100"), Shape(cpus=9000)):
        finding = fit("p", list(nodes), shape)
        assert finding.severity is Severity.ERROR
        assert "the largest node" in finding.text
