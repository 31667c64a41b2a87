"""What goes by itself: blobs that no job needs, uploads that nobody goes on with, files that belong to nobody."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.hub.store.house import House, sha
from worker_manager.hub.blobs.folder import GROUPS
from worker_manager.hub.blobs.pace import Pace
from worker_manager.hub.blobs.service import Blobs
from worker_manager.hub.chores import blobs as chore
from worker_manager.hub.settings import DAY, HubSettings

HOUR = 3_600_000


class Keeping:
    """A store and its blobs, without a hub around them."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.blobs = Blobs(HubSettings(house.place), house.store, house.clock)

    def run(self, act: Callable[[Any], Awaitable[Any]]) -> Any:
        async def body() -> Any:
            async def read(function: Callable[..., Any], *arguments: Any) -> Any:
                return function(*arguments)

            hub = SimpleNamespace(
                settings=HubSettings(self.house.place),
                store=self.house.store,
                clock=self.house.clock,
                blobs=self.blobs,
                read=read,
                write=asyncio.wrap_future,
            )
            return await act(hub)

        return asyncio.run(body())

    def put(self, text: str, owner: str = "ann") -> Path:
        place = self.house.place / "blobs" / sha(text)[:2] / sha(text)
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
        new = self.house.store.add_blob(owner, sha(text), len(text)).result()
        self.blobs.account.became_whole(len(text), new)
        return place

    def begin(self, text: str, age_ms: int) -> str:
        name = self.blobs.folder.unfinished_name("ann", sha(text))
        file = self.house.place / "blobs" / "partial" / name
        file.write_text(text)
        written = (self.house.clock.now_ms() - age_ms) / 1000
        os.utime(file, (written, written))
        self.blobs.account.unfinished += len(text)
        return name


@pytest.fixture
def keeping(house: House) -> Any:
    made = Keeping(house)
    yield made
    made.blobs.close()


def test_a_blob_goes_when_no_job_has_needed_it_for_long(keeping: Keeping) -> None:
    old = keeping.put("old")
    keeping.house.clock.advance(DAY // 2)
    new = keeping.put("new")
    keeping.house.clock.advance(DAY // 2 + 1)
    assert keeping.run(chore.run_once) is False
    assert not old.exists() and new.exists()
    assert keeping.house.store.find_blob("ann", sha("old")) is None
    assert (keeping.blobs.account.count, keeping.blobs.account.whole) == (1, 3)


def test_the_bytes_stay_while_another_owner_has_them(keeping: Keeping) -> None:
    place = keeping.put("both")
    keeping.house.clock.advance(DAY // 2)
    keeping.put("both", "bob")
    keeping.house.clock.advance(DAY // 2 + 1)
    keeping.run(chore.run_once)
    assert place.exists() and keeping.house.store.find_blob("ann", sha("both")) is None
    assert keeping.blobs.account.whole == 4
    keeping.house.clock.advance(DAY)
    keeping.run(chore.run_once)
    assert not place.exists() and keeping.blobs.account.whole == 0


def test_many_go_in_steps(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chore, "AT_ONCE", 2)
    places = [keeping.put(text) for text in ("a", "b", "c")]
    keeping.house.clock.advance(DAY + 1)
    assert [keeping.run(chore.run_once) for _ in range(2)] == [True, False]
    assert not any(place.exists() for place in places)


def test_an_upload_that_nobody_goes_on_with_is_cleared_after_a_day(keeping: Keeping) -> None:
    keeping.begin("forgotten", DAY + 1000)
    kept = keeping.begin("of late", DAY - HOUR)
    keeping.run(chore.run_once)
    assert [each.name for each in keeping.blobs.folder.unfinished()] == [kept]
    assert keeping.blobs.account.unfinished == len("of late")


def test_an_upload_that_is_under_way_is_not_cleared(keeping: Keeping) -> None:
    name = keeping.begin("slow", 2 * DAY)

    async def while_it_comes(hub: Any) -> None:
        async with keeping.blobs.sending("ann", sha("slow"), Pace(60.0)) as upload:
            await keeping.blobs.thread(upload.open)
            await chore.run_once(hub)
            assert keeping.blobs.folder.so_far(name) == 4

    keeping.run(while_it_comes)
    keeping.run(chore.run_once)
    assert keeping.blobs.folder.so_far(name) == 0


def test_files_of_nobody_go_and_those_just_given_their_name_stay(keeping: Keeping) -> None:
    mine = keeping.put("mine")
    stray = mine.parent.parent / sha("stray")[:2] / sha("stray")
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("stray")
    ahead = stray.stat().st_ctime_ns // 10**6 - keeping.house.clock.now_ms()  # of the clock that stands still
    keeping.house.clock.advance(ahead + HOUR // 2)
    sweep(keeping)
    assert stray.exists()
    keeping.house.clock.advance(HOUR)
    sweep(keeping)
    assert mine.exists() and not stray.exists()


def sweep(keeping: Keeping) -> None:
    """All of its steps."""
    steps = 1
    while keeping.run(chore.sweep_strays):
        steps += 1
    assert steps == GROUPS


def test_one_that_is_being_given_its_name_waits_for_its_removal_and_lives(keeping: Keeping) -> None:
    """Whoever comes first: afterwards there is a row and a file, or neither."""
    place = keeping.put("again")
    keeping.house.clock.advance(DAY + 1)

    async def both(hub: Any) -> None:
        async with keeping.blobs.alone(sha("again")):
            removing = asyncio.create_task(chore.run_once(hub))
            for _ in range(3):  # time enough for the other one, had he not to wait
                await keeping.blobs.thread(keeping.blobs.folder.room)
                await hub.write(hub.store.add_blob("eve", sha("other"), 1))
            assert hub.store.find_blob("ann", sha("again")) == 5, "it was removed under one who gives it its name"
            await hub.write(hub.store.add_blob("ann", sha("again"), 5))
        await removing

    keeping.run(both)
    assert place.exists() and keeping.house.store.find_blob("ann", sha("again")) == 5
    assert keeping.blobs._locks == {}
