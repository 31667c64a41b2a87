"""Programs of a platform, run with a deadline."""

import os
import time

import pytest

from backends.tools import NotInstalled, Ran, TookTooLong, TooMuch, run


def test_what_it_says_and_how_it_ends() -> None:
    ran = run(["sh", "-c", "cat; echo trouble >&2; exit 3"], 20, input="words ✓")
    assert (ran.status, ran.out, ran.err, ran.words) == (3, "words ✓", "trouble\n", "trouble")


def test_one_that_hangs_is_ended_with_all_that_it_started() -> None:
    begun = time.monotonic()
    with pytest.raises(TookTooLong, match="within"):
        run(["sh", "-c", "sleep 1000 & sleep 1000"], 0.2)
    assert time.monotonic() - begun < 15


def test_what_one_that_hangs_had_complained_of_is_told() -> None:
    with pytest.raises(TookTooLong, match=r"^sh gave no answer within 2 s: busy, retrying$"):
        run(["sh", "-c", "echo busy, retrying >&2; sleep 1000"], 2)


def test_one_that_writes_without_end_is_ended() -> None:
    with pytest.raises(TooMuch):
        run(["sh", "-c", "yes"], 20, most_bytes=100_000)


def test_a_megabyte_each_way_gets_through_whole() -> None:
    text = "0123456789abcde\n" * 65_536
    assert run(["tee", "/dev/stderr"], 60, input=text) == Ran(0, text, text)


def test_one_that_is_ended_by_a_signal_says_which() -> None:
    assert run(["sh", "-c", "kill -9 $$"], 20).status == -9


def test_more_input_than_it_reads_does_no_harm() -> None:
    assert run(["true"], 20, input="x" * 2**20).status == 0


def test_a_grandchild_that_keeps_the_pipe_does_not_keep_us() -> None:
    begun = time.monotonic()
    ran = run(["sh", "-c", "echo said; sleep 30 & exit 0"], 20)
    assert ran.out == "said\n"
    assert time.monotonic() - begun < 15


def test_one_that_is_not_there() -> None:
    with pytest.raises(NotInstalled, match="no-such-program"):
        run(["no-such-program"], 5, environment={"PATH": os.environ["PATH"]})
