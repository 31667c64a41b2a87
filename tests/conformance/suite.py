"""The contract of backends/base.py, executably. Every backend passes it; what a platform cannot do is skipped by its
declared capabilities and by the faults that its adopter can order, never by its type."""

from collections.abc import Iterator

import pytest

from backends.base import Backend
from tests.conformance.adopter import Adopter
from tests.conformance.of_contents import OfContents
from tests.conformance.of_ends import OfEnds
from tests.conformance.of_life import OfLife
from tests.conformance.of_notices import OfNotices


class Conformance(OfLife, OfEnds, OfContents, OfNotices):
    """Subclass it with a fixture `adopter`."""

    @pytest.fixture
    def adopter(self) -> Iterator[Adopter]:
        raise NotImplementedError("a subclass says which backend is meant")

    @pytest.fixture
    def backend(self, adopter: Adopter) -> Backend:
        return adopter.backend()
