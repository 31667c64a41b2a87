import pytest

from tests.unit.cli.house import FakeHub, House
from worker_manager.cli.logs import last_lines
from worker_manager.errors import SourceUnavailable

PATH = ("GET", "/v1/jobs/j1/logs")


def piece(body: bytes, following: int, complete: bool) -> tuple[bytes, dict[str, str]]:
    return body, {"X-Next-Offset": str(following), "X-Complete": str(complete).lower()}


def test_all_pieces_are_printed_until_there_is_no_more() -> None:
    house = House(FakeHub({PATH: [piece(b"one\n", 4, False), piece(b"two\n", 8, False), piece(b"", 8, False)]}))
    assert house.ok("logs", "j1") == "one\ntwo\n"
    assert [asked.params["offset"] for asked in house.hub.asked] == [0, 4, 8]
    assert all("wait_ms" not in asked.params for asked in house.hub.asked)


def test_following_waits_until_the_job_has_ended_and_over_a_hub_that_restarts() -> None:
    pieces = [piece(b"one\n", 4, False), piece(b"", 4, False), SourceUnavailable("away"), piece(b"two\n", 8, True)]
    house = House(FakeHub({PATH: pieces}))
    assert house.ok("logs", "-f", "j1") == "one\ntwo\n"
    assert [asked.params["offset"] for asked in house.hub.asked] == [0, 4, 4, 4]
    assert house.hub.asked[0].params["wait_ms"] == 20_000
    assert house.slept == [1.0]


def test_without_following_an_absent_hub_is_an_error() -> None:
    assert "away" in House(FakeHub({PATH: SourceUnavailable("away")})).refused("logs", "j1")


def test_the_tail_goes_on_from_its_end() -> None:
    house = House(FakeHub({PATH: [piece(b"x\ny\nz\n", 100, False), piece(b"new\n", 104, True)]}))
    assert house.ok("logs", "-f", "--tail", "2", "j1") == "y\nz\nnew\n"
    assert house.hub.asked[1].params["offset"] == 100


@pytest.mark.parametrize(("count", "kept"), [(0, b""), (1, b"c"), (2, b"b\nc"), (9, b"a\nb\nc")])
def test_last_lines(count: int, kept: bytes) -> None:
    assert last_lines(b"a\nb\nc", count) == kept
