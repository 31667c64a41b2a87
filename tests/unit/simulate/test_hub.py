"""The simulated job service keeps the promises that the policy relies on."""

import pytest

from worker.protocol import Shape
from worker_manager.simulate.hub import LEASE_MS, SimHub
from worker_manager.simulate.world import SimJob

FOUR = Shape(cpus=4000)


@pytest.fixture
def hub() -> SimHub:
    return SimHub({"p": None, "few": 2})


def started(hub: SimHub, now: int = 0) -> list[tuple[str, int]]:
    return [(worker.id, job.epoch) for worker, job in hub.hand_out(now)]


def test_jobs_go_where_there_is_room_the_fullest_first(hub: SimHub) -> None:
    for name in ("a", "b"):
        hub.register(name, "p", FOUR, "", 0)
    hub.submit(SimJob(0, 1, Shape(cpus=3000)), 0)
    assert started(hub) == [("a", 1)]
    hub.submit(SimJob(0, 1), 0)
    hub.submit(SimJob(0, 1), 0)
    assert started(hub) == [("a", 1), ("b", 1)]


def test_higher_priority_starts_first(hub: SimHub) -> None:
    hub.register("a", "p", Shape(cpus=1000), "", 0)
    hub.submit(SimJob(0, 1), 0)
    urgent = hub.submit(SimJob(0, 1, priority=5), 1)
    assert started(hub) == [("a", 1)]
    assert urgent.starts == 1


def test_a_late_result_is_refused(hub: SimHub) -> None:
    hub.register("a", "p", FOUR, "", 0)
    job = hub.submit(SimJob(0, 1), 0)
    [(worker, _)] = list(hub.hand_out(0))
    epoch = job.epoch
    hub.silence("a", 0)
    hub.expire(LEASE_MS - 1)
    assert worker.state == "ready"
    hub.expire(LEASE_MS)
    assert (worker.state, hub.waiting()) == ("lost", 1)
    assert not hub.finish(worker, job, epoch, LEASE_MS)
    hub.register("b", "p", FOUR, "", LEASE_MS)
    [(other, again)] = list(hub.hand_out(LEASE_MS))
    assert hub.finish(other, again, again.epoch, LEASE_MS + 1)


def test_only_idle_workers_are_cordoned(hub: SimHub) -> None:
    hub.register("a", "p", FOUR, "", 0)
    hub.submit(SimJob(0, 1), 0)
    started(hub)
    assert not hub.cordon("a", "idle", 9)
    hub.register("b", "p", FOUR, "", 0)
    assert hub.cordon("b", "idle", 9)
    assert not hub.cordon("b", "idle", 9)
    assert hub.uncordon("b")
    assert not hub.uncordon("b")


def test_a_token_works_once_and_not_after_its_burial(hub: SimHub) -> None:
    assert hub.register("a", "p", FOUR, "", 0)
    assert not hub.register("a", "p", FOUR, "", 0)
    assert not hub.bury("a")
    assert hub.bury("b")
    assert not hub.register("b", "p", FOUR, "", 0)


def test_a_worker_takes_no_more_jobs_than_it_may(hub: SimHub) -> None:
    hub.register("a", "few", FOUR, "", 0)
    for _ in range(4):
        hub.submit(SimJob(0, 1), 0)
    assert started(hub) == [("a", 1), ("a", 1)]


def test_what_the_manager_sees(hub: SimHub) -> None:
    hub.register("a", "p", FOUR, "c1", 5)
    for owner in ("ann", "ann", "bob"):
        hub.submit(SimJob(0, 1, Shape(cpus=3000), owner=owner), 7)
    started(hub, 8)
    fact = hub.fact(9)
    assert sorted((group.owner, group.count, group.oldest) for group in fact.groups) == [("ann", 1, 7), ("bob", 1, 7)]
    [worker] = fact.workers
    assert (worker.running, worker.free, worker.idle_since, worker.seen_at) == (1, Shape(cpus=1000), None, 9)
