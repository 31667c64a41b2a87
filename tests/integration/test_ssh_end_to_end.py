"""From a queued job to a worker on a host and back to none: real manager, hub and agent, a real sshd."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.place import Place, a_place, alive, until
from tests.stand_ins.ssh import SshSite, free_port, pids, read


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SshSite]:
    needs.sshd()
    site = SshSite(tmp_path / "site")
    yield site
    site.close()


@pytest.fixture
def place(tmp_path: Path, site: SshSite) -> Iterator[Place]:
    yield from a_place(tmp_path)


def words(site: SshSite, hosts: str, *more: str) -> list[str]:
    said = ["--advertise-url", f"http://127.0.0.1:{free_port()}", *more, "ssh", "--hosts", hosts]
    for name, value in site.options.items():
        said += [f"--{name}", str(value)]
    return [*said, "--retry", "1s", "--keep-connection", "5s", "--memory-mb", "256"]


def attendants(site: SshSite) -> list[int]:
    """Whatever runs on the hosts that is not sshd's."""
    mark = os.fsencode(f"WM_WORKER_DIR={site.root}")
    return [pid for pid in pids() if mark in read(pid, "environ") and alive(pid)]


def test_a_job_brings_a_worker_up_and_it_goes_again(place: Place, site: SshSite) -> None:
    place.manage(*words(site, "alpha:2", "--min-workers", "0", "--worker-idle-seconds", "1"))
    job = place.submit("--shell", "echo ran; env | grep -c wmj_")
    assert place.reaches(job, "succeeded", "failed")["state"] == "failed", "grep finds no token"
    assert place.run("logs", job) == "ran\n0\n"
    [agent] = site.hosts["alpha"].home.glob(".worker-manager/agents/*.pyz")
    assert agent.stat().st_mode & 0o777 == 0o600
    until(lambda: not place.workers(), "the idle worker to be gone")
    until(lambda: not attendants(site), "nothing to be left on the host")
    records = list(site.hosts["alpha"].home.glob(".worker-manager/alpha/*/*/0"))
    assert len(records) == 1
    until(lambda: not (records[0] / "join-token").exists(), "the join token to be gone")
    assert "wmj_" not in (records[0] / "worker.log").read_text()


def test_workers_are_spread_and_their_manager_finds_them_again(place: Place, site: SshSite) -> None:
    said = words(site, "alpha:2,beta:2", "--min-workers", "3", "--max-workers", "3")
    first = place.manage(*said)
    until(lambda: len(place.workers("ready")) == 3, "three workers")
    ready = {one["id"] for one in place.workers("ready")}
    assert all(list(host.home.glob(".worker-manager/*/*/*/[0-9]")) for host in site.hosts.values()), "on both hosts"
    place.end(first, signal.SIGKILL)
    place.manage(*said)
    job = place.submit("--shell", "true")
    place.reaches(job, "succeeded")
    assert {one["id"] for one in place.workers("ready")} == ready


def test_a_worker_that_is_killed_is_replaced_and_its_job_runs_again(place: Place, site: SshSite) -> None:
    place.manage(*words(site, "alpha:1", "--min-workers", "1", "--max-workers", "1"))
    until(lambda: place.workers("ready"), "a worker")
    [worker] = place.workers("ready")
    begun = site.root / "begun"
    job = place.submit("--shell", f"[ ! -e {begun} ] || exit 0; touch {begun}; sleep 600")
    until(begun.exists, "the job to run")
    mark = f"WM_WORKER={worker['id']}\0".encode()
    for pid in attendants(site):
        if mark in read(pid, "environ") and alive(pid):
            os.kill(pid, signal.SIGKILL)
    place.reaches(job, "succeeded")
    assert [one["id"] for one in place.workers("ready")] != [worker["id"]]


def test_a_host_that_is_down_is_set_aside_and_explained(place: Place, site: SshSite) -> None:
    site.hosts["alpha"].stop()
    place.manage(*words(site, "alpha:2,beta:2", "--min-workers", "2", "--max-workers", "2"))
    until(lambda: len(place.workers("ready")) == 2, "two workers, both on beta")
    assert not list(site.hosts["alpha"].home.glob(".worker-manager/alpha/*/*/[0-9]"))
    site.hosts["beta"].freeze()
    until(lambda: "cannot be read" in place.run("explain", "pool/ssh"), "the reason")
    site.hosts["beta"].thaw()
    site.hosts["alpha"].start()
    until(lambda: "cannot be read" not in place.run("explain", "pool/ssh"), "both hosts again")
    assert len(place.workers("ready")) == 2, "nothing was launched in their stead"
