from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.hub.store.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "state")
    yield made
    made.store.close()
    assert made.store.feed_failures == 0
