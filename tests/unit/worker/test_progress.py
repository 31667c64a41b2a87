"""What a job says of its progress in its output, however it is torn, and what is told of it."""

import re
from typing import Any

import pytest

from worker.progress import LONGEST_LINE, LONGEST_TEXT, Scanner, TooSlow, is_sensible, may_say, of_match, read
from worker.progresstale import AGAIN_MS, BETWEEN_MS, ProgressTale


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("40", (40, 100, "")),
        ("40 training epoch 3", (40, 100, "training epoch 3")),
        ("40% e", (40, 100, "e")),
        ("40.5", (405, 1000, "")),
        ("33.33333", (33333, 100_000, "")),
        ("100", (100, 100, "")),
        ("3/10 files", (3, 10, "files")),
        ("0.5/1", (5, 10, "")),
        ("3/? files", (3, None, "files")),
        ("  7   two ", (7, 100, "two")),
        ("101", None),
        ("11/10", None),
        ("1/0", None),
        ("-1", None),
        ("1e3", None),
        ("², 3", None),
        ("4/", None),
        ("40.", None),
        ("done", None),
        ("", None),
        ("9" * 16, None),
    ],
)
def test_what_stands_behind_the_mark(line: str, row: Any) -> None:
    assert read(line) == row


def test_words_for_people_are_short_and_harmless() -> None:
    found = read("1 " + "\x1b[31m" + "x" * 1000)
    assert found is not None
    assert found[2].startswith("[31m") and len(found[2]) <= LONGEST_TEXT


def said(*parts: bytes, pattern: str = "") -> Any:
    scanner = Scanner(pattern)
    for part in parts:
        scanner.saw(part)
    return scanner.newest


def test_the_newest_line_counts() -> None:
    assert said(b"begin\n@progress 1\nmore\n@progress 2 x\r\nend\n") == (2, 100, "x")


def test_one_that_makes_no_sense_does_not_hide_the_one_before() -> None:
    assert said(b"@progress 1\n@progress soon\n") == (1, 100, "")


def test_only_at_the_beginning_of_a_line() -> None:
    assert said(b"echo @progress 40\n") is None
    assert said(b"drawn\r@progress 40\r") == (40, 100, "")


def test_a_line_may_come_byte_by_byte() -> None:
    text = b"x\n@progress 40 a\nrest"
    scanner: Scanner | None = None
    for at in range(len(text)):
        byte = text[at : at + 1]
        if scanner is not None or may_say(byte):
            scanner = scanner or Scanner()
            scanner.saw(byte)
    assert scanner is not None and scanner.newest == (40, 100, "a")


def test_a_line_without_its_end_waits_for_it() -> None:
    scanner = Scanner()
    assert not scanner.saw(b"@progress 4")
    assert scanner.saw(b"0\n")
    assert scanner.newest == (40, 100, "")
    assert not scanner.saw(b"@progress 40\n"), "that is no news"


def test_a_line_that_never_ends_is_not_kept() -> None:
    scanner = Scanner()
    scanner.saw(b"@progress 4")
    scanner.saw(b"0" * LONGEST_LINE)
    scanner.saw(b"\n@progress 5\n")
    assert scanner.newest == (5, 100, "")


def test_plain_output_is_no_reason_to_look_closer() -> None:
    assert not may_say(b"hello\n")
    assert not may_say(b"hello")
    assert may_say(b"hello\n@prog")
    assert may_say(b"x\n@progress 4\n")


@pytest.mark.parametrize(
    ("pattern", "line", "row"),
    [
        (r"(\d+)%", "loading: 37%|####", (37, 100, "")),
        (r"step (\d+) of (\d+)", "step 3 of 20", (3, 20, "")),
        (r"(?P<percent>[\d.]+) %", "at 12.5 % now", (125, 1000, "")),
        (r"(?P<done>\d+)/(?P<whole>\d+) (?P<text>\w+)", "7/8 shards", (7, 8, "shards")),
        (r"(?P<done>\d+) images", "500 images", (500, None, "")),
        (r"(\d+)%", "nothing", None),
        (r"(\d+)%", "@progress 40", None),
        (r"(\w+)!", "word!", None),
    ],
)
def test_a_pattern_of_ones_own(pattern: str, line: str, row: Any) -> None:
    assert said(line.encode() + b"\n", pattern=pattern) == row


def test_a_pattern_sees_lines_that_are_drawn_over() -> None:
    assert said(b"10%\r20%\r", b"30", b"%\r40", pattern=r"(\d+)%") == (30, 100, "")


def test_a_pattern_with_an_empty_group() -> None:
    match = re.search(r"(\d+)?x", "x")
    assert of_match(match) is None


def test_a_pattern_that_takes_for_ever_is_given_up() -> None:
    with pytest.raises(TooSlow):
        Scanner(r"(a+)+b").saw(b"a" * 400 + b"\n")
    assert said(b"1%\n", pattern=r"(\d+)%") == (1, 100, ""), "and nothing is left of it"


@pytest.mark.parametrize("pattern", ["", "x" * 600 + "(1)", "(", "no group", 7, None])
def test_patterns_that_no_agent_takes(pattern: Any) -> None:
    assert not is_sensible(pattern)
    assert is_sensible(r"(\d+)%")


# ---------------------------------------------------------------- what the hub is told


def test_the_newest_of_each_about_once_a_second() -> None:
    tale = ProgressTale(0)
    assert tale.due_at is None
    tale.learn("j1", 1, "running", 1, 10, "")
    tale.learn("j1", 1, "running", 2, 10, "")
    tale.learn("j2", 3, "staging", 5, None, "")
    assert tale.due_at == 0
    assert tale.take(10) == [["j1", 1, "running", 2, 10, ""], ["j2", 3, "staging", 5, None, ""]]
    assert tale.due_at is None
    tale.learn("j1", 1, "running", 3, 10, "")
    assert tale.due_at == 10 + BETWEEN_MS
    assert tale.take(500) == []
    assert tale.take(10 + BETWEEN_MS) == [["j1", 1, "running", 3, 10, ""]]


def test_the_same_is_no_news_and_the_ended_are_forgotten() -> None:
    tale = ProgressTale(0)
    tale.learn("j1", 1, "running", 1, 10, "")
    tale.take(0)
    tale.learn("j1", 1, "running", 1, 10, "")
    assert tale.due_at is None
    tale.learn("j1", 1, "running", 2, 10, "")
    tale.forget("j1", 1)
    assert tale.due_at is None
    assert tale.take(AGAIN_MS) == []


def test_now_and_then_all_is_told_again_but_no_report_is_made_for_it() -> None:
    tale = ProgressTale(0)
    tale.learn("j1", 1, "running", 1, 10, "")
    tale.take(0)
    assert tale.take(AGAIN_MS - 1) == []
    assert tale.due_at is None
    assert tale.take(AGAIN_MS) == [["j1", 1, "running", 1, 10, ""]]
