"""Where the rest of the hub asks for addresses of object storage: threads, a deadline, and who is asked.

A storage's library is imported when the first job asks for it, in a thread: boto3 alone takes half a second.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Lock
from typing import TypeVar

from worker_manager.hub.files.names import Source, Storages
from worker_manager.hub.storages.base import Storage, StorageRefuses

T = TypeVar("T")
THREADS = 8
DEADLINE_S = 25.0  # of one request, whatever it asks for

# scheme → module, class, what to install where its library is not there
KNOWN: Mapping[str, tuple[str, str, str]] = {
    "az": ("worker_manager.hub.storages.azure", "AzureStorage", "worker-manager[azure]"),
    "gs": ("worker_manager.hub.storages.gcs", "GoogleStorage", "worker-manager[gcp]"),
    "s3": ("worker_manager.hub.storages.s3", "S3Storage", "worker-manager[aws]"),
}


class Desk:
    def __init__(
        self, named: Storages, storages: Mapping[str, Storage] | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        self.named = named
        self._deadline_s = deadline_s
        self._made: dict[str, Storage] = dict(storages or {})
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(THREADS, "hub-storage")

    def close(self) -> None:
        """Calls that hang end by their own time-outs; nobody waits for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, source: Source, what: Callable[[Storage], T]) -> T:
        """`what` runs in a thread. Raises StorageRefuses, also when it takes too long."""

        def work() -> T:
            return what(self._storage(source.scheme))

        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await running
        except TimeoutError:
            text = f"{source}: its storage has not answered within {self._deadline_s:g} s: ask again"
            raise StorageRefuses("storage-unavailable", text) from None

    def _storage(self, scheme: str) -> Storage:
        with self._lock:
            if scheme not in self._made:
                self._made[scheme] = make(*KNOWN[scheme])
            return self._made[scheme]


def make(module: str, name: str, install: str) -> Storage:
    try:
        made: Storage = getattr(import_module(module), name)()
    except ImportError as error:
        text = f"the hub cannot sign for this storage without {error.name}: install {install} where it runs"
        raise StorageRefuses("storage-library-missing", text) from None
    return made
