"""Signed addresses: good for one blob, one way, one owner and a while; anything else is refused."""

import stat
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from worker_manager.clock import ManualClock
from worker_manager.hub.blobs.grants import FILE, Grant, Grants, May, key_in
from worker_manager.hub.problems import Problem

DIGEST, OTHER = "a" * 64, "b" * 64
MINUTE = 60_000


def granted(grants: Grants, may: May = "GET", owner: str = "ann", until: int = MINUTE) -> dict[str, str]:
    address = urlsplit(grants.address(may, DIGEST, owner, until))
    assert address.path == f"/v1/blobs/{DIGEST}"
    return dict(parse_qsl(address.query))


def refused(grants: Grants, method: str, digest: str, query: dict[str, str]) -> str:
    with pytest.raises(Problem) as found:
        grants.owner(method, digest, Grant.model_validate(query))
    assert found.value.status == 403
    return found.value.code


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0)


@pytest.fixture
def grants(clock: ManualClock) -> Grants:
    return Grants(b"k" * 32, clock)


@pytest.mark.parametrize("owner", ["ann", "a&owner=bob", "ä ö", 'x"y', "…" * 40])
def test_it_speaks_for_the_owner_that_it_names(grants: Grants, owner: str) -> None:
    for may, methods in (("GET", ("GET", "HEAD")), ("PATCH", ("PATCH", "HEAD"))):
        query = granted(grants, may, owner)  # type: ignore[arg-type]
        for method in methods:
            assert grants.owner(method, DIGEST, Grant.model_validate(query)) == owner


def test_what_differs_in_anything_was_not_signed(grants: Grants, clock: ManualClock) -> None:
    query = granted(grants)
    changed: list[dict[str, str]] = [
        {"owner": "bob"},
        {"owner": ""},
        {"until": str(MINUTE + 1)},
        {"may": "PATCH"},
        {"signature": ""},
        {"signature": query["signature"][:-1]},
        {"signature": query["signature"] + "A"},
        {"signature": "ä"},
    ]
    for each in changed:
        assert refused(grants, "GET", DIGEST, {**query, **each}) == "grant-refused", each
    for name in query:
        less = {key: value for key, value in query.items() if key != name}
        assert refused(grants, "GET", DIGEST, less) == "grant-refused", name
    assert refused(grants, "GET", OTHER, query) == "grant-refused"
    assert refused(grants, "PATCH", DIGEST, query) == "grant-refused"
    assert refused(Grants(b"other" * 7, clock), "GET", DIGEST, query) == "grant-refused"


def test_it_is_good_until_its_instant(grants: Grants, clock: ManualClock) -> None:
    query = granted(grants)
    clock.advance(MINUTE - 1)
    assert grants.owner("GET", DIGEST, Grant.model_validate(query)) == "ann"
    clock.advance(1)
    assert refused(grants, "GET", DIGEST, query) == "grant-expired"


def test_a_key_that_cannot_be_kept_is_good_while_the_hub_runs(tmp_path: Path) -> None:
    key = key_in(tmp_path / "nowhere")
    assert len(key) == 32 and key_in(tmp_path / "nowhere") != key


def test_the_key_is_private_kept_and_replaced_when_damaged(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    file = tmp_path / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key_in(tmp_path) == key and len(key) == 32
    file.write_bytes(key[:10])
    again = key_in(tmp_path)
    assert again != key and len(again) == 32 and key_in(tmp_path) == again
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
