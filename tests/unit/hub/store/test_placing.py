"""Who gets which job: sharing, prefetching, calling back."""

from typing import Any

import pytest

from tests.unit.hub.store.house import House, job, sha
from worker.protocol import Shape

QUICK, SLOW, NEW = job("quick"), job("slow"), job("never", "ran")


def teach(house: House, *runs: int, command: str = "quick") -> None:
    """A worker of its own has run such jobs, and has gone."""
    names = house.submit(*[job(command) for _ in runs])
    house.worker("teacher", cpus=len(runs))
    attempts = house.taken("teacher")
    assert [name for name, _ in attempts] == names
    results = [
        {"job": name, "epoch": epoch, "outcome": "succeeded", "run_ms": run_ms}
        for (name, epoch), run_ms in zip(attempts, runs, strict=True)
    ]
    house.report("teacher", results=results, leaving="done")


def give_back(house: House, name: str) -> list[str]:
    """What it is asked back, given back at once."""
    recalled = house.poll(name)["recall"]
    house.report(name, results=[{**one, "outcome": "returned"} for one in recalled])
    return [one["job"] for one in recalled]


def held(house: House) -> dict[str, int]:
    return {worker["id"]: worker["running"] + worker["assigned"] for worker in house.store.list_workers()}


def test_measured_short_jobs_are_prefetched_for_half_a_second_of_each_slot(house: House) -> None:
    teach(house, 30)  # guessed at 33 ms
    house.submit(*[QUICK] * 40)
    house.worker("w", cpus=2)
    assert len(house.taken("w")) == 30


def test_jobs_of_a_program_that_nobody_measured_are_never_prefetched(house: House) -> None:
    teach(house, 5)
    house.submit(*[NEW] * 10)
    house.worker("w", cpus=1)
    assert len(house.taken("w")) == 1


def test_quick_jobs_do_not_make_the_long_ones_of_their_group_look_quick(house: House) -> None:
    """One group, because the shapes are alike: what is prefetched is decided for each job."""
    teach(house, *[1] * 20)
    house.submit(SLOW, *[QUICK] * 10)
    house.worker("w", cpus=1)
    assert house.taken("w") == [("j21", 1)]
    assert house.state("j22") == "queued"


def test_nothing_is_prefetched_while_another_worker_could_start_it_now(house: House) -> None:
    teach(house, 1)
    for name in ("u", "v", "w"):
        house.worker(name, cpus=1)
    house.submit(*[QUICK] * 9)
    assert held(house) == {"u": 3, "v": 3, "w": 3}


def test_a_report_in_the_commit_of_a_submit_takes_its_slot_and_no_more(house: House) -> None:
    """The submit comes first and would let the reporting worker prefetch what an idle one could start."""
    teach(house, 1)
    house.submit(QUICK)
    house.worker("w", cpus=1)
    house.worker("v", cpus=1)
    gate: Any = house.store._writer.submit(lambda batch: batch.connection.exec_driver_sql("SELECT 1"))
    done = {"job": "j2", "epoch": 1, "outcome": "succeeded", "run_ms": 1}
    submitted = house.store.submit_jobs("ann", [QUICK] * 8)
    house.report("w", results=[done])
    gate.result(), submitted.result()
    assert held(house) == {"v": 4, "w": 4}


def test_a_worker_that_gets_room_calls_back_what_waits_elsewhere_in_the_same_commit(house: House) -> None:
    teach(house, 30)
    house.submit(*[QUICK] * 15)
    house.worker("w", cpus=1)
    taken = house.taken("w")
    assert len(taken) == 15
    house.start("w", taken[0])
    house.worker("v", cpus=1)
    back = give_back(house, "w")
    assert len(back) == 5, "half of the eleven that do not start within 100 ms"
    assert [name for name, _ in house.taken("v")] == back
    for name in back:
        shown = house.store.get_job(name)
        assert (shown["losses"], shown["retries"], shown["attempt"]) == (0, 0, 2)


def test_jobs_behind_one_that_takes_longer_than_expected_are_all_called_back(house: House) -> None:
    teach(house, 30)
    house.submit(*[QUICK] * 3)
    house.worker("w", cpus=1)
    house.start("w", house.taken("w")[0])
    house.worker("v", cpus=1)
    house.store.recall().result()
    assert house.poll("w")["recall"] == [], "both start within 100 ms"
    house.clock.advance(300)  # now the first is late
    assert house.store.holds_ahead()
    house.store.recall().result()
    assert len(give_back(house, "w")) == 2
    assert held(house) == {"v": 1, "w": 1}, "and none waits on the other: they may take as long"
    for _ in range(2):
        house.end("v", *house.taken("v"))
    assert not house.store.holds_ahead()
    ended = house.store.info()["jobs"]
    assert (ended["succeeded"], ended["running"]) == (3, 1)


def test_nothing_is_called_back_while_nobody_has_room_or_serves_its_owner(house: House) -> None:
    teach(house, 1)
    house.submit(*[QUICK] * 10)
    house.worker("w", cpus=1)
    house.start("w", house.taken("w")[0])
    house.clock.advance(5_000)
    house.store.recall().result()
    assert house.poll("w")["recall"] == []
    house.claim("s", owners=("bob",))
    house.worker("s-0", token="join-s-0")
    house.store.recall().result()
    assert house.poll("w")["recall"] == []
    house.worker("g", shape=Shape(cpus=500).to_wire())
    house.store.recall().result()
    assert house.poll("w")["recall"] == [], "too small"


