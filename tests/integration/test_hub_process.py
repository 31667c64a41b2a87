"""The hub as a process: found, started once, stopped, killed, and with TLS."""

import os
import signal
import ssl
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings


def deadline(seconds: float = 20) -> float:
    return time.monotonic() + seconds


def test_a_started_hub_is_found_private_and_of_its_own_session(hub: Any) -> None:
    assert discovery.find(hub.state_dir) == hub.found
    assert os.getsid(hub.pid) == hub.pid
    assert stat.S_IMODE(hub.state_dir.stat().st_mode) == 0o700
    for name in ("operator", "manager"):
        path = discovery.token_file(hub.state_dir, name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    everything = "".join(Path(f"/proc/{hub.pid}/{part}").read_text() for part in ("cmdline", "environ"))
    everything += discovery.tail(hub.state_dir)
    assert hub.operator not in everything and hub.manager not in everything


def test_stopping_ends_the_process_and_takes_the_discovery_file_away(hub: Any) -> None:
    assert discovery.stop(hub.state_dir) is True
    assert discovery.start_time(hub.pid) is None
    assert not (hub.state_dir / "hub.json").exists()
    assert discovery.stop(hub.state_dir) is False


def test_two_hubs_never_share_a_state_directory(hub: Any) -> None:
    argv = [sys.executable, "-m", "worker_manager.hub", str(hub.state_dir)]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=discovery._environment())
    assert second.returncode == 75
    assert "another hub" in second.stderr
    assert discovery.find(hub.state_dir) == hub.found
    again, started = discovery.find_or_start(hub.settings)
    assert (again, started) == (hub.found, False)


def test_many_who_start_at_once_get_one_hub(tmp_path: Any) -> None:
    settings = HubSettings(tmp_path / "hub")
    try:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: discovery.find_or_start(settings, 60)[0], range(3)))
        assert len({each.pid for each in found}) == 1
    finally:
        discovery.stop(settings.state_dir)


def test_a_hub_that_cannot_start_shows_the_end_of_its_log(tmp_path: Any) -> None:
    settings = HubSettings(tmp_path / "hub", listen="127.0.0.1:99999")
    with pytest.raises(discovery.HubDidNotStart, match=r"exit code 2.*\n.*listen: 127\.0\.0\.1:99999"):
        discovery.start(settings)


def test_a_restarted_hub_remembers_jobs_and_tokens(hub: Any) -> None:
    job = hub.submit("true", name="kept")
    before = hub.operator
    hub.restart()
    assert hub.operator == before
    assert hub.get(f"/v1/jobs/{job}")["name"] == "kept"


def test_a_killed_hub_is_not_found_and_another_takes_its_place(hub: Any) -> None:
    job = hub.submit("true")
    os.kill(hub.pid, signal.SIGKILL)
    until = deadline()
    while discovery.start_time(hub.pid) is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert discovery.find(hub.state_dir) is None
    hub.found = discovery.start(hub.settings)
    assert hub.get(f"/v1/jobs/{job}")["state"] == "queued"


def test_tls_with_the_own_authority_is_verified_and_pinned(start_hub: Any) -> None:
    live = start_hub(tls="own")
    assert live.url.startswith("https://")
    assert requests.get(live.url + "/healthz", verify=live.found.ca, timeout=10).status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(live.url + "/healthz", timeout=10)
    address = urlsplit(live.url)
    import hashlib

    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((address.hostname, address.port)))
    assert hashlib.sha256(shown).hexdigest() == live.found.fingerprint


def test_files_that_would_go_before_their_jobs_come_are_refused(tmp_path: Any) -> None:
    with pytest.raises(discovery.HubDidNotStart, match=r"exit code 2.*\n.*blob-keep: 5 ms is too short"):
        discovery.start(HubSettings(tmp_path / "hub", blob_keep_ms=5))


def test_plaintext_off_loopback_is_refused(tmp_path: Any) -> None:
    settings = HubSettings(tmp_path / "hub", listen="0.0.0.0:0", tls="off")
    with pytest.raises(discovery.HubDidNotStart, match="not loopback"):
        discovery.start(settings)


def test_a_client_that_only_keeps_its_tls_connection_does_not_hold_up_the_end(start_hub: Any) -> None:
    hub = start_hub(tls="own")
    with requests.Session() as session:
        assert session.get(f"{hub.url}/healthz", verify=hub.found.ca, timeout=30).status_code == 200
        began = time.monotonic()
        assert discovery.stop(hub.state_dir) is True
        assert time.monotonic() - began < 8, "it waited for the whole grace of requests in progress"
