"""kill -9 of the manager at every step of launches and ends: the next manager makes it whole and launches nothing
twice."""

import signal

import pytest

from tests import needs
from tests.faults.sites import CALL, Crowd, Site
from tests.place import Place, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings

ONE_EACH = (*CALL, "--batch", "1")  # two submissions of one worker: two announcements, two calls
LAUNCH = (
    ("noted", 1),
    ("announced", 1),
    ("announced", 2),
    ("intents-written", 1),
    ("before-call", 1),
    ("after-call", 1),
    ("before-call", 2),
    ("after-call", 2),
    ("outcome-written", 1),
)
END = (("ended", 1), ("buried", 1), ("closed", 1))


def start_hub(place: Place) -> None:
    discovery.start(HubSettings(place.state_dir))


def until_killed(sites: list[Site]) -> None:
    until(
        lambda: all(site.dead() for site in sites),
        lambda: f"the deaths of {[site.name for site in sites if not site.dead()]}",
        every=0.1,
    )
    assert {site.name: site.manager.returncode for site in sites} == {site.name: -signal.SIGKILL for site in sites}


def until_all_is_over(crowd: Crowd, jobs: dict[str, str]) -> None:
    """The jobs ran to their end, the workers went, nothing is left."""
    for site in crowd.sites:
        site.gate.touch()
    until(
        lambda: crowd.admitted() and {crowd.place.job(job)["state"] for job in jobs.values()} == {"succeeded"},
        lambda: f"the jobs to succeed: {crowd.told()}",
        every=0.2,
    )
    crowd.until_nothing_is_left()


def test_killed_at_any_step_of_a_launch_it_ends_with_the_right_workers(place: Place) -> None:
    start_hub(place)
    sites = [Site(place, f"{step}-{number}") for step, number in LAUNCH]
    jobs = {site.name: site.submit() for site in sites}
    for site, (step, number) in zip(sites, LAUNCH, strict=True):
        site.manage(*ONE_EACH, "--die", f"{step}:{number}")
    until_killed(sites)

    crowd = Crowd(place, sites)
    for site in sites:
        site.manage(*ONE_EACH)
    crowd.until_all_run()
    until_all_is_over(crowd, jobs)
    for site in sites:
        admitted = site.ready_events()
        assert len(admitted) == len(set(admitted)) == site.workers, (site.name, admitted, crowd.told())


def test_killed_while_it_ends_a_worker_it_closes_it_the_next_time(place: Place) -> None:
    start_hub(place)
    sites = [Site(place, f"{step}-{number}") for step, number in END]
    jobs = {site.name: site.submit() for site in sites}
    for site, (step, number) in zip(sites, END, strict=True):
        site.manage(*CALL, "--die", f"{step}:{number}")
    crowd = Crowd(place, sites)
    crowd.until_all_run()
    for workers in crowd.admitted().values():
        place.client().request("DELETE", f"/v1/workers/{workers[0]}", params={"force": "true"})
    until_killed(sites)

    for site in sites:
        site.manage(*CALL)
    crowd.until_all_run()
    until_all_is_over(crowd, jobs)
    for site in sites:
        assert len(site.ready_events()) == site.workers + 1, "one in place of the one that was deleted"


# By number: the 7th sync ends the making of a ledger, then follow lease, note, intents and outcome of a launch.
SAMPLE = [("fdatasync", number) for number in (5, 7, 8, 9, 10, 11)] + [("pwrite64", number) for number in (30, 70)]
SWEEP = [("fdatasync", number) for number in range(1, 21)] + [("pwrite64", number) for number in range(1, 111)]


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(SAMPLE, id="sample"),
        *(pytest.param(SWEEP[n : n + 10], id=f"sweep {n}", marks=pytest.mark.soak) for n in range(0, len(SWEEP), 10)),
    ],
)
def test_killed_at_a_write_of_its_ledger_it_ends_with_the_right_workers(
    place: Place, points: list[tuple[str, int]]
) -> None:
    """Before the write is made. Who does not come to it before its jobs run is killed then."""
    strace = needs.strace()
    start_hub(place)
    sites = [Site(place, f"{call}-{number}") for call, number in points]
    jobs = {site.name: site.submit() for site in sites}
    for site, (call, number) in zip(sites, points, strict=True):
        inject = f"inject={call}:signal=SIGKILL:when={number}"
        detached = [strace, "-f", "-qq", "--detach-on=execve", "-o", "/dev/null"]  # workers are not traced
        site.manage(*CALL, before=[*detached, "-e", inject])
    crowd = Crowd(place, sites)
    until(
        lambda: all(site.dead() or crowd.running()[site.name] == site.workers for site in sites),
        lambda: f"deaths, or jobs that run: {crowd.told()}",
        every=0.2,
    )
    for site in sites:
        site.kill()

    for site in sites:
        site.manage(*CALL)
    crowd.until_all_run()
    until_all_is_over(crowd, jobs)
    for site in sites:
        assert len(site.ready_events()) == site.workers, crowd.told()
