"""The hub's memory: jobs, attempts, workers, launches, events, on SQLAlchemy Core. Imported only when it is opened."""

from pathlib import Path
from typing import TYPE_CHECKING

from worker_manager.clock import Clock
from worker_manager.hub.contract import Settings

if TYPE_CHECKING:
    from worker_manager.hub.store.store import Store


def open_store(place: str | Path, clock: Clock, settings: Settings | None = None) -> "Store":
    """`place` is a state directory (hub.sqlite lies in it) or a database URL. Raises StoreError."""
    from worker_manager.hub.store.store import Store

    return Store.open(place, clock, settings or Settings())
