"""Repeats every chore at its own pace, in one task. A chore that fails is logged and tried again: the next one goes
on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from worker_manager.hub.chores import blobs, recall, retention, segments, sweep
from worker_manager.hub.services import Services

log = logging.getLogger("worker_manager.hub")

AGAIN_S = 0.05  # between steps of a chore that has more to do
FAILED_S = 5.0


@dataclass(frozen=True)
class Chore:
    name: str
    every_s: float
    run_once: Callable[[Services], Awaitable[bool]]


CHORES = (
    Chore("sweep", sweep.EVERY_S, sweep.run_once),
    Chore("recall", recall.EVERY_S, recall.run_once),
    Chore("retention", retention.EVERY_S, retention.run_once),
    Chore("segments", segments.EVERY_S, segments.run_once),
    Chore("blobs", blobs.EVERY_S, blobs.run_once),
    Chore("strays", blobs.STRAYS_EVERY_S, blobs.sweep_strays),
)


async def run(hub: Services, chores: Sequence[Chore] = CHORES) -> None:
    due = {chore: hub.loop.time() + chore.every_s for chore in chores}
    while True:
        chore = min(due, key=lambda each: due[each])
        await asyncio.sleep(max(0.0, due[chore] - hub.loop.time()))
        due[chore] = hub.loop.time() + await step(hub, chore)


async def step(hub: Services, chore: Chore) -> float:
    """Runs it once; returns the seconds until its next step."""
    try:
        return AGAIN_S if await chore.run_once(hub) else chore.every_s
    except Exception:
        log.exception("the chore %s failed; it is tried again", chore.name)
        return max(chore.every_s, FAILED_S)
