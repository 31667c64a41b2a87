"""Launching, listing, and whose the workers are."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.base import (
    Accepted,
    Backend,
    RefusalKind,
    Refused,
    WorkerPhase,
)
from tests.conformance.adopter import Adopter, Fault
from tests.conformance.words import (
    assert_empty,
    batch,
    indexes,
    launch,
    order,
    replace_tokens,
    wait_for,
    wait_until_gone,
)


class OfLife:
    # ------------------------------------------------ launch and list

    def test_a_launched_worker_is_listed_once_and_comes_to_run(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission()
        outcome = backend.launch(submission)
        assert isinstance(outcome, Accepted)
        one = wait_for(adopter, backend, submission, 0, WorkerPhase.RUNNING)
        assert [(seen.submission, seen.index) for seen in backend.list().seen] == [(submission.id, 0)]
        if adopter.capabilities.ids_at_launch:
            assert dict(outcome.handles) == {0: one.handle}
        else:
            assert not outcome.handles

    def test_a_name_may_be_as_long_as_the_contract_says(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission(id="wm-a-0123456789abcdefghijklmnopqrstu")  # ids begin with their manager
        assert len(submission.id) == 36
        launch(backend, submission)
        wait_for(adopter, backend, submission, 0, WorkerPhase.RUNNING)

    def test_a_submission_of_several_workers_numbers_them_from_zero(self, adopter: Adopter, backend: Backend) -> None:
        count = batch(adopter)
        submission = adopter.submission(count=count)
        launch(backend, submission)
        adopter.until(lambda: indexes(backend, submission) == list(range(count)), "all workers of the submission")
        assert len({seen.handle for seen in backend.list().seen}) == count

    def test_more_than_max_batch_is_refused_and_nothing_starts(self, adopter: Adopter, backend: Backend) -> None:
        outcome = backend.launch(adopter.submission(count=adopter.capabilities.max_batch + 1))
        assert isinstance(outcome, Refused)
        assert outcome.kind is RefusalKind.CONFIG
        assert_empty(adopter, backend)

    def test_tokens_that_do_not_match_the_count_are_refused(self, adopter: Adopter, backend: Backend) -> None:
        good = adopter.submission()
        outcome = backend.launch(replace_tokens(good, ("one", "too-many")))
        assert isinstance(outcome, Refused)
        assert outcome.kind is RefusalKind.CONFIG
        assert_empty(adopter, backend)

    def test_the_same_submission_twice_makes_one_worker(self, adopter: Adopter, backend: Backend) -> None:
        if not adopter.capabilities.idempotent_create:
            pytest.skip("the platform knows no idempotent create")
        submission = adopter.submission(count=batch(adopter))
        first, second = launch(backend, submission), launch(adopter.backend(), submission)
        assert dict(first.handles) == dict(second.handles)
        adopter.until(lambda: len(indexes(backend, submission)) == submission.count, "every worker")
        assert indexes(backend, submission) == list(range(submission.count))

    def test_two_hundred_workers_are_all_listed(self, adopter: Adopter, backend: Backend) -> None:
        step = min(adopter.capabilities.max_batch, 40)
        submissions = [adopter.submission(count=step) for _ in range(200 // step)]
        for submission in submissions:
            launch(backend, submission)
        total = step * len(submissions)
        adopter.until(lambda: len(backend.list().seen) == total, f"{total} workers in the list")
        names = {(seen.submission, seen.index) for seen in backend.list().seen}
        assert len(names) == total
        assert backend.list().complete

    def test_a_worker_that_waits_for_a_machine_is_listed_while_it_waits(
        self, adopter: Adopter, backend: Backend
    ) -> None:
        order(adopter, Fault.SLOW_BOOT)
        submission = adopter.submission()
        launch(backend, submission)
        one = wait_for(adopter, backend, submission, 0, WorkerPhase.PENDING, WorkerPhase.STARTING)
        assert one.started_at is None
        adopter.let_boot()
        wait_for(adopter, backend, submission, 0, WorkerPhase.RUNNING)

    def test_a_state_that_is_in_no_table_is_shown_as_unknown(self, adopter: Adopter, backend: Backend) -> None:
        order(adopter, Fault.STRANGE_STATE)
        submission = adopter.submission()
        launch(backend, submission)
        wait_for(adopter, backend, submission, 0, WorkerPhase.UNKNOWN)
        assert indexes(backend, submission) == [0]

    # ------------------------------------------------ whose they are

    def test_managers_and_pools_do_not_see_each_other(self, adopter: Adopter) -> None:
        places = [("wm-a", "pool"), ("wm-a", "pool-b"), ("wm-b", "pool")]
        backends = {place: adopter.backend(*place) for place in places}
        submissions = {place: adopter.submission(manager=place[0], pool=place[1]) for place in places}
        for place in places:
            launch(backends[place], submissions[place])
        for place in places:
            wait_for(adopter, backends[place], submissions[place], 0, WorkerPhase.RUNNING)
            assert {seen.submission for seen in backends[place].list().seen} == {submissions[place].id}

    def test_a_manager_that_was_restarted_finds_and_ends_its_workers(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission()
        launch(backend, submission)
        before = wait_for(adopter, backend, submission, 0, WorkerPhase.RUNNING)
        after = adopter.backend()
        assert wait_for(adopter, after, submission, 0, WorkerPhase.RUNNING).handle == before.handle
        assert isinstance(after.terminate(before.handle, force=False), Accepted)
        wait_until_gone(adopter, after, submission, 0)
        wait_until_gone(adopter, backend, submission, 0)

    def test_two_pools_may_be_served_at_the_same_time(self, adopter: Adopter) -> None:
        pools = [f"pool-{number}" for number in range(4)]
        submissions = {pool: [adopter.submission(pool=pool) for _ in range(5)] for pool in pools}

        def serve(pool: str) -> set[str]:
            backend = adopter.backend(pool=pool)
            for submission in submissions[pool]:
                launch(backend, submission)
            adopter.until(lambda: len(backend.list().seen) == 5, f"five workers in {pool}")
            return {seen.submission for seen in backend.list().seen}

        with ThreadPoolExecutor(len(pools)) as threads:
            served = dict(zip(pools, threads.map(serve, pools), strict=True))
        assert served == {pool: {submission.id for submission in submissions[pool]} for pool in pools}
