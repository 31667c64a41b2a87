"""A hub or a backend that answers with nonsense: what was not understood launches nothing and ends nothing."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.lying_proxy import Lie, LyingProxy
from tests.faults.sites import CALL, Crowd, Site
from tests.place import Place, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings

FULL = {"version": 1, "now_ms": 1, "groups": [], "workers": [], "commands": []}
GROUP = {"key": "g", "asks": {"cpus": 1}, "count": 3, "oldest_ms": 1}


def as_json(told: Any) -> bytes:
    return json.dumps(told).encode()


LIES = {
    "500": Lie(500, as_json({"status": 500, "code": "internal", "detail": "the hub made a mistake"})),
    "502 as a page": Lie(502, b"<html>Bad Gateway</html>", "text/html"),
    "a page": Lie(200, b"<html>Please log in</html>", "text/html"),
    "broken off": Lie(200, as_json(FULL)[:-20], missing=20),
    "null": Lie(200, b"null"),
    "an empty object": Lie(200, b"{}"),
    "a count that is none": Lie(200, as_json({**FULL, "groups": [{**GROUP, "count": "many"}]})),
    "workers without a shape": Lie(200, as_json({**FULL, "workers": [{"id": "w", "state": "ready"}]})),
    "not a number": Lie(200, as_json({**FULL, "groups": [{**GROUP, "count": float("nan")}]})),
}


@pytest.fixture
def hub(place: Place) -> discovery.RunningHub:
    return discovery.start(HubSettings(place.state_dir))


@pytest.fixture
def proxy(hub: discovery.RunningHub) -> Iterator[LyingProxy]:
    made = LyingProxy(hub.url)
    yield made
    made.close()


def behind(proxy: LyingProxy, place: Place) -> str:
    token = discovery.token_file(place.state_dir, "manager")
    return f"hub: {{server: '{proxy.url}', token-file: '{token}'}}"


def reason(site: Site) -> str:
    """What the manager says of its pool, straight from the hub."""
    pools = site.place.ask(f"/v1/pools/{site.name}/explain").get("pools", [])
    return " ".join(why["code"] for pool in pools for why in pool["reasons"])


def launched(site: Site) -> list[str]:
    """Every submission that the backend was ever called for."""
    folder = site.place.state_dir / "managers" / site.name / "pools" / site.name
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def test_nothing_is_decided_on_an_answer_that_makes_no_sense(place: Place, proxy: LyingProxy) -> None:
    """A worker is busy meanwhile, and stays so; each new job gets its worker when the hub speaks sense again."""
    site = Site(place, "sense", workers=len(LIES) + 1, hub=behind(proxy, place))
    site.manage(*CALL)
    jobs = [site.submit(1)]
    until(lambda: place.job(jobs[0])["state"] == "running", "a worker that is busy")
    for name, lie in LIES.items():
        before = launched(site)
        with proxy.lying("/sync", lie):
            jobs.append(site.submit(1))
            until(lambda: reason(site) == "backlog-unreadable", f"no plan from {name}: {site.log.read_text()}")
            until(lambda: proxy.told > 1, f"{name} to be told again")
            assert launched(site) == before, name
            assert place.job(jobs[-1])["state"] == "queued", name
        until(lambda: place.job(jobs[-1])["state"] == "running", f"the worker after {name}: {site.log.read_text()}")
    assert len(launched(site)) == len(site.ready_events()) == len(jobs)
    site.gate.touch()
    until(lambda: {place.job(job)["state"] for job in jobs} == {"succeeded"}, "the jobs", every=0.2)
    assert {place.job(f"{job}-0")["attempt"] for job in jobs} == {1}


def test_no_backend_is_called_for_an_announcement_of_which_nobody_knows_what_became(
    place: Place, hub: discovery.RunningHub
) -> None:
    """The hub heard it, its answer was lost: what was announced is taken back, and announced anew."""
    lies = {"failed": LIES["500"], "page": LIES["a page"], "broken": LIES["broken off"]}
    proxies = {name: LyingProxy(hub.url) for name in lies}
    sites = [Site(place, name, hub=behind(proxies[name], place)) for name in lies]
    crowd = Crowd(place, sites)
    for site in sites:
        site.manage(*CALL)
    with ExitStack() as stack:
        for name, lie in lies.items():
            stack.enter_context(proxies[name].lying("/launches", lie))
        jobs = [site.submit() for site in sites]
        for proxy in proxies.values():
            until(lambda: proxy.told > 4, lambda: f"lies to be told: {crowd.told()}")  # noqa: B023  # called at once
        assert [launched(site) for site in sites] == [[], [], []]
        assert not any(crowd.admitted().values())
    crowd.until_all_run()
    for site, job in zip(sites, jobs, strict=True):
        site.gate.touch()
        place.reaches(job, "succeeded")
    crowd.until_nothing_is_left()
    for site in sites:
        assert len(site.ready_events()) == site.workers
    for proxy in proxies.values():
        proxy.close()


def test_nothing_is_launched_while_a_backend_lists_nonsense(place: Place, hub: discovery.RunningHub) -> None:
    sites = [Site(place, lie) for lie in ("raises", "nonsense", "nothing")]
    crowd = Crowd(place, sites)
    lies = {site.name: Path(place.state_dir.parent / f"{site.name}.lie") for site in sites}
    jobs = {site.name: [site.submit(1)] for site in sites}
    for site in sites:
        site.manage(*CALL, "--lies", str(lies[site.name]))
    until(lambda: set(crowd.running().values()) == {1}, lambda: f"a worker for each: {crowd.told()}", every=0.1)
    before = {site.name: launched(site) for site in sites}
    for name, lie in lies.items():
        lie.write_text(name)
    until(lambda: all(lie.with_suffix(".told").exists() for lie in lies.values()), "each lie to be told")
    for site in sites:
        jobs[site.name].append(site.submit(1))
    until(
        lambda: all("backend-unreadable" in reason(site) for site in sites),
        lambda: f"no plans: {[reason(site) for site in sites]}",
        every=0.1,
    )
    assert {site.name: launched(site) for site in sites} == before
    assert set(crowd.running().values()) == {1}, "those that are busy are left alone"
    for lie in lies.values():
        lie.unlink()
    crowd.until_all_run()
    for site in sites:
        site.gate.touch()
        for job in jobs[site.name]:
            place.reaches(job, "succeeded")
            assert place.job(f"{job}-0")["attempt"] == 1
    crowd.until_nothing_is_left()
    for site in sites:
        assert len(site.ready_events()) == site.workers
