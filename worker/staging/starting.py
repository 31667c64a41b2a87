"""A stager begins: a process of its own, in a session of its own, that shares one socket with the agent."""

from typing import Tuple

from worker.begin import begin
from worker.channel import Channel

# One arena for all of its threads: else each keeps tens of megabytes of its own.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


def start() -> Tuple[Channel, int]:
    """Its channel and pid. The first message must be `setup`. It ends when the channel is closed; reap it."""
    return begin("worker.staging.stager", ENVIRONMENT)
