"""What a platform says beforehand of workers that it is about to end, and how it is answered."""

from typing import cast

import pytest

from backends.base import Accepted, Backend, GivesNotice, ListFailed, Notice, WorkerPhase
from tests.conformance.adopter import Adopter, Fault
from tests.conformance.words import find, order, run, wait_until_gone


def speaking(adopter: Adopter, backend: Backend) -> GivesNotice:
    if not adopter.capabilities.notices:
        pytest.skip("the platform gives no notice")
    return cast(GivesNotice, backend)


def noticed(adopter: Adopter, backend: GivesNotice, handle: str) -> Notice:
    """The one notice for this worker, once the platform gives it."""
    found: list[Notice] = []

    def given() -> bool:
        found[:] = [notice for notice in backend.notices() if notice.handle == handle]
        return bool(found)

    adopter.until(given, f"a notice for {handle}")
    (notice,) = found
    return notice


class OfNotices:
    def test_where_nothing_is_about_to_end_there_is_no_notice(self, adopter: Adopter, backend: Backend) -> None:
        speaks = speaking(adopter, backend)
        run(adopter, backend, adopter.submission())
        assert speaks.notices() == ()

    def test_a_notice_names_its_worker_and_stays_the_same(self, adopter: Adopter, backend: Backend) -> None:
        speaks = speaking(adopter, backend)
        run(adopter, backend, adopter.submission())
        doomed = run(adopter, backend, adopter.submission())
        order(adopter, Fault.NOTICE)
        notice = noticed(adopter, speaks, doomed.handle)
        assert notice.id
        assert 0 < len(notice.reason) <= 2000
        adopter.pause()
        again = noticed(adopter, cast(GivesNotice, adopter.backend()), doomed.handle)
        assert again.id == notice.id, "a restarted manager sees the same notice"
        assert [one.handle for one in speaks.notices()] == [doomed.handle]

    def test_a_worker_is_held_until_it_is_released(self, adopter: Adopter, backend: Backend) -> None:
        speaks = speaking(adopter, backend)
        submission = adopter.submission()
        doomed = run(adopter, backend, submission)
        order(adopter, Fault.NOTICE)
        notice = noticed(adopter, speaks, doomed.handle)
        for _ in range(3):
            assert isinstance(speaks.hold(notice), Accepted)
            adopter.pause()
        there = find(backend, submission, 0)
        assert there is not None
        assert there.phase in (WorkerPhase.RUNNING, WorkerPhase.ENDING)
        assert noticed(adopter, speaks, doomed.handle).id == notice.id
        assert isinstance(speaks.release(notice), Accepted)
        adopter.until(lambda: not speaks.notices(), "the notice to be answered")
        wait_until_gone(adopter, backend, submission, 0)

    def test_an_answer_may_be_repeated_when_nothing_is_asked_any_more(self, adopter: Adopter, backend: Backend) -> None:
        speaks = speaking(adopter, backend)
        submission = adopter.submission()
        doomed = run(adopter, backend, submission)
        order(adopter, Fault.NOTICE)
        notice = noticed(adopter, speaks, doomed.handle)
        assert isinstance(speaks.release(notice), Accepted)
        wait_until_gone(adopter, backend, submission, 0)
        for answer in (speaks.release, speaks.hold, cast(GivesNotice, adopter.backend()).release):
            assert isinstance(answer(notice), Accepted)

    def test_a_release_leaves_other_workers_alone(self, adopter: Adopter, backend: Backend) -> None:
        speaks = speaking(adopter, backend)
        other = adopter.submission()
        run(adopter, backend, other)
        submission = adopter.submission()
        doomed = run(adopter, backend, submission)
        order(adopter, Fault.NOTICE)
        speaks.release(noticed(adopter, speaks, doomed.handle))
        wait_until_gone(adopter, backend, submission, 0)
        left = find(backend, other, 0)
        assert left is not None
        assert left.phase is WorkerPhase.RUNNING

    def test_nobody_elses_notice_is_seen(self, adopter: Adopter, backend: Backend) -> None:
        speaks = speaking(adopter, backend)
        other = adopter.backend(manager="wm-b")
        theirs = run(adopter, other, adopter.submission(manager="wm-b"))
        order(adopter, Fault.NOTICE)
        noticed(adopter, cast(GivesNotice, other), theirs.handle)
        assert [one for one in speaks.notices() if one.handle] == []

    def test_notices_that_cannot_be_read_are_an_error_and_never_none(self, adopter: Adopter, backend: Backend) -> None:
        speaks = speaking(adopter, backend)
        order(adopter, Fault.NOTICES_UNREADABLE)
        with pytest.raises(ListFailed) as failed:
            speaks.notices()
        assert 0 < len(str(failed.value)) <= 2100
