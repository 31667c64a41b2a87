"""Waiters are woken by their topics only, and all share their timers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from worker_manager.hub.longpoll import Waiters


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose time moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


def on_loop(body: Callable[[SteppedLoop, Waiters], Awaitable[Any]]) -> None:
    loop = SteppedLoop()
    try:
        loop.run_until_complete(body(loop, Waiters(loop)))
    finally:
        loop.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def waits(waiters: Waiters, *topics: str, seconds: float = 50) -> bool:
    with waiters.listen(topics, seconds) as waiter:
        return await waiter.woken()


def test_only_the_topic_s_waiters_are_woken() -> None:
    async def body(loop: SteppedLoop, waiters: Waiters) -> None:
        a, b = asyncio.ensure_future(waits(waiters, "a", "both")), asyncio.ensure_future(waits(waiters, "b", "both"))
        await settle()
        assert waiters.wake("a") == 1
        await settle()
        assert a.done() and a.result() is True
        assert not b.done()
        assert waiters.wake("both") == 1
        assert await b is True
        assert len(waiters) == 0

    on_loop(body)


def test_as_many_are_woken_as_are_asked_for_the_longest_waiting_first() -> None:
    async def body(loop: SteppedLoop, waiters: Waiters) -> None:
        tasks = [asyncio.ensure_future(waits(waiters, "t")) for _ in range(5)]
        await settle()
        assert waiters.wake("t", at_most=2) == 2
        await settle()
        assert [task.done() for task in tasks] == [True, True, False, False, False]
        waiters.close()
        await asyncio.gather(*tasks)

    on_loop(body)


def test_time_ends_a_wait_and_thousands_share_a_timer() -> None:
    async def body(loop: SteppedLoop, waiters: Waiters) -> None:
        tasks = [asyncio.ensure_future(waits(waiters, f"w{n}")) for n in range(2000)]
        await settle()
        assert len(waiters) == 2000
        assert len(waiters._timers) == 1
        loop.move(49)
        await settle()
        assert not any(task.done() for task in tasks)
        loop.move(1.2)
        assert set(await asyncio.gather(*tasks)) == {False}
        assert len(waiters) == 0 and not waiters._timers and not waiters._by_deadline

    on_loop(body)


def test_a_wake_between_listening_and_waiting_is_not_lost() -> None:
    async def body(loop: SteppedLoop, waiters: Waiters) -> None:
        with waiters.listen(["t"], 50) as waiter:
            waiters.wake("t")
            assert await waiter.woken() is True

    on_loop(body)


def test_one_may_wait_again_but_not_longer_than_it_said() -> None:
    async def body(loop: SteppedLoop, waiters: Waiters) -> None:
        with waiters.listen(["t"], 50) as waiter:
            waiters.wake("t")
            assert await waiter.woken() is True
            second = asyncio.ensure_future(waiter.woken())
            loop.move(49)
            await settle()
            assert not second.done()
            loop.move(1.2)
            assert await second is False
        assert not waiters._timers

    on_loop(body)


def test_closing_answers_all_and_nobody_waits_after_it() -> None:
    async def body(loop: SteppedLoop, waiters: Waiters) -> None:
        task = asyncio.ensure_future(waits(waiters, "t"))
        await settle()
        waiters.close()
        assert await task is True
        assert await waits(waiters, "t") is False

    on_loop(body)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def body(loop: SteppedLoop, waiters: Waiters) -> None:
        task = asyncio.ensure_future(waits(waiters, "t"))
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(waiters) == 0 and not waiters._timers

    on_loop(body)
