"""What survives a restart of the manager."""

from pathlib import Path

import pytest

from backends.base import RefusalKind
from backends.ssh.state import LONGEST_MS, Placement, State

AUTH = RefusalKind.AUTH


def test_a_host_is_set_aside_for_ever_longer(tmp_path: Path) -> None:
    state = State(tmp_path)
    pauses = []
    for _ in range(12):
        state.set_aside("a", AUTH, "no", 1_000, 15_000, "list")
        aside = state.host("a").aside
        assert aside is not None
        pauses.append(aside.until - 1_000)
    assert pauses[:3] == [15_000, 30_000, 60_000]
    assert pauses[-1] == LONGEST_MS
    assert State(tmp_path).host("a") == state.host("a"), "also after a restart"
    state.listed("a")
    assert State(tmp_path).host("a").aside is None
    assert State(tmp_path).host("a").listed


@pytest.mark.parametrize(("by", "lasts"), [("list", False), ("call", False), ("host", True)])
def test_that_a_host_answers_does_not_mend_what_it_cannot_do(tmp_path: Path, by: str, lasts: bool) -> None:
    state = State(tmp_path)
    state.set_aside("a", RefusalKind.CAPACITY, "the disk is full", 0, 10, by)
    state.listed("a")
    assert (state.host("a").aside is not None) is lasts
    state.launched_on("a", "boot")
    assert state.host("a").aside is None
    assert state.host("a").boot == "boot"


def test_where_workers_went_is_on_record(tmp_path: Path) -> None:
    placement = Placement(7, {"a": (0, 2), "b": (1,)}, {3: (RefusalKind.CAPACITY, "full")})
    state = State(tmp_path)
    state.place("m-1", placement)
    other = State(tmp_path)
    assert other.placements() == {"m-1": placement}
    assert placement.host_of(2) == "a"
    assert placement.host_of(3) == ""
    state.place("m-1", Placement(8, {"a": (0,)}))
    assert other.placements()["m-1"].at == 8, "what another process wrote is noticed"
    state.forget("m-1")
    assert other.placements() == {}
    state.forget("m-1")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": "x"}', '{"at": 1, "hosts": 5, "left_out": {}}', "\xff"])
def test_records_that_are_spoilt_are_no_absence(tmp_path: Path, text: str) -> None:
    state = State(tmp_path)
    (tmp_path / "launched" / "m-1").write_text(text)
    assert state.placements() == {"m-1": Placement(0)}
    (tmp_path / "hosts.json").write_text(text)
    assert not State(tmp_path).host("a").listed


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.place("m-1", Placement(1))
    state.listed("a")
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
