"""The manager and a real hub: launches announced, workers admitted, orders relayed, tokens revoked."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.base import Context, RefusalKind
from backends.memory import CAPABILITIES, MemoryBackend, MemoryPlatform, Refuse
from worker.protocol import Shape
from worker_manager.clock import SystemClock
from worker_manager.control.ledger import Ledger
from worker_manager.control.loop import Manager
from worker_manager.control.pool import ManagedPool
from worker_manager.hub import discovery
from worker_manager.hub_client import HubClient
from worker_manager.policy.facts import PoolSettings
from worker_manager.policy.model import Limits
from worker_manager.policy.reasons import because
from worker_manager.sources.base import Cordon
from worker_manager.sources.hub import HubSource

CLOCK = SystemClock()
SHAPE = Shape(cpus=4000, memory=2**33)


class Site:
    """A hub process, and a manager in this one that is ticked by hand."""

    def __init__(self, hub: Any, folder: Path) -> None:
        self.hub = hub
        self.platform = MemoryPlatform(CLOCK.now_ms)
        backend = MemoryBackend(self.platform, Context("m", "p", str(folder), CLOCK.now_ms))
        settings = PoolSettings("p", "memory", SHAPE, Limits(max_workers=4, stabilise_ms=0))
        pool = ManagedPool(settings, backend, CAPABILITIES, list_ms=0, list_idle_ms=0)
        self.client = HubClient(hub.url, token=hub.manager)
        self.ledger = Ledger.in_folder(folder / "manager", "m", CLOCK)
        self.ledger.acquire("test", 60_000)
        source = HubSource(self.client, "m", ("p",), CLOCK.now_ms)
        self.manager = Manager("m", "test", CLOCK, self.ledger, source, [pool], inline=True)

    def until(self, fulfilled: Callable[[], Any], what: str) -> Any:
        """Ticks until it is so."""
        deadline = time.monotonic() + 20
        while not (found := fulfilled()):
            assert time.monotonic() < deadline, f"in vain: {what}"
            self.manager.tick()
        return found


@pytest.fixture
def site(hub: Any, tmp_path: Path) -> Any:
    site = Site(hub, tmp_path)
    yield site
    site.ledger.close()


def test_from_a_job_to_an_admitted_worker_to_its_end(site: Site, wire_worker: Any) -> None:
    job = site.hub.submit("true")
    site.manager.tick()
    (machine,) = site.platform.workers()
    worker = wire_worker(site.hub, machine.join_token, machine.id)
    assignment = worker.take()
    assert assignment["job"] == job
    site.manager.tick()
    (intent,) = site.ledger.memory().intents
    assert intent.registered_at is not None
    site.until(lambda: site.hub.get("/v1/pools")["pools"], "what the hub shows of the pool")

    deleted = site.hub.call("DELETE", f"/v1/workers/{machine.id}?force=true")
    assert deleted.status_code == 202, deleted.text
    command = deleted.json()["command"]
    site.until(lambda: site.hub.get(f"/v1/commands/{command}")["state"] == "done", "the order's result")
    assert machine.id not in [other.id for other in site.platform.workers()]
    site.until(lambda: machine.id not in [i.id for i in site.ledger.memory().intents], "its intent's end")
    assert site.hub.get(f"/v1/jobs/{job}")["state"] == "queued"
    site.until(lambda: [other for other in site.platform.workers() if other.id != machine.id], "another worker")


def test_one_pass_right_after_a_submit_launches_and_says_so(site: Site) -> None:
    site.hub.submit("true")
    site.ledger.release()
    site.manager.once()
    assert len(site.platform.workers()) == 1
    (pool,) = site.hub.get("/v1/pools")["pools"]
    assert (pool["wanted"], pool["requested"], pool["observed"], pool["launch"]) == (1, 1, 0, 1)
    (made,) = site.hub.get("/v1/pools/p/explain")["pools"][0]["decisions"]
    assert (made["action"], made["outcome"], made["text"]) == ("launch", "launched", "1 worker")
    told = site.hub.get("/v1/events?kind=decision")["events"]
    assert [event["data"]["decision"]["id"] for event in told] == [made["id"]]
    site.manager.once()
    assert len(site.platform.workers()) == 1
    (pool,) = site.hub.get("/v1/pools")["pools"]
    assert (pool["wanted"], pool["requested"], pool["observed"], pool["launch"]) == (1, 0, 1, 0)
    assert site.hub.get("/v1/events?kind=decision")["events"] == told, "and not once more by the next pass"
    site.ledger.acquire("test", 60_000)


def test_a_refused_launch_leaves_no_token_and_no_coverage(site: Site, wire_worker: Any) -> None:
    site.platform.faults.inject("launch", Refuse(RefusalKind.CAPACITY, "none left"))
    site.hub.submit("true")
    site.manager.tick()
    assert site.ledger.memory().intents == ()
    history = site.ledger.memory().pools["p"].history
    assert [failure.kind for failure in history.failures] == ["capacity"]
    buried = site.hub.get("/v1/events?kind=launch.buried")["events"]
    assert len(buried) == 1


def test_a_job_that_nobody_can_ever_run_says_so_after_one_tick(site: Site) -> None:
    job = site.hub.submit("true", resources={"memory": "1TiB"})
    site.manager.tick()
    explained = site.hub.get(f"/v1/jobs/{job}/explain")
    (verdict,) = explained["verdicts"]
    assert (verdict["manager"], verdict["pool"], verdict["status"]) == ("m", "p", "never")
    assert verdict["reason"]["code"] == "memory"
    assert site.platform.workers() == ()


def test_a_freeze_is_relayed_and_holds(site: Site) -> None:
    site.manager.tick()
    site.until(lambda: site.hub.get("/v1/pools")["pools"], "the pool is known")
    given = site.hub.post("/v1/pools/p/freeze", {"for_ms": 60_000, "text": "maintenance"})
    site.until(lambda: site.hub.get(f"/v1/commands/{given['command']}")["state"] == "done", "the freeze")
    site.hub.submit("true")
    site.manager.tick()
    assert site.platform.workers() == ()
    thawed = site.hub.post("/v1/pools/p/unfreeze", {})
    site.until(lambda: site.hub.get(f"/v1/commands/{thawed['command']}")["state"] == "done", "the end of the freeze")
    site.until(lambda: site.platform.workers(), "a worker")


def test_while_the_hub_is_away_nothing_is_decided_and_nothing_forgotten(site: Site) -> None:
    site.hub.submit("true")
    site.manager.tick()
    assert len(site.platform.workers()) == 1
    discovery.stop(site.hub.state_dir)
    plan = site.manager.tick()
    assert plan.actions == ()
    assert "cannot be reached" in plan.pools[0].reasons[0].text
    assert len(site.ledger.memory().intents) == 1


def test_only_a_drain_for_idleness_is_undone_when_work_comes_back(site: Site, wire_worker: Any) -> None:
    """Which drain it was comes back from the hub word for word."""
    site.hub.submit("true")
    site.manager.tick()
    (machine,) = site.platform.workers()
    worker = wire_worker(site.hub, machine.join_token, machine.id)
    worker.finish(worker.take())
    for reason, undone in (("idle", True), ("too-old", False)):
        cordon = Cordon(machine.id, True, because(reason, **NUMBERS[reason]).to_wire(), CLOCK.now_ms() + 60_000)
        assert site.manager._source.cordon([cordon])[machine.id] is not None
        (fact,) = site.manager._source.observe(None, 0).backlog.workers
        assert (fact.state, fact.drain_code) == ("draining", reason)
        job = site.hub.submit("true")
        site.manager.tick()
        assert (site.hub.get(f"/v1/workers/{machine.id}")["state"] == "ready") is undone
        assert (len(site.platform.workers()) == 1) is undone
        if undone:
            worker.finish(worker.take())
            assert site.hub.get(f"/v1/jobs/{job}")["state"] == "succeeded"


NUMBERS: dict[str, dict[str, int]] = {
    "idle": {"idle_ms": 1, "limit_ms": 1, "wanted": 0, "have": 1},
    "too-old": {"limit_ms": 1},
}
