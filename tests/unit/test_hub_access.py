"""What the agents of a launch are told of the hub."""

import json
from pathlib import Path

from worker_manager.config.settings import HubConfig, ManagerSettings, Settings
from worker_manager.hub import discovery
from worker_manager.hub_access import HubForAgents, hub_as_it_was, hub_settings, proposal

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


def settings(state_dir: Path, **own: object) -> Settings:
    return Settings(ManagerSettings("main", state_dir, 5_000), HubConfig(own=own), ())


def test_a_hub_is_started_where_the_one_before_was(tmp_path: Path) -> None:
    before = hub_settings(settings(tmp_path, advertise_url=AWAY))
    assert (before.listen, before.tls) == ("0.0.0.0:8443", "own")
    assert hub_settings(settings(tmp_path)).listen == "127.0.0.1:0"
    (tmp_path / discovery.SETTINGS).write_text(before.to_json())
    again = hub_settings(settings(tmp_path))
    assert (again.listen, again.tls, again.advertise_url) == (before.listen, before.tls, AWAY)
    assert hub_settings(settings(tmp_path, listen="127.0.0.1:0")).advertise_url == "", "somebody says otherwise"
    (tmp_path / discovery.SETTINGS).write_text("{")
    assert hub_settings(settings(tmp_path)).listen == "127.0.0.1:0"


def test_one_that_died_is_started_again_under_its_address_whoever_had_started_it(tmp_path: Path) -> None:
    hub = discovery.RunningHub(AWAY, 1, 1, "0", 1, local_url="https://127.0.0.1:8443", advertised=True)
    assert hub_as_it_was(settings(tmp_path), hub).advertise_url == AWAY
    assert hub_as_it_was(settings(tmp_path, advertise_url=AWAY, listen="10.0.0.1:1"), hub).listen == "10.0.0.1:1"
    plain = discovery.RunningHub("http://127.0.0.1:1", 1, 1, "0", 1)
    assert hub_as_it_was(settings(tmp_path), plain).listen == "127.0.0.1:0"
    assert hub_as_it_was(settings(tmp_path), None).listen == "127.0.0.1:0"


def test_one_that_died_still_signs_for_the_storages_that_jobs_name(tmp_path: Path) -> None:
    before = hub_settings(settings(tmp_path), storages=("s3://bucket/a",), blob_limit=5)
    (tmp_path / discovery.SETTINGS).write_text(before.to_json())
    again = hub_as_it_was(settings(tmp_path), None)
    assert (again.storages, again.blob_limit) == (("s3://bucket/a",), 5)
    assert hub_as_it_was(settings(tmp_path, storages=("gs://other",)), None).storages == ("gs://other",)
    assert hub_settings(settings(tmp_path)).storages == (), "one that is started anew is as it is told"


def test_what_is_proposed_is_no_loopback_address() -> None:
    assert proposal().startswith("https://")
    assert proposal().endswith(":8443")
    assert "localhost" not in proposal()


def test_a_hub_of_the_version_before_says_one_address(tmp_path: Path) -> None:
    told = {"url": "http://127.0.0.1:1", "pid": 1, "start_time": discovery.start_time(1), "version": "0", "protocol": 1}
    (tmp_path / discovery.FILE).write_text(json.dumps(told))
    found = discovery.recorded(tmp_path)
    assert found is not None
    assert (found.here, found.advertised) == ("http://127.0.0.1:1", False)
