"""Hubs and places of the integration tests, for the tests of faults."""

from tests.integration.conftest import hub, place, shared_hub, start_hub, wire_worker

__all__ = ["hub", "place", "shared_hub", "start_hub", "wire_worker"]
