"""A pool whose workers hold no token: launched without one, and named to the source once the platform shows them."""

from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import WorkerPhase
from backends.memory import Fate
from tests.unit.control.world import ASKS, SHAPE, World
from worker_manager.control.identities import AGAIN_MS, awaited
from worker_manager.sources.memory import TokenRefused


class Nameless(World):
    """Its platform vouches for the workers' machines; an agent joins as its machine."""

    def __init__(self, folder: Path, **limits: object) -> None:
        super().__init__(folder, **limits)  # type: ignore[arg-type]
        self.capabilities = replace(self.capabilities, secrets="none")
        self.platform.capabilities = self.capabilities
        self.manager = self.new_manager()
        self.told: list[dict[str, str]] = []
        identify = self.source.identify

        def counting(identities):  # type: ignore[no-untyped-def]
            self.told.append(dict(identities))
            return identify(identities)

        self.source.identify = counting  # type: ignore[method-assign]
        self.refused = 0

    def agents(self) -> None:
        for worker in self.platform.workers():
            if worker.phase(self.clock.now_ms()) is WorkerPhase.RUNNING and self.source.worker(worker.id) is None:
                try:
                    assert self.source.join(worker.identity, "p", SHAPE) == worker.id
                except TokenRefused:
                    self.refused += 1


@pytest.fixture
def world(tmp_path: Path) -> Nameless:
    return Nameless(tmp_path)


def test_a_launch_makes_no_token_and_its_worker_joins_as_its_machine(world: Nameless) -> None:
    world.source.wait("g", ASKS, 1)
    world.steps(6)
    (machine,) = world.platform.workers()
    assert machine.submission.join_tokens == ()
    assert machine.submission.count == 1
    assert world.admitted() == 1
    assert world.told == [{machine.id: machine.identity}]
    (intent,) = world.ledger.memory().intents
    assert intent.registered_at is not None


def test_nobody_joins_before_the_platform_shows_whose_it_is(world: Nameless) -> None:
    world.platform.faults.inject("worker", Fate(boot_ms=0))
    world.source.wait("g", ASKS, 1)
    world.tick()
    world.agents()
    assert (world.admitted(), world.refused) == (0, 1)
    with pytest.raises(TokenRefused):
        world.source.register(world.platform.workers()[0].id, "p", "", SHAPE)
    world.steps(5)
    assert world.admitted() == 1


def test_a_source_that_did_not_hear_is_told_with_the_next_listing(world: Nameless) -> None:
    world.platform.faults.inject("worker", Fate(boot_ms=30_000))
    world.source.wait("g", ASKS, 1)
    world.tick()
    world.clock.advance(1_000)
    world.source.unavailable = "the network is down"
    for _ in range(5):
        world.clock.advance(1_000)
        world.manager.tick()
    world.source.unavailable = ""
    world.steps(1)
    assert world.source.join(world.platform.workers()[0].identity, "p", SHAPE)


def test_it_is_told_again_now_and_then_until_the_worker_has_come(world: Nameless) -> None:
    world.platform.faults.inject("worker", Fate(boot_ms=100_000))
    world.source.wait("g", ASKS, 1)
    world.steps(95)
    assert 3 <= len(world.told) <= 1 + 95_000 // AGAIN_MS
    world.steps(20)
    before = len(world.told)
    assert world.admitted() == 1
    world.steps(40)
    assert len(world.told) == before, "it has come"


def test_a_restarted_manager_tells_it_anew(world: Nameless) -> None:
    world.platform.faults.inject("worker", Fate(boot_ms=10_000))
    world.source.wait("g", ASKS, 1)
    world.steps(4)
    world.restart()
    world.steps(2)
    assert len(world.told) == 2
    assert world.told[0] == world.told[1]


def test_pools_with_tokens_cost_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.source.wait("g", ASKS, 1)
    world.steps(4)
    assert awaited(world.ledger.memory(), {"p": world.pool()}, {}) == {}
    (machine,) = world.platform.workers()
    assert machine.join_token
