"""Which bytes a request asks for."""

import pytest

from worker_manager.hub.blobs.ranges import Unsatisfiable, asked, tag

DIGEST = "d" * 64


def span(text: str, size: int = 100, if_range: str | None = None) -> tuple[int, int] | None:
    headers = {b"range": text.encode("latin-1")}
    if if_range is not None:
        headers[b"if-range"] = if_range.encode()
    return asked(headers, DIGEST, size)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-", (0, 100)),
        ("bytes=0-99", (0, 100)),
        ("bytes=99-99", (99, 100)),
        ("bytes=50-1000", (50, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-100", (0, 100)),
        ("bytes=-101", (0, 100)),
        ("  BYTES =  3 - 4 ", (3, 5)),
        ("bytes=4-3", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=0-1,5-6", None),
        ("bytes=0x1-2", None),
        ("bytes=\xb2-3", None),
        ("bytes=9999999999999999999-", None),
        ("", None),
    ],
)
def test_a_range(text: str, expected: tuple[int, int] | None) -> None:
    assert span(text) == expected


@pytest.mark.parametrize(("text", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)])
def test_a_range_in_which_there_is_nothing(text: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        span(text, size)


def test_no_range_asks_for_all() -> None:
    assert asked({}, DIGEST, 100) is None


def test_a_condition_must_name_this_blob() -> None:
    assert span("bytes=0-0", if_range=tag(DIGEST)) == (0, 1)
    assert span("bytes=0-0", if_range=f" {tag(DIGEST)} ") == (0, 1)
    for other in ("", DIGEST, f"W/{tag(DIGEST)}", tag("e" * 64)):
        assert span("bytes=0-0", if_range=other) is None
    assert span("bytes=500-", if_range=tag("e" * 64)) is None, "a range of another thing is not looked at"
