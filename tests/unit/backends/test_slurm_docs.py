"""The page about Slurm says what the program does."""

import re
from pathlib import Path

from backends import registry
from backends.base import Context
from backends.slurm.settings import OPTIONS
from tests.unit.cli.house import House
from worker.protocol import Shape

DOCS = Path(__file__).resolve().parents[3] / "docs" / "backends"
PAGE = (DOCS / "slurm.md").read_text()
FILE = DOCS / "slurm" / "pools.yaml"


def test_the_pools_on_the_page_are_those_that_are_shipped_and_good() -> None:
    assert f"```yaml\n{FILE.read_text()}```" in PAGE
    result = House().run("config", "check", str(FILE))
    assert result.code == 0, result.stderr


def test_every_option_is_on_the_page_and_none_that_is_not() -> None:
    named = set(re.findall(r"`--([a-z-]+)`", PAGE.partition("## What a worker gets")[2].partition("\n\n- **")[0]))
    mine = {option.name for option in OPTIONS}
    assert mine <= named
    shape = {"cpus", "memory-mb", "gpus", "gpu-type", "walltime"}
    sbatch = {"cpus-per-task", "mem", "array", "output", "wrap"}
    assert named - mine <= shape | sbatch


def test_what_the_page_gives_as_options_is_taken(tmp_path: Path) -> None:
    """`config check` reads values; the backend itself reads what they mean."""
    kind = registry.load("slurm")
    given = {
        "partition": "gpu",
        "constraint": "nvlink",
        "directive": ["--licenses=matlab:1", "--mail-type=NONE"],
        "time-min": "1h",
    }
    context = Context("main", "gpu", str(tmp_path), lambda: 0, shape=Shape(walltime=86_400_000))
    assert kind.create(kind.read(given), context)
