"""The store of the tests beside, for those of blobs."""

from tests.unit.hub.store.conftest import house

__all__ = ["house"]
