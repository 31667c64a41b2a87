"""The desk before the object storages: one of each kind, made when it is needed, and never waited for too long."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from worker_manager.hub.files.names import Source, Storages, read_source
from worker_manager.hub.storages.base import Address, Object, StorageRefuses
from worker_manager.hub.storages.desk import KNOWN, Desk, make

SOURCE = read_source("s3://bucket/a")


class Fake:
    largest_put = 10

    def __init__(self, goes_on: threading.Event) -> None:
        self._goes_on = goes_on

    def look(self, source: Source) -> Object:
        self._goes_on.wait(60)
        return Object(source.key, 1, "tag")

    def below(self, _source: Source) -> Iterator[Object]:
        return iter(())

    def to_get(self, _source: Source, _life_s: int) -> Address:
        return Address("https://example.org/a")

    def to_put(self, _source: Source, _size: int, _sha256: str, _life_s: int) -> Address:
        return Address("https://example.org/a")


def asked(desk: Desk, what: Callable[[Any], Any]) -> Any:
    return asyncio.run(desk.ask(SOURCE, what))


def test_what_is_asked_is_answered_from_a_thread() -> None:
    there = threading.Event()
    there.set()
    desk = Desk(Storages(), {"s3": Fake(there)})
    assert asked(desk, lambda storage: storage.look(SOURCE).key) == "a"
    threads = [asked(desk, lambda storage: threading.current_thread().name) for _ in range(2)]
    assert all(name.startswith("hub-storage") for name in threads)
    desk.close()


def test_a_storage_that_hangs_is_given_up_and_may_be_asked_again() -> None:
    goes_on = threading.Event()
    desk = Desk(Storages(), {"s3": Fake(goes_on)}, deadline_s=0.05)
    try:
        with pytest.raises(StorageRefuses, match=r"not answered within 0\.05 s") as refused:
            asked(desk, lambda storage: storage.look(SOURCE))
        assert refused.value.code == "storage-unavailable"
        assert asked(desk, lambda storage: storage.largest_put) == 10, "another thread answers meanwhile"
    finally:
        goes_on.set()
        desk.close()


def test_a_library_that_is_not_there_says_what_to_install() -> None:
    with pytest.raises(StorageRefuses, match="install worker-manager"):
        make("worker_manager.hub.storages.no_such_storage", "Storage", "worker-manager[nothing]")


@pytest.mark.parametrize("scheme", sorted(KNOWN))
def test_every_kind_can_be_made(scheme: str) -> None:
    assert make(*KNOWN[scheme]).largest_put > 2**30
