"""What goes on beside a manager in the foreground: its decisions are told, and its hub is started again if it died."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker_manager.cli.narrate import narrated
from worker_manager.errors import WorkerManagerError

if TYPE_CHECKING:
    from worker_manager.assemble import House

LOOK_EVERY_S = 1.0


@contextmanager
def attended(house: "House") -> Iterator[None]:
    with narrated(house), _beside("watch hub", lambda over: _keep_hub(house, over)):
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
