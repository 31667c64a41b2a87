"""Workers on other machines: whether they can reach the hub is settled before anything starts, and then they do."""

import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.place import Place, a_place, until
from tests.stand_ins.bare_node import installed

SMALL = ("--cpus", "1", "--memory-mb", "64")


def address_of_this_machine() -> str:
    """One that is not loopback; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    return address


def free_port() -> int:
    with socket.create_server(("", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    for place in a_place(tmp_path):
        place.environment = installed(tmp_path / "site")
        yield place


def nothing_runs(place: Place) -> None:
    assert place.hub() is None
    assert not (place.state_dir / "hub.log").exists()


def test_a_worker_elsewhere_fetches_the_agent_over_tls_and_runs_a_job(place: Place) -> None:
    url = f"https://{address_of_this_machine()}:{free_port()}"
    manager = place.manage("--advertise-url", url, "--min-workers", "0", "bare-node", *SMALL)
    found = place.hub()
    assert found is not None
    assert (found.url, found.advertised) == (url, True)
    assert found.here.startswith("https://127.0.0.1:"), "the manager itself needs no name that leads here"
    job = place.run("submit", "--shell", 'echo "on $(pwd)"').strip()
    until(lambda: json.loads(place.run("get", "job", job, "-o", "json"))["items"][0]["state"] == "succeeded", "the job")
    (folder,) = (place.state_dir / "managers/main/pools/bare-node").glob("*-0")
    (fetched,) = (folder / "home").glob("worker-manager-agent-*/*.pyz")
    script = (folder / "script.sh").read_text()
    assert fetched.stem in script, "the digest that the launch named"
    assert f"--server {url} --ca-fingerprint sha256:" in script
    assert "wmj_" not in script
    again = place.call("--advertise-url", "https://other.example:8443", "--once", "bare-node", *SMALL)
    assert again.returncode == 2
    assert f"is known to workers as {url}, not as https://other.example:8443" in again.stderr
    assert "hub stop" in again.stderr
    place.end(manager)
    assert place.call("down", "--now").returncode in (0, 1)


def test_without_an_address_nothing_is_started_and_one_line_says_what_to_add(place: Place) -> None:
    for words in (("bare-node", *SMALL), ("--once", "bare-node", *SMALL)):
        done = place.call(*words)
        assert done.returncode == 2, done
        (line,) = done.stderr.splitlines()
        said = re.search(r"(--advertise-url https://\S+:8443) \(or use a hub elsewhere: --server URL\)$", line)
        assert said, line
        nothing_runs(place)
    file = place.pools("version: 1\npools:\n  - {name: a, backend: local}\n  - {name: b, backend: bare-node}\n")
    done = place.call("run", "-c", file, "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the pool b (bare-node)" in done.stderr
    nothing_runs(place)


def test_loopback_is_enough_for_who_says_so(place: Place) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = place.call("--advertise-url", url, "--once", "--min-workers", "0", "bare-node", *SMALL)
    assert done.returncode == 0, done
    hub = place.hub()
    assert hub is not None
    assert (hub.url, hub.fingerprint) == (url, None)
    assert place.call("--once", "--min-workers", "0", "bare-node", *SMALL).returncode == 0, "once said, it is known"
    assert place.call("--advertise-url", f"{url}/", "--once", "--min-workers", "0", "local").returncode == 0
    place.run("hub", "stop")


def test_a_hub_by_itself_listens_where_its_address_says(place: Place) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    assert place.run("hub", "start", "--advertise-url", url).strip() == url
    assert place.run("hub", "start", "--advertise-url", url).strip() == url
    other = place.call("hub", "start", "--advertise-url", "https://other.example:8443")
    assert (other.returncode, other.stdout.strip()) == (0, url)
    assert "advertise-url would hold for a new one: hub stop, then again" in other.stderr
    status = place.run("hub", "status")
    assert url in status
    assert "Workers:" in status
    place.run("hub", "stop")
    wrong = place.call("hub", "start", "--advertise-url", "http://login1.example:80")
    assert wrong.returncode == 2
    assert "tokens must not travel in plaintext" in wrong.stderr


def test_a_hub_that_is_on_loopback_already_must_be_started_anew(place: Place) -> None:
    place.run("hub", "start")
    done = place.call("--once", "bare-node", *SMALL)
    assert done.returncode == 2
    assert re.search(r"`worker-manager --state-dir \S+ hub stop` first.* --advertise-url https://", done.stderr)
    place.run("hub", "stop")


def test_looking_is_never_refused(place: Place) -> None:
    dry = place.call("--dry-run", "--min-workers", "1", "bare-node", *SMALL)
    assert dry.returncode == 0, dry
    assert json.loads(dry.stdout)["actions"]
    assert "a manager would not start: workers of the pool bare-node" in dry.stderr
    shown = place.call("render", "bare-node", *SMALL)
    assert shown.returncode == 0
    assert "https://hub.invalid:8443/v1/worker/" in shown.stdout
    assert "hub.invalid:8443 stands for the hub's address" in shown.stderr
    doctor = place.call("doctor", "-o", "json", "bare-node", *SMALL)
    assert doctor.returncode == 1
    (finding,) = [one for one in json.loads(doctor.stdout)["items"] if one["subject"] == "hub, from elsewhere"]
    assert finding["severity"] == "error"
    assert finding["mend"].startswith("add --advertise-url https://")
    nothing_runs(place)


def test_what_is_rendered_is_what_a_launch_sends(place: Place) -> None:
    """The same twice, without a hub and beside one; no secret in it."""
    place.environment["SHOWN"] = "hunter2-hunter2"
    url = f"https://{socket.gethostname()}:8443"
    words = ("--advertise-url", url, "render", "bare-node", *SMALL, "--password", "env:SHOWN", "--count", "5")
    one, two = place.call(*words), place.call(*words)
    assert one.returncode == 0, one
    assert one.stdout == two.stdout
    assert "hunter2" not in one.stdout + one.stderr
    assert "password ***" in one.stdout
    assert "2 workers" in one.stdout
    assert "takes at most 2 workers in one call: this is one of 3" in one.stderr
    assert str(place.state_dir) in one.stdout
    assert not place.state_dir.exists()
    file = place.pools("version: 1\npools:\n  - {name: a, backend: memory}\n  - {name: b, backend: bare-node}\n")
    both = place.call("render", "-c", file)
    assert both.stdout.count("# ---- pool ") == 2
    only = place.call("render", "-c", file, "--pool", "a")
    assert json.loads(only.stdout)["pool"] == "a"
    assert "it has a, b" in place.call("render", "-c", file, "--pool", "c").stderr


def test_a_check_that_falls_over_or_hangs_is_a_finding(place: Place) -> None:
    done = place.call("doctor", "bare-node", "--refuse", "explode", *SMALL)
    assert done.returncode == 1
    assert "the check itself failed: RuntimeError: the platform's library fell over" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_trial_launch_registers_and_leaves_nothing(place: Place) -> None:
    url = f"https://{address_of_this_machine()}:{free_port()}"
    done = place.call("--advertise-url", url, "doctor", "--try-launch", "bare-node", *SMALL)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{place.state_dir.joinpath('hub.log').read_text()}"
    assert re.search(r"bare-node: a trial launch +a worker registered after .*, and was ended again", done.stdout)
    nothing = place.call("--advertise-url", url, "doctor", "--try-launch", "-o", "json", "bare-node", "--refuse", "no")
    assert nothing.returncode == 1
    told = json.loads(nothing.stdout)["items"][-1]
    assert (told["severity"], told["text"]) == ("error", "quota: no")
    assert place.hub() is None, "the hub that was started for it has ended"
    place.empty()


def test_what_a_worker_wrote_that_never_registered_is_told(place: Place) -> None:
    file = place.pools(
        "version: 1\n"
        f"hub: {{advertise-url: 'http://127.0.0.1:{free_port()}'}}\n"
        "pools:\n"
        "  - name: odd\n"
        "    backend: bare-node\n"
        "    min-workers: 1\n"
        "    max-workers: 1\n"
        "    limits: {backoff: 1h, backoff-cap: 1h}\n"
        "    worker: {setup: ['echo the module cuda/99 is not there >&2', 'exit 3']}\n"
    )
    manager = place.manage("run", "-c", file)
    told = until(lambda: _with(place.run("explain", "pool", "odd"), "the last that it wrote"), "its last words")
    assert "the module cuda/99 is not there" in told
    (worker,) = set(re.findall(r"output +(\S+) ", told))
    assert "the module cuda/99 is not there" in place.run("logs", "worker", worker)
    assert place.run("logs", worker, "--tail", "1").count("\n") == 1
    shutil.rmtree(place.state_dir / "managers/main/pools/odd" / worker)
    assert "the module cuda/99 is not there" in place.run("logs", "worker", worker), "kept by the manager"
    place.end(manager)
    place.run("hub", "stop")


def test_what_a_platform_refuses_is_told_in_its_own_words(place: Place) -> None:
    words = ("--refuse", "VcpuLimitExceeded: you have requested more vCPU capacity than your limit of 32")
    url = f"http://127.0.0.1:{free_port()}"
    manager = place.manage("--advertise-url", url, "bare-node", *SMALL, *words)
    told = until(lambda: _with(place.run("explain", "pool", "bare-node"), "backoff after 1 failed launch"), "a backoff")
    assert "refused  " in told
    assert told.count("quota") >= 2
    assert told.count("VcpuLimitExceeded: you have requested more vCPU capacity than your limit of 32") >= 2
    assert "last: VcpuLimitExceeded" in place.run("get", "pools")
    place.end(manager)
    place.run("hub", "stop")


def _with(text: str, part: str) -> str:
    return text if part in text else ""
