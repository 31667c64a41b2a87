"""Two managers for one ledger: one acts. A leader that slept past its lease, wherever it fell asleep, harms nothing."""

import os
import signal
import subprocess
from pathlib import Path

from tests.faults.sites import CALL, Crowd, Site
from tests.place import Place, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings

LEASE = ("--lease-ms", "1500")
ASLEEP = ("noted", "announced", "intents-written", "before-call", "after-call", "outcome-written")
HELD = 75


def test_of_two_that_start_together_one_leads_and_the_other_says_who_does(place: Place) -> None:
    site = Site(place, "both")
    config = str(site.write_config())
    first, second = (place.start("run", "-c", config) for _ in range(2))
    until(lambda: first.poll() is not None or second.poll() is not None, "one of them to give way")
    winner, loser = (first, second) if second.poll() is not None else (second, first)
    assert loser.returncode == HELD, place.log.read_text()
    assert "manager 'both' is led by" in place.log.read_text() or "is taking the lease" in place.log.read_text()

    until(place.leads, "the other one to lead")
    assert "is led by" in place.run("--once", "run", "-c", config, code=HELD)
    assert winner.poll() is None
    job = site.submit()
    crowd = Crowd(place, [site])
    crowd.until_all_run()
    site.gate.touch()
    place.reaches(job, "succeeded")
    assert len(site.ready_events()) == site.workers


def test_one_that_stands_by_leads_as_soon_as_the_leader_is_killed(place: Place) -> None:
    """The lease of the dead would last for a minute: its lock tells that it is dead."""
    discovery.start(HubSettings(place.state_dir))
    site = Site(place, "next")
    crowd = Crowd(place, [site])
    long = ("--lease-ms", "60000")
    leader = site.manage(*CALL, *long)
    until(site.leads, "the first to lead")
    job = site.submit()
    crowd.until_all_run()
    before = crowd.admitted()
    site.manage(*CALL, "--stand-by", "--lease-ms", "3000")
    until(lambda: site.said("this one stands by") > 0, "the second to stand by")

    leader.kill()
    until(lambda: site.said("This manager leads") == 2, "the second to lead", seconds=30)
    until(lambda: crowd.admitted() == before, "its workers to be as they were")
    site.gate.touch()
    place.reaches(job, "succeeded")
    crowd.until_nothing_is_left()
    assert len(site.ready_events()) == site.workers


def is_stopped(process: "subprocess.Popen[bytes]") -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def refused(site: Site) -> list[str]:
    """Workers that read of their burial when they wanted to register."""
    pools = site.place.state_dir / "managers" / site.name / "pools"
    return [str(log) for log in pools.glob("*/*/*/worker.log") if "its join token is revoked" in log.read_text()]


def test_a_leader_that_wakes_up_after_its_lease_launches_nothing_and_ends(place: Place) -> None:
    discovery.start(HubSettings(place.state_dir))
    sites = [Site(place, step) for step in ASLEEP]
    crowd = Crowd(place, sites)
    jobs = {site.name: site.submit() for site in sites}
    sleepers = [site.manage(*CALL, *LEASE, "--stop", site.name) for site in sites]
    until(lambda: all(map(is_stopped, sleepers)), lambda: f"all to fall asleep: {crowd.told()}")
    for site in sites:
        site.manage(*CALL, *LEASE, "--stand-by")
    crowd.until_all_run()

    for sleeper in sleepers:
        os.kill(sleeper.pid, signal.SIGCONT)
    until(lambda: all(sleeper.poll() is not None for sleeper in sleepers), "those that woke up to end")
    assert [sleeper.returncode for sleeper in sleepers] == [HELD] * len(sleepers), crowd.told()
    for site in sites:
        assert site.said("(epoch 1 is over)") == 1, crowd.told()
    # What it called too late did begin, and finds that its token is revoked.
    late = sites[ASLEEP.index("before-call")]
    until(lambda: len(refused(late)) == late.workers, lambda: f"the late workers to be refused: {refused(late)}")
    for site in sites:
        site.gate.touch()
    until(lambda: {place.job(job)["state"] for job in jobs.values()} == {"succeeded"}, crowd.told, every=0.2)
    crowd.until_nothing_is_left()
    for site in sites:
        assert len(site.ready_events()) == site.workers, crowd.told()
