"""Where a hub listens: its own loopback sockets, no connection."""

from pathlib import Path

from worker_manager.hub.ground import listener_for
from worker_manager.hub.settings import HubSettings


def test_a_free_port_is_kept_for_the_next_start(tmp_path: Path) -> None:
    with listener_for(HubSettings(tmp_path)) as first:
        port = first.getsockname()[1]
    with listener_for(HubSettings(tmp_path)) as second:
        assert second.getsockname()[1] == port


def test_when_it_is_taken_meanwhile_another_one_is_used_and_kept(tmp_path: Path) -> None:
    with listener_for(HubSettings(tmp_path)) as first:
        first.listen()
        taken = first.getsockname()[1]
        with listener_for(HubSettings(tmp_path)) as second:
            other = second.getsockname()[1]
    assert other != taken
    with listener_for(HubSettings(tmp_path)) as third:
        assert third.getsockname()[1] == other


def test_a_torn_record_of_the_port_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("4x")
    with listener_for(HubSettings(tmp_path)) as listener:
        assert listener.getsockname()[1] > 0
