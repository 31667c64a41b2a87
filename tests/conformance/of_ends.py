"""How workers end, and what goes wrong on the platform."""

from time import monotonic

import pytest

from backends.base import (
    LONGEST_TEXT,
    Accepted,
    Backend,
    ListFailed,
    RefusalKind,
    Refused,
    Unknown,
    WorkerPhase,
)
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.conformance.words import (
    LIVE,
    assert_empty,
    batch,
    find,
    indexes,
    launch,
    order,
    run,
    seen_by,
    wait_for,
    wait_until_gone,
)


class OfEnds:
    # ------------------------------------------------ the end

    def test_a_polite_end_lets_the_worker_finish(self, adopter: Adopter, backend: Backend) -> None:
        if not adopter.capabilities.graceful_end:
            pytest.skip("the platform ends workers at once")
        submission = adopter.submission(Behaviour(says="listening"))
        one = run(adopter, backend, submission)
        adopter.until(lambda: "listening" in backend.logs(one.handle, 1000), "the worker's first words")
        assert isinstance(backend.terminate(one.handle, force=False), Accepted)
        ended = wait_until_gone(adopter, backend, submission, 0)
        assert ended is None or ended.exit_code in (None, 0), "it was killed instead of asked"

    def test_force_ends_a_worker_that_does_not_listen(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission(Behaviour(says="deaf", deaf=True))
        one = run(adopter, backend, submission)
        adopter.until(lambda: "deaf" in backend.logs(one.handle, 1000), "the worker's first words")
        if adopter.capabilities.graceful_end:
            backend.terminate(one.handle, force=False)
        assert isinstance(backend.terminate(one.handle, force=True), Accepted)
        wait_until_gone(adopter, backend, submission, 0)

    def test_ending_may_be_repeated_and_is_accepted_for_what_is_gone(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission()
        one = run(adopter, backend, submission)
        for force in (False, False, True, True):
            assert isinstance(backend.terminate(one.handle, force=force), Accepted)
        wait_until_gone(adopter, backend, submission, 0)
        for force in (False, True):
            assert isinstance(backend.terminate(one.handle, force=force), Accepted)
            assert isinstance(adopter.backend().terminate(one.handle, force=force), Accepted)

    def test_a_handle_that_never_was_ends_nothing(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission()
        one = run(adopter, backend, submission)
        for handle in ("", "nobody", "../../etc", one.handle + "0", "wm-a-pool-9999-0", "$(id)", "x\0y"):
            assert isinstance(backend.terminate(handle, force=True), Accepted | Refused)
        assert find(backend, submission, 0) is not None
        assert find(backend, submission, 0).phase is WorkerPhase.RUNNING  # type: ignore[union-attr]

    def test_ending_one_leaves_the_others(self, adopter: Adopter, backend: Backend) -> None:
        submissions = [adopter.submission() for _ in range(3)]
        handles = [run(adopter, backend, submission).handle for submission in submissions]
        backend.terminate(handles[1], force=True)
        wait_until_gone(adopter, backend, submissions[1], 0)
        for submission in (submissions[0], submissions[2]):
            assert wait_for(adopter, backend, submission, 0, WorkerPhase.RUNNING)

    def test_one_worker_of_a_batch_can_be_ended(self, adopter: Adopter, backend: Backend) -> None:
        count = batch(adopter)
        submission = adopter.submission(count=count)
        launch(backend, submission)
        victim = wait_for(adopter, backend, submission, 1, WorkerPhase.RUNNING)
        backend.terminate(victim.handle, force=True)
        wait_until_gone(adopter, backend, submission, 1)
        assert wait_for(adopter, backend, submission, 0, WorkerPhase.RUNNING)

    @pytest.mark.parametrize("code", [0, 7])
    def test_a_worker_that_exits_is_shown_as_ended_with_its_status(
        self, adopter: Adopter, backend: Backend, code: int
    ) -> None:
        submission = adopter.submission(Behaviour(says="leaving", exits=code))
        launch(backend, submission)
        ended = wait_for(adopter, backend, submission, 0, WorkerPhase.ENDED)
        assert ended.exit_code in (None, code)
        adopter.pause()
        assert adopter.backend().list().seen == backend.list().seen, "another manager sees the same end"

    def test_a_worker_that_dies_at_boot_is_shown_as_ended(self, adopter: Adopter, backend: Backend) -> None:
        order(adopter, Fault.DIES_AT_BOOT)
        submission = adopter.submission()
        launch(backend, submission)
        ended = wait_for(adopter, backend, submission, 0, WorkerPhase.ENDED)
        assert ended.exit_code != 0

    def test_a_reason_of_ten_megabytes_is_told_in_a_page(self, adopter: Adopter, backend: Backend) -> None:
        order(adopter, Fault.DIES_WITH_A_PAGE)
        submission = adopter.submission()
        launch(backend, submission)
        ended = wait_for(adopter, backend, submission, 0, WorkerPhase.ENDED)
        assert 100 < len(ended.detail) <= LONGEST_TEXT

    def test_what_is_shown_as_ended_is_dead(self, adopter: Adopter, backend: Backend) -> None:
        if not adopter.capabilities.confirms_end:
            pytest.skip("the platform does not confirm an end")
        submission = adopter.submission(Behaviour(deaf=True))
        one = run(adopter, backend, submission)
        # The kernel shows what a process was started with a moment after the process itself.
        adopter.until(lambda: seen_by(lambda: adopter.alive(one.handle)), "its processes")
        backend.terminate(one.handle, force=True)
        wait_until_gone(adopter, backend, submission, 0)
        assert not adopter.alive(one.handle)

    def test_a_worker_that_vanishes_is_absent_from_a_complete_list(self, adopter: Adopter, backend: Backend) -> None:
        order(adopter, Fault.VANISHES)
        gone, stays = adopter.submission(), adopter.submission()
        launch(backend, gone)
        launch(backend, stays)
        wait_for(adopter, backend, stays, 0, WorkerPhase.RUNNING)
        adopter.until(lambda: find(backend, gone, 0) is None, "its disappearance")
        assert backend.list().complete

    # ------------------------------------------------ what goes wrong

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            (Fault.REFUSED, RefusalKind.CAPACITY),
            (Fault.THROTTLED, RefusalKind.THROTTLED),
            (Fault.DENIED, RefusalKind.AUTH),
            (Fault.OVER_QUOTA, RefusalKind.QUOTA),
            (Fault.MISCONFIGURED, RefusalKind.CONFIG),
            (Fault.LONG_REFUSAL, RefusalKind.CAPACITY),
        ],
    )
    def test_a_refusal_says_its_kind_and_has_done_nothing(
        self, adopter: Adopter, backend: Backend, fault: Fault, kind: RefusalKind
    ) -> None:
        order(adopter, fault)
        submission = adopter.submission()
        outcome = backend.launch(submission)
        assert isinstance(outcome, Refused)
        assert outcome.kind is kind
        assert 0 < len(outcome.text) <= 2000
        assert not any(token in outcome.text for token in submission.join_tokens)
        if fault is Fault.THROTTLED:
            assert outcome.retry_after_s is None or outcome.retry_after_s > 0
        assert_empty(adopter, backend)

    def test_a_launch_whose_answer_was_lost_is_unknown_and_found_by_listing(
        self, adopter: Adopter, backend: Backend
    ) -> None:
        order(adopter, Fault.TIMED_OUT_AFTER)
        submission = adopter.submission()
        outcome = backend.launch(submission)
        assert isinstance(outcome, Unknown)
        assert not any(token in outcome.text for token in submission.join_tokens)
        wait_for(adopter, backend, submission, 0, *LIVE)
        if adopter.capabilities.idempotent_create:
            launch(backend, submission)
        assert indexes(backend, submission) == [0]

    def test_a_launch_that_never_arrived_is_unknown_and_not_in_the_list(
        self, adopter: Adopter, backend: Backend
    ) -> None:
        order(adopter, Fault.TIMED_OUT_BEFORE)
        assert isinstance(backend.launch(adopter.submission()), Unknown)
        assert_empty(adopter, backend)

    @pytest.mark.parametrize("fault", [Fault.UNREADABLE, Fault.EXPIRED, Fault.GARBAGE])
    def test_a_list_that_fails_is_an_error_and_never_empty(
        self, adopter: Adopter, backend: Backend, fault: Fault
    ) -> None:
        submission = adopter.submission()
        run(adopter, backend, submission)
        order(adopter, fault)
        with pytest.raises(ListFailed) as failed:
            backend.list()
        assert 0 < len(str(failed.value)) <= 2100

    def test_a_list_with_a_page_missing_says_so(self, adopter: Adopter, backend: Backend) -> None:
        submissions = [adopter.submission() for _ in range(3)]
        for submission in submissions:
            run(adopter, backend, submission)
        order(adopter, Fault.PAGE_LOST)
        listing = backend.list()
        assert not listing.complete
        assert len(listing.seen) < 3
        adopter.until(lambda: backend.list().complete and len(backend.list().seen) == 3, "the whole list again")

    @pytest.mark.parametrize("fault", [Fault.LAUNCH_HANGS, Fault.LIST_HANGS, Fault.END_HANGS])
    def test_a_call_that_hangs_comes_back_within_its_deadline(
        self, adopter: Adopter, backend: Backend, fault: Fault
    ) -> None:
        one = run(adopter, backend, adopter.submission())
        order(adopter, fault)
        backend = adopter.backend(call_timeout_s=1.0)  # long enough for the calls before the one that hangs
        begun = monotonic()
        if fault is Fault.LAUNCH_HANGS:
            assert isinstance(backend.launch(adopter.submission()), Unknown)
        elif fault is Fault.END_HANGS:
            assert isinstance(backend.terminate(one.handle, force=False), Unknown)
        else:
            with pytest.raises(ListFailed):
                backend.list()
        assert monotonic() - begun < 10, "far beyond its deadline"

    def test_an_end_whose_answer_was_lost_may_be_asked_for_again(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission()
        one = run(adopter, backend, submission)
        order(adopter, Fault.END_TIMED_OUT_AFTER)
        assert isinstance(backend.terminate(one.handle, force=True), Unknown)
        assert isinstance(backend.terminate(one.handle, force=True), Accepted)
        wait_until_gone(adopter, backend, submission, 0)
