"""Chores: a step that fails is tried again later, one with more to do at once, and none keeps another from its turn."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from worker_manager.hub.chores.run import AGAIN_S, FAILED_S, Chore, run, step


def chore_of(answer: Any, every_s: float = 60.0) -> Chore:
    async def run_once(hub: Any) -> bool:
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    return Chore("test", every_s, run_once)


@pytest.mark.parametrize(
    ("answer", "every_s", "pause"),
    [
        (False, 60.0, 60.0),
        (True, 60.0, AGAIN_S),
        (OSError("disk full"), 60.0, 60.0),
        (OSError("disk full"), 1.0, FAILED_S),
    ],
)
def test_the_pause_after_a_step(answer: Any, every_s: float, pause: float) -> None:
    hub: Any = SimpleNamespace()
    assert asyncio.run(step(hub, chore_of(answer, every_s))) == pause


def test_every_chore_has_its_turn() -> None:
    ran: list[str] = []

    async def body() -> None:
        done = asyncio.Event()

        def chore(name: str) -> Chore:
            async def run_once(hub: Any) -> bool:
                ran.append(name)
                if {"a", "b"} <= set(ran):
                    done.set()
                if name == "a":
                    raise RuntimeError("always")
                return True

            return Chore(name, 0.001, run_once)

        hub: Any = SimpleNamespace(loop=asyncio.get_running_loop())
        task = asyncio.create_task(run(hub, [chore("a"), chore("b")]))
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()

    asyncio.run(body())
    assert {"a", "b"} <= set(ran)
