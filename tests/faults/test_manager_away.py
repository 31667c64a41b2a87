"""The manager is gone for long, or manager and hub: jobs run on, and workers that nobody needs go by themselves."""

import os
import signal

from tests.faults.sites import CALL, Crowd, Site
from tests.place import Place, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings


def started(place: Place, name: str, lease_ms: int = 60_000, **options: str) -> Site:
    discovery.start(HubSettings(place.state_dir, lease_ms=lease_ms, silent_manager_ms=2_000))
    site = Site(place, name, **options)
    site.manage(*CALL)
    until(site.leads, "the manager to lead")
    return site


def test_without_a_manager_jobs_run_on_and_idle_workers_leave(place: Place) -> None:
    """Also what is submitted meanwhile is run by those that are there. The next manager finds everything over."""
    site = started(place, "away")
    crowd = Crowd(place, [site])
    running = site.submit()
    crowd.until_all_run()
    site.kill()

    more = site.submit(3)
    assert place.job(more)["state"] == "queued"
    site.gate.touch()
    place.reaches(running, "succeeded")
    place.reaches(more, "succeeded")
    until(lambda: not site.processes(), lambda: f"the workers to leave: {site.processes()}")
    assert place.workers() == []
    assert len(site.ready_events()) == site.workers
    assert [row[2] for row in site.unresolved()] == ["submitted"] * site.workers, "nobody was there to write it down"

    site.manage(*CALL)
    crowd.until_nothing_is_left()
    assert len(site.ready_events()) == site.workers


def test_without_manager_and_hub_nothing_is_left_and_the_jobs_begin_anew_with_the_hub(place: Place) -> None:
    """A worker that hears nothing for a lease ends its jobs, for they may be given to another; then it goes itself."""
    site = started(place, "alone", lease_ms=3_000, worker="dead-man: 1s", idle="10m")
    crowd = Crowd(place, [site])
    job = site.submit()
    crowd.until_all_run()
    site.kill()
    hub = discovery.recorded(place.state_dir)
    assert hub is not None
    os.kill(hub.pid, signal.SIGKILL)
    until(lambda: discovery.start_time(hub.pid) is None, "the hub to be dead")
    until(lambda: not site.processes(), lambda: f"jobs and workers to end: {site.processes()}")
    assert not place.processes(), "nor is there anything else"

    site.manage(*CALL)
    crowd.until_all_run()
    site.gate.touch()
    place.reaches(job, "succeeded")
    assert {place.job(f"{job}-{task}")["attempt"] for task in range(site.workers)} == {2}
    assert len(site.ready_events()) == 2 * site.workers
    for worker in place.workers():
        place.client().post(f"/v1/workers/{worker['id']}/drain", {})
    crowd.until_nothing_is_left()
