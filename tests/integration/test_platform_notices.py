"""A platform that says which worker it is about to end, with a real hub, real agents and real jobs.

The machines are this one; the platform around them is the local backend with a voice added.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import Accepted, Backend, Context, EndOutcome, Finding, LaunchOutcome, Listing, Notice, Submission
from tests.place import until
from worker.protocol import Shape
from worker_manager.clock import SystemClock
from worker_manager.control.ledger import Ledger
from worker_manager.control.loop import Manager
from worker_manager.control.pool import ManagedPool
from worker_manager.hub_client import HubClient
from worker_manager.policy.facts import PoolSettings
from worker_manager.policy.model import Limits
from worker_manager.sources.hub import HubSource

CLOCK = SystemClock()


class Announcing:
    """Another backend, whose platform says beforehand whom it ends, and waits for the answer."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.open: list[Notice] = []
        self.heard: list[str] = []

    def launch(self, submission: Submission) -> LaunchOutcome:
        return self._backend.launch(submission)

    def list(self) -> Listing:
        return self._backend.list()

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        return self._backend.terminate(handle, force)

    def logs(self, handle: str, max_bytes: int) -> str:
        return self._backend.logs(handle, max_bytes)

    def check(self) -> tuple[Finding, ...]:
        return ()

    def render(self, submission: Submission) -> str:
        return self._backend.render(submission)

    def notices(self) -> tuple[Notice, ...]:
        return tuple(self.open)

    def hold(self, notice: Notice) -> EndOutcome:
        self.heard.append("hold")
        assert notice in self.open
        return Accepted()

    def release(self, notice: Notice) -> EndOutcome:
        self.heard.append("release")
        self.open.remove(notice)
        return self._backend.terminate(notice.handle, force=True) if notice.handle else Accepted()


class Site:
    def __init__(self, hub: Any, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        context = Context("m", "p", str(folder / "pool"), CLOCK.now_ms)
        (folder / "pool").mkdir(mode=0o700)
        local = registry.load("local")
        self.platform = Announcing(local.create(local.read({}), context))
        words = (sys.executable, "-m", "worker", "--server", hub.url, "--worker-id", "{worker}", "--pool", "p")
        command = (*words, "--work-dir", str(folder / "work"), "--cpus", "1", "--memory", "64MiB")
        settings = PoolSettings("p", "local", Shape(cpus=1000, memory=2**26), Limits(max_workers=2))
        capabilities = replace(local.capabilities, notices=True)
        pool = ManagedPool(settings, self.platform, capabilities, command, list_ms=0, list_idle_ms=0)
        self.ledger = Ledger.in_folder(folder / "manager", "m", CLOCK)
        self.ledger.acquire("test", 600_000)
        source = HubSource(HubClient(hub.url, token=hub.manager), "m", ("p",), CLOCK.now_ms)
        self.manager = Manager("m", "test", CLOCK, self.ledger, source, [pool], inline=True)

    def job(self, script: str) -> str:
        return str(self.hub.submit("sh", "-c", script, resources={"memory": "1MiB"}))

    def state(self, job: str) -> str:
        self.manager.tick()
        return str(self.hub.get(f"/v1/jobs/{job}")["state"])

    def until(self, job: str, state: str) -> Any:
        until(lambda: self.state(job) == state, lambda: f"{job} {state}: {self.told()}", every=0.1)
        return self.hub.get(f"/v1/jobs/{job}")

    def warn(self, worker: str, in_ms: int | None = None) -> Notice:
        handle = next(one.handle for one in self.platform.list().seen if f"{one.submission}-{one.index}" == worker)
        deadline = None if in_ms is None else CLOCK.now_ms() + in_ms
        notice = Notice(f"n-{len(self.platform.heard)}", handle, "spot interruption", deadline)
        self.platform.open.append(notice)
        return notice

    def told(self) -> list[tuple[str, str, str]]:
        events = self.hub.get("/v1/events?kind=decision&limit=1000")["events"]
        found = [event["data"]["decision"] for event in events]
        return [(one["action"], one["subject"], one["outcome"]) for one in found]

    def close(self) -> None:
        for one in self.platform.list().seen:
            self.platform.terminate(one.handle, force=True)
        until(lambda: all(one.phase == "ended" for one in self.platform.list().seen), "the workers' ends")
        self.ledger.close()


@pytest.fixture
def site(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    site = Site(hub, tmp_path)
    yield site
    site.close()


def test_a_job_that_ends_in_time_ends_as_usual_and_then_its_worker_is_released(site: Site) -> None:
    go = site.folder / "go"
    job = site.job(f"until test -e {go}; do sleep 0.05; done")
    worker = site.until(job, "running")["worker"]
    site.warn(worker)
    until(lambda: site.state(job) and site.platform.heard, "the platform to be asked to wait")
    assert site.platform.heard == ["hold"]
    shown = site.hub.get(f"/v1/workers/{worker}")
    assert (shown["state"], shown["cordon"]["reason"]["code"]) == ("draining", "platform-notice")
    assert site.state(job) == "running"
    go.touch()
    assert site.until(job, "succeeded")["attempt"] == 1
    until(lambda: site.state(job) and not site.platform.open, "the release")
    until(lambda: site.state(job) and {"close", "release"} <= {one[0] for one in site.told()}, "the intent's end")
    assert [one for one in site.told() if one[0] in ("drain", "hold", "release")] == [
        ("drain", worker, "drained"),
        ("hold", worker, "held"),
        ("release", worker, "released"),
    ]
    explained = site.hub.get("/v1/pools/p/explain")["pools"][0]
    drains = [one for one in explained["decisions"] if one["action"] == "drain"]
    assert "the platform is about to end it (spot interruption)" in drains[0]["reason"]["text"]


def test_a_job_that_does_not_is_handed_back_in_time_and_spends_no_retry(site: Site) -> None:
    again = site.folder / "again"
    job = site.job(f"test -e {again} && exit 0; touch {again}; exec sleep 1000")
    first = site.until(job, "running")["worker"]
    until(again.exists, "the job's first words")
    site.warn(first, in_ms=6_000)
    done = site.until(job, "succeeded")
    assert (done["attempt"], done["retries"]) == (2, 0)
    assert done["worker"] != first, "it was replaced before it was gone"
    before = done["attempts"][0]
    assert before["worker"] == first
    assert before["outcome"] == "returned", before
    until(lambda: ("release", first, "released") in site.told(), "the release, and its record")
    assert not site.platform.open
