"""Hubs and places of the integration tests, for the tests of faults."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import hub, start_hub, wire_worker
from tests.place import Place, a_place

__all__ = ["hub", "start_hub", "wire_worker"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A state directory; every process of it is gone afterwards."""
    yield from a_place(tmp_path)
