"""What goes on beside a manager in the foreground: its decisions and troubles are told, and its hub is started again
if it died."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker_manager.cli.narrate import narrated
from worker_manager.errors import WorkerManagerError

if TYPE_CHECKING:
    from worker_manager.assemble import House
    from worker_manager.policy.model import Plan

LOOK_EVERY_S = 1.0
_UNREADABLE = ("backlog-unreadable", "backend-unreadable")


@contextmanager
def attended(house: "House") -> Iterator[None]:
    with (
        narrated(house),
        _beside("watch hub", lambda over: _keep_hub(house, over)),
        _beside("tell troubles", lambda over: _tell_troubles(house, over)),
    ):
        yield


@contextmanager
def _beside(name: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _tell_troubles(house: "House", over: threading.Event) -> None:
    """What cannot be read makes no decision, so it is told here: when it begins, and when it is over."""
    import structlog

    log = structlog.get_logger("worker_manager.sight")
    told: dict[str, str] = {}
    while not over.wait(LOOK_EVERY_S):
        now = troubles(house.manager.last_plan)
        for pool, text in now.items():
            if pool not in told:
                log.warning(text, action="unreadable", pool=pool)
        for pool in told.keys() - now.keys():
            log.info("it can be read again", action="readable", pool=pool)
        told = now


def troubles(plan: "Plan | None") -> dict[str, str]:
    """Pool → what of it could not be read."""
    if plan is None:
        return {}
    found = ((pool.pool, reason) for pool in plan.pools for reason in pool.reasons if reason.code in _UNREADABLE)
    return {pool: reason.text for pool, reason in found}


def _keep_hub(house: "House", over: threading.Event) -> None:
    """A hub that was stopped stays so; one that died is started again, and workers find it where it was."""
    import structlog

    log = structlog.get_logger("worker_manager.hub")
    while not over.wait(LOOK_EVERY_S):
        if not house.hub_died():
            continue
        log.error("the hub has died and is started again", action="restart-hub")
        try:
            house.restart_hub()
        except WorkerManagerError as error:
            log.error("the hub does not start", action="restart-hub", problem=str(error))
