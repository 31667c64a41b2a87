"""The files of docs/backends/azure-batch: good for the service's own client, and the same as the program's."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from azure.batch import models

from backends import registry
from backends.azure_batch import settings, states
from backends.azure_batch.formula import autoscale
from tests.stand_ins import azure_formula, azure_wire
from tests.stand_ins.azure_models import unknown
from tests.unit.cli.house import House

DOCS = Path(__file__).parents[3] / "docs" / "backends"
FILES = DOCS / "azure-batch"
PAGE = (DOCS / "azure-batch.md").read_text()


def load(name: str) -> Any:
    return json.loads((FILES / name).read_text())


@pytest.mark.parametrize(
    ("name", "kind", "schema"),
    [
        ("pool.json", models.BatchPoolCreateOptions, azure_wire.POOL),
        ("pool-gpu.json", models.BatchPoolCreateOptions, azure_wire.POOL),
        ("job.json", models.BatchJobCreateOptions, azure_wire.JOB),
    ],
)
def test_what_can_be_applied_is_of_the_clients_model(name: str, kind: Any, schema: Any) -> None:
    assert unknown(load(name), kind) == []
    azure_wire.check(load(name), schema)


def test_the_formulas_are_the_programs_own_and_work() -> None:
    assert load("pool.json")["autoScaleFormula"] == autoscale(8)
    assert load("pool-gpu.json")["autoScaleFormula"] == autoscale(4, spot=True)
    assert azure_formula.evaluate(autoscale(8), [3.0] * 10)["$TargetDedicatedNodes"] == 3
    assert f"```\n{autoscale(8)}```" in PAGE


def test_the_pool_files_can_be_given_to_the_program() -> None:
    kind = registry.load("azure-batch")
    given = {"service-url": "https://a.b.batch.azure.com", "job-id": "j", "create-job": True}
    for name in ("pool.json", "pool-gpu.json"):
        made = settings.read(kind.read({**given, "pool-file": str(FILES / name)}))
        assert made.pool == load(name)["id"]
    assert load("job.json")["poolInfo"]["poolId"] == load("pool.json")["id"]


def test_the_pools_of_the_example_are_good() -> None:
    result = House().run("config", "check", str(FILES / "pools.yaml"))
    assert result.code == 0, result.stderr


def test_the_page_speaks_of_every_option_and_of_no_other() -> None:
    names = {option.name for option in settings.OPTIONS}
    shown = set(re.findall(r"--(?:no-)?([a-z][a-z-]+)", PAGE))
    assert names - shown == set()
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `--")]
    assert {name for row in rows for name in re.findall(r"--(?:no-)?([a-z][a-z-]+)", row)} <= names


def test_codes_on_the_page_are_those_of_the_tables() -> None:
    tables = {**states.RESIZES, **states.FAILURES, **states.ERRORS}
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    for row in rows:
        kind = row.split("`")[1]
        for code in (word for word in row.split("|")[1].replace("`", " ").split() if word.lower() in tables):
            assert tables[code.lower()].value in row, (kind, code)
