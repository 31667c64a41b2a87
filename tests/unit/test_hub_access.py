"""What the agents of a launch are told of the hub."""

import json
from pathlib import Path

import pytest

from worker_manager.hub import discovery
from worker_manager.hub_access import HubForAgents, proposal

AWAY = "https://login1.example:8443"


def test_workers_elsewhere_are_told_the_address_that_leads_here_and_those_here_the_short_way() -> None:
    hub = HubForAgents(AWAY, "f" * 64, None, "https://127.0.0.1:8443")
    assert hub.address(elsewhere=True) == (AWAY, "f" * 64)
    assert hub.address(elsewhere=False) == ("https://127.0.0.1:8443", "f" * 64)


def test_a_pin_is_for_tls_only() -> None:
    behind_a_proxy = HubForAgents(AWAY, "f" * 64, None, "http://127.0.0.1:8080")
    assert behind_a_proxy.address(elsewhere=False) == ("http://127.0.0.1:8080", None)


def test_a_hub_elsewhere_has_one_address() -> None:
    assert HubForAgents(AWAY, None).address(elsewhere=False) == (AWAY, None)


@pytest.mark.parametrize(("before", "again"), [(AWAY, True), ("http://127.0.0.1:80", False), ("", False)])
def test_the_address_of_before_is_proposed_again_unless_it_leads_nowhere(
    tmp_path: Path, before: str, again: bool
) -> None:
    (tmp_path / discovery.SETTINGS).write_text(json.dumps({"state_dir": str(tmp_path), "advertise_url": before}))
    proposed = proposal(tmp_path)
    assert (proposed == before) is again
    assert proposed.startswith("https://")
    assert "localhost" not in proposed
    (tmp_path / discovery.SETTINGS).write_text("{")
    assert proposal(tmp_path).endswith(":8443")


def test_a_hub_of_the_version_before_says_one_address(tmp_path: Path) -> None:
    told = {"url": "http://127.0.0.1:1", "pid": 1, "start_time": discovery.start_time(1), "version": "0", "protocol": 1}
    (tmp_path / discovery.FILE).write_text(json.dumps(told))
    found = discovery.recorded(tmp_path)
    assert found is not None
    assert (found.here, found.advertised) == ("http://127.0.0.1:1", False)
