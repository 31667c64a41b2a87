"""What workers wrote: kept of those that never registered, and read for whom asks."""

from pathlib import Path

import pytest

from backends.memory import Fate, MemoryBackend
from tests.unit.control.world import ASKS, World
from worker_manager.control.outputs import KEPT_BYTES, last_lines, tail
from worker_manager.sources.base import Command

DIES = Fate(boot_ms=500, dies_at_boot=True, detail="no disk")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, max_workers=1, breaker_after=100, backoff_ms=0)


def ask(world: World, worker: str, **options: object) -> str:
    name = f"c-{worker}-{len(world.source.published)}"
    world.source.order(Command(name, "p", "worker-logs", worker, None, world.clock.now_ms() + 60_000, options, "alice"))
    world.steps(2)
    return name


def told(world: World, name: str) -> tuple[bool, str]:
    results = [result for report in world.source.published for result in report["results"]]
    (found,) = {(result["ok"], result["text"]) for result in results if result["command"] == name}
    return found


def test_one_that_died_before_it_registered_leaves_its_last_words(world: World) -> None:
    world.platform.faults.inject("worker", DIES)
    world.source.wait("g", ASKS, 1)
    world.steps(4)
    (decision,) = [found for found in world.ledger.decisions() if found["action"] == "output"]
    worker = decision["subject"]
    assert decision["reason"]["code"] == "last-output"
    assert f"{worker} ended" in decision["text"]
    assert f"{worker} starting" in world.ledger.output(worker)


def test_its_words_are_kept_when_its_platform_has_forgotten_it(world: World) -> None:
    world.platform.faults.inject("worker", DIES)
    world.source.wait("g", ASKS, 1)
    world.steps(4)
    (worker,) = {found["subject"] for found in world.ledger.decisions() if found["action"] == "output"}
    world.clock.advance(3_600_000)
    world.steps(1)
    handle = world.ledger.handle(worker)
    assert handle
    assert world.pool().backend.logs(handle, 1000) == ""
    ok, text = told(world, ask(world, worker))
    assert ok
    assert f"{worker} ended" in text


def test_one_that_hangs_is_read_before_it_is_ended(tmp_path: Path) -> None:
    world = World(tmp_path, max_workers=1, start_timeout_ms=5_000, backoff_ms=0)
    world.platform.faults.inject("worker", Fate(boot_ms=3_600_000))
    world.source.wait("g", ASKS, 1)
    world.steps(8)
    ended = [found["subject"] for found in world.ledger.decisions() if found["reason"]["code"] == "never-registered"]
    assert ended
    assert f"{ended[0]} starting" in world.ledger.output(ended[0])


def test_the_output_of_one_that_runs_is_read_for_who_asks(world: World) -> None:
    world.platform.faults.inject("worker", Fate(boot_ms=100, output="hello from the worker"))
    world.source.wait("g", ASKS, 1)
    world.steps(3)
    (machine,) = world.platform.workers()
    assert told(world, ask(world, machine.id)) == (True, world.pool().backend.logs(machine.handle, KEPT_BYTES))
    ok, text = told(world, ask(world, machine.id, max_bytes=6))
    assert (ok, len(text)) == (True, 6)
    assert told(world, ask(world, "m-99999-0")) == (True, "")


def test_a_backend_that_raises_or_floods_harms_nothing(world: World, tmp_path: Path) -> None:
    class Odd(MemoryBackend):
        away = True

        def logs(self, handle: str, max_bytes: int) -> str:
            if Odd.away:
                raise RuntimeError("the log service is away")
            return "é" * 10_000_000

    odd = Odd(world.platform, world.pool().backend._context)  # type: ignore[attr-defined]
    world.manager.reload([world.pool(backend=odd)])
    world.platform.faults.inject("worker", DIES)
    world.source.wait("g", ASKS, 1)
    world.steps(6)
    kept = [found for found in world.ledger.decisions() if found["action"] == "output"]
    why = "(what it wrote cannot be read: RuntimeError: the log service is away)"
    assert [found["text"] for found in kept] == [why]
    Odd.away = False
    (machine,) = world.platform.workers()
    ok, text = told(world, ask(world, machine.id))
    assert ok
    assert len(text.encode()) <= KEPT_BYTES


def test_of_many_that_fail_together_a_few_are_asked(tmp_path: Path) -> None:
    asked = []
    world = World(tmp_path, max_workers=40, max_batch=40)

    class Counting(MemoryBackend):
        def logs(self, handle: str, max_bytes: int) -> str:
            asked.append(handle)
            return "sad"

    world.manager.reload([world.pool(backend=Counting(world.platform, world.pool().backend._context))])  # type: ignore[attr-defined]
    world.platform.faults.inject("worker", DIES, times=40)
    world.source.wait("g", ASKS, 40)
    world.steps(4)
    assert 1 <= len(asked) <= 3


def test_the_last_lines_are_one_line() -> None:
    assert last_lines("one\n\n  two\nthree\nfour\n\n") == "two | three | four"
    assert len(last_lines("x" * 10**6)) <= 400
    assert last_lines("\n") == ""


def test_a_tail_is_cut_at_bytes_and_stays_text() -> None:
    class Long:
        def logs(self, handle: str, max_bytes: int) -> str:
            return "é" * 100

    assert len(tail(Long(), "h", 7).encode()) <= 9  # type: ignore[arg-type]
