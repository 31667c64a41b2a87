"""Room for blobs: what is there, what is coming, what is promised."""

import pytest

from worker_manager.hub.blobs.account import Account
from worker_manager.hub.problems import Problem

PLENTY = 10**12


def refusal(account: Account, size: int, length: int, room: int = PLENTY) -> tuple[int, str]:
    with pytest.raises(Problem) as found, account.reserve(size, length, room):
        pass
    return found.value.status, found.value.code


def test_what_is_promised_counts_until_it_is_written_or_given_up() -> None:
    account = Account(limit=1000)
    account.whole, account.unfinished = 300, 200
    with account.reserve(400, 400, PLENTY) as mine:
        assert refusal(account, 101, 101) == (507, "blobs-full")
        mine.wrote(150)
        account.unfinished += 150
        assert account.reserved == 250 and account.taken == 650
        with account.reserve(100, 100, PLENTY):
            assert account.reserved == 350
    assert account.reserved == 0 and account.taken == 650


def test_what_can_never_come_is_another_refusal() -> None:
    account = Account(limit=1000)
    assert refusal(account, 1, 1001) == (413, "blob-too-large")
    account.whole = 1000
    assert refusal(account, 1, 1000) == (507, "blobs-full")


def test_without_a_limit_the_disk_is_one() -> None:
    account = Account(limit=0)
    with account.reserve(600, 600, room=1000):
        assert refusal(account, 500, 500, room=1000) == (507, "disk-full")
        with account.reserve(400, 400, room=1000):
            pass
    with account.reserve(0, 10**9, room=0):
        pass  # nothing more is to come: it may finish


def test_whole_ones_are_counted_once() -> None:
    account = Account(limit=0)
    account.became_whole(10, new=True)
    account.became_whole(10, new=False)
    assert (account.count, account.whole) == (1, 10)
    account.gone(10)
    assert (account.count, account.whole) == (0, 0)
