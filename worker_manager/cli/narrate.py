"""What the manager decides, told while it runs: each decision of the ledger becomes one line of the log."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from worker_manager.cli.kinds import decision_why
from worker_manager.errors import StoreError

if TYPE_CHECKING:
    from worker_manager.assemble import House

EVERY_S = 0.25


@contextmanager
def narrated(house: "House") -> Iterator[None]:
    """Beside the loop, so that no slow terminal holds up a decision."""
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(house, over), name="narrate", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join(2.0)


def _tell(house: "House", over: threading.Event) -> None:
    after = house.last_decision()
    ended = False
    while not ended:
        ended = over.wait(EVERY_S)  # once more after the end: the last decisions are told as well
        with suppress(StoreError):
            after = tell_since(house, after)


def tell_since(house: "House", after: int) -> int:
    """Every decision that is newer; returns the newest."""
    import structlog

    log = structlog.get_logger("worker_manager.decisions")
    for decision in house.decisions(after):
        after = decision["id"]
        limits = [limit["code"] for limit in decision["limited"]]
        log.info(
            decision_why(decision),
            action=decision["action"],
            pool=decision["pool"],
            subject=decision["subject"],
            outcome=decision["outcome"],
            reason=decision["reason"]["code"],
            **({"limited": limits} if limits else {}),
        )
    return after
