"""Workers that share a machine: each says what the others leave, and the hub gives the same room away only once."""

from typing import Any

import pytest

from tests.unit.hub.store.house import House, job
from worker.protocol import Shape

FOUR = job("long", shape=Shape(cpus=4000))


def shape(cpus: int, **more: Any) -> dict[str, Any]:
    return Shape(cpus=cpus * 1000, machine="m1", **more).to_wire()


def sharing(house: House, *names: str, cpus: int = 8, **more: Any) -> None:
    for name in names:
        house.worker(name, shape=shape(cpus, **more))


def held(house: House) -> dict[str, int]:
    return {worker["id"]: worker["running"] + worker["assigned"] for worker in house.store.list_workers()}


def test_a_burst_is_not_given_to_each_of_them(house: House) -> None:
    sharing(house, "a", "b", "c")
    house.worker("alone", cpus=4)
    house.submit(*[FOUR] * 10)
    assert held(house) == {"a": 2, "b": 0, "c": 0, "alone": 1}
    house.submit(FOUR)
    house.report("b")
    assert held(house) == {"a": 2, "b": 0, "c": 0, "alone": 1}, "nor by and by"


def test_what_has_begun_is_in_what_the_others_say(house: House) -> None:
    sharing(house, "a", "b")
    house.submit(*[FOUR] * 3)
    taken = house.taken("a")
    assert len(taken) == 2
    house.report("b", shape=shape(0))
    house.start("a", *taken)
    assert held(house) == {"a": 2, "b": 0}
    house.report("b", shape=shape(4))
    assert held(house) == {"a": 2, "b": 1}
    assert house.store.get_worker("b")["free"] == {"cpus": 0, "machine": "m1"}


def test_when_one_begins_its_neighbours_are_looked_at_again(house: House) -> None:
    """The other's word came before the start was told, so the room was taken off twice for a moment."""
    sharing(house, "a")
    house.submit(FOUR)
    taken = house.taken("a")
    sharing(house, "b", cpus=4)
    house.report("a", shape=shape(4))
    (waits,) = house.submit(FOUR)
    assert house.state(waits) == "queued"
    house.start("a", *taken)
    assert held(house) == {"a": 1, "b": 1}


def teach(house: House, run_ms: int) -> None:
    """How long `quick` takes; by a worker that has gone."""
    names = house.submit(*[job("quick")] * 4)
    house.worker("teacher", cpus=4)
    taken = house.taken("teacher")
    assert len(taken) == len(names)
    taught = [{"job": name, "epoch": epoch, "outcome": "succeeded", "run_ms": run_ms} for name, epoch in taken]
    house.report("teacher", results=taught, leaving="done")


def test_nothing_waits_on_one_of_them_for_its_own_jobs_however_short(house: House) -> None:
    teach(house, 1)
    sharing(house, "a", cpus=2)
    house.submit(*[job("quick")] * 20)
    assert held(house) == {"a": 2}
    house.end("a", *house.taken("a"))
    assert held(house) == {"a": 2}


@pytest.mark.parametrize(("run_ms", "on_b"), [(20, 2), (800, 0)])
def test_what_is_short_may_wait_for_a_neighbour(house: House, run_ms: int, on_b: int) -> None:
    teach(house, run_ms)
    sharing(house, "a", "b", cpus=2)
    house.submit(*[job("quick")] * 20)
    assert held(house) == {"a": 2, "b": on_b}


def test_what_was_promised_of_countable_things_is_not_there_twice(house: House) -> None:
    sharing(house, "a", "b", custom=(("fpga", 1),))
    fpga = job("fpga", shape=Shape(cpus=1000, custom=(("fpga", 1),)))
    house.submit(fpga, fpga)
    assert held(house) == {"a": 1, "b": 0}
    assert house.store.get_worker("b")["free"] == {"cpus": 8000, "custom": {"fpga": 1}, "machine": "m1"}


def test_a_job_given_back_for_want_of_room_costs_nothing_and_goes_elsewhere(house: House) -> None:
    sharing(house, "a", "b")
    (name,) = house.submit(FOUR)
    for turn in range(8):
        ((_, epoch),) = house.taken("a")
        back = {"job": name, "epoch": epoch, "outcome": "returned", "reason": "neighbours"}
        house.report("a", results=[back], shape=shape(0))
        assert held(house) == {"a": 0, "b": 1}, turn
        ((_, epoch),) = house.taken("b")
        house.report("a", shape=shape(8))
        house.report("b", results=[{**back, "epoch": epoch}], shape=shape(0))
        house.report("b", shape=shape(8))
    assert house.store.get_job(name)["losses"] == 0


def test_a_machine_that_keeps_its_room_keeps_it_on_all_its_workers(house: House) -> None:
    sharing(house, "a", "b")
    (small,) = house.submit(job("long", shape=Shape(cpus=1000)))
    ((_, epoch),) = house.taken("a")
    house.start("a", (small, epoch))
    house.report("b", shape=shape(7))
    (big,) = house.submit(job("all", shape=Shape(cpus=8000)))
    for _ in range(2):
        house.clock.advance(house.settings.patience_ms // 2 + 1)
        for name in ("a", "b"):
            house.report(name)
        house.store.sweep().result()
    house.submit(job("long", shape=Shape(cpus=1000)))
    assert held(house) == {"a": 1, "b": 0}, "the big one waits, so nothing is begun in its room"
    house.end("a", (small, epoch))
    assert house.state(big) == "assigned"