def test_a_job_is_asked_back_once(house: House) -> None:
    teach(house, 1)
    house.submit(*[QUICK] * 10)
    house.worker("w", cpus=1)
    house.start("w", house.taken("w")[0])
    house.clock.advance(5_000)
    house.worker("v", cpus=1)
    house.store.recall().result()
    house.store.recall().result()
    assert len(house.poll("w", ack=False)["recall"]) == 9
    assert house.store.sweep().result().recalled == 9
    assert house.store.sweep().result().recalled == 0


def test_a_program_that_now_runs_long_is_not_prefetched_before_its_run_ends(house: House) -> None:
    teach(house, 1, 1, 1)
    house.submit(QUICK)
    house.worker("w", cpus=1)
    house.start("w", *house.taken("w"))
    house.clock.advance(3_000)
    house.store.recall().result()
    house.submit(*[QUICK] * 5)
    house.worker("v", cpus=1)
    assert len(house.taken("v")) == 1


def test_a_straggler_does_not_stop_prefetch_of_what_ran_quickly_a_hundred_times(house: House) -> None:
    teach(house, *[1] * 100)
    house.submit(QUICK)
    house.worker("w", cpus=1)
    house.start("w", *house.taken("w"))
    house.clock.advance(3_000)
    house.store.recall().result()
    house.submit(*[QUICK] * 5)
    house.worker("v", cpus=1)
    assert len(house.taken("v")) == 5


def test_no_jobs_wander_to_and_fro(house: House) -> None:
    """Two workers with the same kind of quick jobs: each recall is followed by work, never by a recall back."""
    teach(house, 40)
    house.submit(*[QUICK] * 12)
    house.worker("w", cpus=1)
    house.worker("v", cpus=1)
    waiting: dict[str, list[tuple[str, int]]] = {"w": [], "v": []}
    ran: list[str] = []
    for _ in range(20):
        for name, mine in waiting.items():
            polled = house.poll(name)
            mine += [(one["job"], one["epoch"]) for one in polled["assign"]]
            back = [one for one in polled["recall"] if (one["job"], one["epoch"]) in mine]
            house.report(name, results=[{**one, "outcome": "returned"} for one in back])
            for one in back:
                mine.remove((one["job"], one["epoch"]))
            if mine:
                first = mine.pop(0)
                ran.append(first[0])
                house.end(name, first)
        house.clock.advance(40)
    assert len(ran) == len(set(ran)) == 12
    attempts = [house.store.get_job(name)["attempt"] for name in ran]
    assert max(attempts) <= 2


@pytest.mark.parametrize("restart", [False, True])
def test_what_was_learned_is_forgotten_by_a_restart_and_nothing_else(house: House, restart: bool) -> None:
    teach(house, 1)
    house.submit(*[QUICK] * 10)
    house.worker("w", cpus=1)
    if restart:
        house.restart()
    taken = house.taken("w")
    assert len(taken) == 10
    house.start("w", taken[0])
    house.clock.advance(1_000)
    house.worker("v", cpus=1)
    house.store.recall().result()
    assert len(house.poll("w")["recall"]) == 9


def test_a_large_job_that_waited_long_gets_its_room_from_one_worker(house: House) -> None:
    """Small jobs never cease; without the rule each slot that falls free would go to one of them."""
    for name in ("v", "w"):
        house.worker(name, cpus=2)
    house.submit(*[NEW] * 4)
    (large,) = house.submit(job("large", shape=Shape(cpus=2000)))
    house.clock.advance(30_000)
    house.submit(*[NEW] * 50)
    held_now = {name: house.taken(name) for name in ("v", "w")}
    house.store.sweep().result()
    house.end("v", held_now["v"].pop())
    held_now["v"] += house.taken("v")
    assert len(held_now["v"]) == 2, "it waits for half a minute only: the slot goes to a small one"
    house.clock.advance(31_000)
    house.store.poll("w", sha("w"), 1, 0)
    house.store.poll("v", sha("v"), 1, 0)
    house.store.sweep().result()
    why = house.store.get_job(large)["why"]
    assert [verdict["reason"]["code"] for verdict in why] == ["room-kept"]
    keeper = why[0]["reason"]["numbers"]["worker"]
    other = {"v": "w", "w": "v"}[keeper]
    house.end(other, held_now[other][0])
    assert len(house.taken(other)) == 1, "the others go on with small ones"
    house.end(keeper, held_now[keeper][0])
    assert house.taken(keeper) == []
    (first,) = house.submit(job("urgent", priority=1))
    assert [name for name, _ in house.taken(keeper)] == [first], "what comes before it passes"
    house.end(keeper, (first, 1))
    house.end(keeper, held_now[keeper][1])
    assert [name for name, _ in house.taken(keeper)] == [large]
    house.store.sweep().result()
    house.end(keeper, (large, 1))
    assert house.taken(keeper), "it is as any other again"
    kept = house.store.list_events(kind="worker.keeps-room")[0]
    assert [event["subject"] for event in kept] == [keeper]
