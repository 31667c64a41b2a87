from tests.unit.cli.house import FakeHub, House, lines

INFO = {
    "version": "1",
    "protocol": 1,
    "generation": 1,
    "jobs": {"queued": 2, "running": 0},
    "workers": {},
    "now_ms": 5,
}


def test_the_state_of_a_hub_in_a_few_lines() -> None:
    hub = FakeHub({("GET", "/v1/info"): INFO})
    hub.url = "https://h:1"
    told = House(hub).ok("--server", "https://h:1", "hub", "status")
    assert lines(told) == ["Hub:     https://h:1", "Version: 1, protocol 1", "Jobs:    2 queued", "Workers: none"]


def test_what_belongs_to_a_hub_of_our_own_is_not_done_to_one_elsewhere() -> None:
    for words in (("stop",), ("backup", "/b")):
        assert "a hub elsewhere is" in House().refused("--server", "https://h:1", "hub", *words)
    assert "--server names a hub elsewhere" in House().refused("--server", "https://h:1", "hub", "start")
