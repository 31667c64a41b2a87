"""The page on the configuration file shows every key that there is, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from worker_manager.config import schema

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "configuration.md"


def example() -> Any:
    return yaml.safe_load(PAGE.read_text().partition("```yaml\n")[2].partition("```")[0])


def keys(model: Any) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def test_the_example_is_a_configuration() -> None:
    schema.ConfigurationFile.model_validate(example())


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ((), schema.ConfigurationFile),
        (("manager",), schema.ManagerPart),
        (("hub",), schema.HubPart),
        (("pools", 0), schema.PoolPart),
        (("pools", 0, "shape"), schema.ShapePart),
        (("pools", 0, "limits"), schema.LimitsPart),
        (("pools", 0, "worker"), schema.WorkerPart),
    ],
)
def test_every_key_is_shown(path: tuple[Any, ...], model: Any) -> None:
    part = example()
    for step in path:
        part = part[step]
    assert set(part) == keys(model)
