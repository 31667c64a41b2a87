"""Hubs and places of the integration tests, for the tests of faults."""

from tests.integration.conftest import hub, place, start_hub, wire_worker

__all__ = ["hub", "place", "start_hub", "wire_worker"]
