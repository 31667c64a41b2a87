"""What is kept of an attempt's output, and how it ended."""

import errno

import pytest

from worker.keeper.attempt import TAIL, Attempt, Ending, Kept, WorkerProblem, exit_of
from worker.keeper.startup import why_not_started


def everything(kept: Kept) -> bytes:
    kept.finish()
    return kept.take()[1]


def test_output_within_its_limit_is_kept_as_it_is() -> None:
    kept = Kept(10)
    kept.add(b"01234")
    kept.add(b"56789")
    assert everything(kept) == b"0123456789"
    assert kept.total == 10


def test_offsets_go_on_from_what_was_taken() -> None:
    kept = Kept(None)
    kept.add(b"abc")
    assert kept.take() == (0, b"abc")
    kept.add(b"de")
    assert kept.unsent == 2
    assert kept.take() == (3, b"de")
    assert kept.unsent == 0


def test_beyond_the_limit_the_end_is_kept_and_the_middle_is_counted() -> None:
    kept = Kept(4)
    kept.add(b"head" + b"x" * 1000)
    kept.add(b"y" * TAIL)
    text = everything(kept)
    assert text.startswith(b"head\n[worker: 1000 bytes left out here")
    assert text.endswith(b"]\n" + b"y" * TAIL)
    assert kept.total == 4 + 1000 + TAIL


def test_an_end_that_is_short_enough_to_keep_is_kept_without_a_note() -> None:
    kept = Kept(4)
    kept.add(b"head and a little")
    assert everything(kept) == b"head and a little"


def test_a_limit_of_zero_keeps_the_end_only() -> None:
    kept = Kept(0)
    kept.add(b"z" * (TAIL + 7))
    assert everything(kept).startswith(b"\n[worker: 7 bytes left out")


@pytest.mark.parametrize(("status", "found"), [(0, (0, None)), (3 << 8, (3, None)), (9, (None, 9)), (139, (None, 11))])
def test_a_wait_status_is_an_exit_code_or_a_signal(status: int, found: tuple[int | None, int | None]) -> None:
    assert exit_of(status) == found


def test_no_process_has_neither() -> None:
    assert exit_of(None) == (None, None)


def attempt() -> Attempt:
    return Attempt("j1", 2, "ann", ["true"], {}, (), None, 1000, None)


@pytest.mark.parametrize(("status", "outcome"), [(0, "succeeded"), (256, "failed"), (15, "failed")])
def test_the_outcome_follows_from_the_status(status: int, outcome: str) -> None:
    ended = attempt()
    ended.status = status
    assert ended.result()[2] == outcome


def test_what_it_was_told_counts_more_than_how_it_took_it() -> None:
    ended = attempt()
    ended.ending, ended.status = Ending("returned", "drained", "the worker goes"), 0
    assert ended.result()[2:7] == ("returned", 0, None, "drained", "the worker goes")


@pytest.mark.parametrize(
    ("problem", "outcome", "status"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), "failed", 127 << 8),
        (PermissionError(errno.EACCES, "x"), "failed", 126 << 8),
        (OSError(errno.E2BIG, "x"), "failed", 126 << 8),
        (OSError(errno.ELOOP, "x"), "failed", 126 << 8),
        (ValueError("embedded null byte"), "failed", 126 << 8),
        (OSError(errno.EAGAIN, "x"), "returned", None),
        (OSError(errno.ENOMEM, "x"), "returned", None),
        (WorkerProblem(errno.ENOSPC, "x"), "returned", None),
        (WorkerProblem(errno.ENOENT, "x"), "returned", None),
    ],
)
def test_only_the_jobs_own_fault_fails_it(problem: Exception, outcome: str, status: int | None) -> None:
    ending, found = why_not_started(["command"], problem)
    assert (ending.outcome, ending.reason, found) == (outcome, "start-failed", status)
    assert ending.text
