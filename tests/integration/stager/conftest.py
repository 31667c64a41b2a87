"""A real stager process for each test that asks for one, and a hub that it fetches from."""

from tests.live_stager import hub, stager, start_stager

__all__ = ["hub", "stager", "start_stager"]
