"""A transfer ends when it stands still or is told to, and not before; a place is given back."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from worker_manager.hub.blobs import pace as paces
from worker_manager.hub.blobs.pace import ENOUGH_BYTES, Ended, Pace, Slots, Why
from worker_manager.hub.problems import Problem

LONG_S = 60.0


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(bounded())


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def at_once(value: int) -> int:
    return value


def test_what_moves_is_waited_for_and_what_does_not_ends() -> None:
    async def body() -> None:
        pace = Pace(0.05)
        assert await pace.of(at_once, 3) == 3
        with pytest.raises(Ended) as ended:
            await pace.of(never)
        assert ended.value.why is Why.STALLED

    run(body)


def test_a_drop_now_and_then_is_not_moving() -> None:
    async def body() -> None:
        pace = Pace(0.2)

        async def drop() -> None:
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            pace.moved(1)

        with pytest.raises(Ended):
            while True:
                await pace.of(drop)
        pace.moved(ENOUGH_BYTES)
        assert await pace.of(at_once, 1) == 1, "enough of it begins a new stretch"

    run(body)


def test_one_that_is_told_to_end_ends_where_it_waits_and_where_it_would_wait_next() -> None:
    async def body() -> None:
        waiting, later = Pace(LONG_S), Pace(LONG_S)
        task = asyncio.create_task(waiting.of(never))
        await asyncio.sleep(0)
        for pace in (waiting, later):
            pace.end(Why.OVERTAKEN)
            pace.end(Why.ENDING)
        with pytest.raises(Ended) as ended:
            await task
        assert ended.value.why is Why.OVERTAKEN, "the first reason stays"
        with pytest.raises(Ended):
            await later.of(at_once, 1)

    run(body)


def test_who_finds_no_place_waits_a_moment_and_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "SLOT_WAIT_S", 0.02)

    async def body() -> None:
        slots = Slots(1, LONG_S)
        async with slots.one():
            with pytest.raises(Problem) as refused:
                await slots.take()
            assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "2")
            assert (len(slots), slots.turned_away) == (1, 1)
        async with slots.one():
            assert len(slots) == 1
        assert len(slots) == 0

    run(body)


def test_a_place_that_falls_free_goes_to_who_waits() -> None:
    async def body() -> None:
        slots = Slots(1, LONG_S)
        first = await slots.take()
        second = asyncio.create_task(slots.take())
        await asyncio.sleep(0)
        slots.give(first)
        slots.give(await second)
        assert len(slots) == 0

    run(body)


def test_a_hub_that_ends_ends_all_and_whoever_comes_then() -> None:
    async def body() -> None:
        slots = Slots(2, LONG_S)
        before = await slots.take()
        task = asyncio.create_task(before.of(never))
        await asyncio.sleep(0)
        slots.end_all()
        with pytest.raises(Ended) as ended:
            await task
        assert ended.value.why is Why.ENDING
        with pytest.raises(Ended):
            await (await slots.take()).of(never)

    run(body)
