"""Jobs go to workers that hold their inputs, and nobody waits for ever for it."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.hub.store.house import House, job, sha
from worker.files import cache_scope, input_key
from worker.protocol import Shape
from worker_manager.hub.contract import JobFilter, NewJob
from worker_manager.hub.preference import MOST_PASSES, WINDOW

CAN = Shape(cpus=1000, can=("inputs",))
ANN = cache_scope("ann")
A, B = sha("a"), sha("b")


def needs(*digests: str, size: int = 100, **more: Any) -> NewJob:
    inputs = [
        {"to": f"in{n}", "source": "https://a.example/x?signed=1", "sha256": digest, "size": size}
        for n, digest in enumerate(digests)
    ]
    return job(shape=CAN, work={"inputs": inputs}, **more)


def stager(house: House, name: str, cpus: int = 1, holds: Sequence[str] = (), **more: Any) -> None:
    """A worker that can stage, and has told what it holds."""
    house.worker(name, shape=Shape(cpus=cpus * 1000, memory=2**34, can=("inputs",)).to_wire())
    tells(house, name, holds, **more)


def tells(house: House, name: str, holds: Sequence[str], **more: Any) -> dict[str, Any]:
    added = [[ANN, input_key(digest, False), 100] for digest in holds]
    return house.report(name, cache={"all": True, "added": added}, **more)


def next_of(house: House, name: str) -> str:
    """The job that it has now; it ends well, after so long that nothing is prefetched."""
    ((found, epoch),) = house.taken(name)
    house.end(name, (found, epoch), run_ms=60_000)
    return found


def test_a_worker_is_given_what_it_holds_before_what_it_does_not(house: House) -> None:
    house.submit(*[job(shape=CAN)] * 1)  # keeps it busy while the others are sent
    stager(house, "w", holds=[B])
    house.submit(needs(A), needs(A), needs(B), needs(A, B), needs(B))
    assert [next_of(house, "w") for _ in range(6)] == ["j1", "j4", "j6", "j5", "j2", "j3"]


def test_word_of_what_was_fetched_counts_in_the_report_that_brings_it(house: House) -> None:
    house.submit(needs(B), needs(A), needs(B))
    stager(house, "w")
    ((found, epoch),) = house.taken("w")
    done = [{"job": found, "epoch": epoch, "outcome": "succeeded", "run_ms": 60_000}]
    tells(house, "w", [B], results=done)
    assert next_of(house, "w") == "j3"


def test_priority_comes_before_what_is_held(house: House) -> None:
    house.submit(job(shape=CAN))
    stager(house, "w", holds=[B])
    house.submit(needs(B), needs(A, priority=5))
    assert [next_of(house, "w") for _ in range(3)] == ["j1", "j3", "j2"]


def test_a_job_that_was_passed_over_often_enough_goes_first(house: House) -> None:
    house.submit(job(shape=CAN))
    stager(house, "w", holds=[B])
    house.submit(needs(A), *[needs(B)] * (2 * MOST_PASSES))
    order = [next_of(house, "w") for _ in range(MOST_PASSES + 2)]
    assert order.index("j2") == MOST_PASSES + 1
    assert order[1:-1] == [f"j{number}" for number in range(3, MOST_PASSES + 3)]


def test_only_the_head_of_the_queue_is_looked_through(house: House) -> None:
    house.submit(job(shape=CAN))
    stager(house, "w", holds=[B])
    house.submit(*[needs(A)] * WINDOW, needs(B))
    assert [next_of(house, "w") for _ in range(3)] == ["j1", "j2", f"j{WINDOW + 2}"]


def test_tasks_of_an_array_share_their_inputs_and_keep_their_order(house: House) -> None:
    house.submit(job(shape=CAN))
    stager(house, "w", cpus=2, holds=[B])
    house.submit(needs(A, array=3), needs(B, array=3))
    given: list[str] = []
    while taken := house.taken("w"):
        given += [name for name, _ in taken]
        house.end("w", *taken, run_ms=60_000)
    assert given == ["j1", *[f"j3-{n}" for n in range(3)], *[f"j2-{n}" for n in range(3)]]
    assert all(house.state(name) == "succeeded" for name in ("j2", "j3"))


def test_of_several_with_room_who_holds_the_inputs_is_asked_first(house: House) -> None:
    for name in ("u", "v", "w"):
        stager(house, name, holds=[B] if name == "w" else [])
    house.submit(needs(B))
    assert house.taken("w") == [("j1", 1)]
    house.submit(needs(B))
    assert house.taken("u") == [("j2", 1)], "nobody waits for a holder that has no room"


def test_what_belongs_to_another_owner_is_not_held_for_this_one(house: House) -> None:
    for name in ("u", "v"):
        stager(house, name, holds=[B] if name == "v" else [])
    house.submit(needs(B), owner="bob")
    assert house.taken("u") == [("j1", 1)]


def test_a_lost_or_gone_worker_is_not_asked(house: House) -> None:
    stager(house, "v", holds=[B])
    stager(house, "w", holds=[B])
    house.report("w", leaving="done")
    assert house.store.inventory.of_worker("w") is None
    house.submit(needs(B))
    assert house.taken("v") == [("j1", 1)]


def test_a_hub_asks_for_what_it_does_not_know_and_only_those_who_stage(house: House) -> None:
    house.worker("plain")
    assert "tell" not in house.report("plain")
    house.worker("w", shape=CAN.to_wire())
    assert house.report("w")["tell"] == ["cache"]
    assert "tell" not in tells(house, "w", [A])
    assert "tell" not in house.report("w")
    house.restart()
    assert house.report("w")["tell"] == ["cache"]
    assert "tell" not in tells(house, "w", [A])


def test_the_same_report_again_changes_nothing(house: House) -> None:
    stager(house, "w", holds=[A])
    before = house.store.inventory.of_worker("w")
    house.again("w", house.seqs["w"], cache={"all": True, "added": []})
    assert house.store.inventory.of_worker("w") == before


def test_why_a_job_is_where_it_is_can_be_told(house: House) -> None:
    stager(house, "w", holds=[B])
    house.submit(needs(A, B))
    told = house.store.explain_job("j1")
    assert told["held_bytes"] == 100
    assert told["text"] == "assigned on w, which held 100 B of its inputs"
    house.submit(needs(A), needs(A))
    house.end("w", ("j1", 1), run_ms=60_000)
    assert house.store.explain_job("j1")["held_bytes"] is None
    assert house.store.explain_job("j2")["held_bytes"] is None


@pytest.mark.parametrize("holds", [[], [A]])
def test_jobs_without_inputs_keep_their_order_whatever_is_held(house: House, holds: list[str]) -> None:
    house.submit(job(shape=CAN))
    stager(house, "w", holds=holds)
    house.submit(*[job(shape=CAN)] * 3)
    assert [next_of(house, "w") for _ in range(4)] == ["j1", "j2", "j3", "j4"]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_held_each_job_runs_exactly_once(house: House, seed: int) -> None:
    """Workers whose caches change all the time, jobs and arrays of several priorities that come in between."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    digests = [sha(str(number)) for number in range(6)]
    names = ["u", "v", "w"]
    for name in names:
        stager(house, name, cpus=4, holds=chance.sample(digests, 2))

    def come() -> None:
        wanted = chance.sample(digests, chance.randint(0, 3))
        more = {"array": chance.choice([None, None, 3]), "priority": chance.choice([0, 0, 7])}
        house.submit(needs(*wanted, **more))

    seen: list[str] = []
    house.submit(needs(digests[0], array=80), needs(digests[1]), needs(digests[2], array=20))
    for step in range(10_000):
        name = chance.choice(names)
        taken = house.taken(name)
        seen += [job for job, _ in taken]
        house.end(name, *taken, run_ms=60_000)
        if chance.random() < 0.2:
            tells(house, name, chance.sample(digests, 3))
        if step < 20:
            come()
        elif (
            not house.group_counts() and not taken and not any(house.poll(each, ack=False)["assign"] for each in names)
        ):
            break
    states = {one["id"]: one for one in house.store.list_jobs(JobFilter(limit=1000))[0]}
    assert {one["state"] for one in states.values()} == {"succeeded"}
    assert len(seen) == len(set(seen)) == sum((one["array"] or {"count": 1})["count"] for one in states.values())
