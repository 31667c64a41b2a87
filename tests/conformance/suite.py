"""The contract of backends/base.py, executably. Every backend passes it; what a platform cannot do is skipped by its
declared capabilities and by the faults that its adopter can order, never by its type."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic

import pytest

from backends.base import (
    Accepted,
    Backend,
    Finding,
    ListFailed,
    Listing,
    RefusalKind,
    Refused,
    Seen,
    Severity,
    Submission,
    Unknown,
    WorkerPhase,
)
from tests.conformance.adopter import Adopter, Behaviour, Fault, NotHere

LIVE = (WorkerPhase.PENDING, WorkerPhase.STARTING, WorkerPhase.RUNNING)

HOSTILE = (
    "plain",
    "two words",
    'it\'s "quoted"',
    "$(touch /tmp/wm-pwned) `id` $HOME ${PATH}",
    "line one\nline two\n#SBATCH --wrap=id",
    "a: [yaml, &anchor] !!python/object {index}-{worker}-{other}",
    "; rm -rf / # && | > <",
    "naïve ✓ 日本語 \t tab \\ backslash",
    "--help",
    "%s %n {} {0}",
)


class Conformance:
    """Subclass it with a fixture `adopter`."""

    @pytest.fixture
    def adopter(self) -> Iterator[Adopter]:
        raise NotImplementedError("a subclass says which backend is meant")

    @pytest.fixture
    def backend(self, adopter: Adopter) -> Backend:
        return adopter.backend()

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
        submission = adopter.submission(id="m" + "-0123456789abcdefghijklmnopqrstuvwxy"[:35])
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

    def test_what_is_shown_as_ended_is_dead(self, adopter: Adopter, backend: Backend) -> None:
        if not adopter.capabilities.confirms_end:
            pytest.skip("the platform does not confirm an end")
        submission = adopter.submission(Behaviour(deaf=True))
        one = run(adopter, backend, submission)
        assert seen_by(lambda: adopter.alive(one.handle))
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
        assert submission.join_tokens[0] not in outcome.text
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
        assert submission.join_tokens[0] not in outcome.text
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

    def test_a_list_that_fails_is_an_error_and_never_empty(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission()
        run(adopter, backend, submission)
        order(adopter, Fault.UNREADABLE)
        with pytest.raises(ListFailed) as failed:
            backend.list()
        assert str(failed.value)

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
    def test_a_call_that_hangs_comes_back_within_its_deadline(self, adopter: Adopter, fault: Fault) -> None:
        backend = adopter.backend(call_timeout_s=0.2)
        one = run(adopter, backend, adopter.submission())
        order(adopter, fault)
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

    # ------------------------------------------------ what reaches the worker

    def test_hostile_texts_reach_the_worker_as_they_are(self, adopter: Adopter, backend: Backend) -> None:
        environment = {f"HOSTILE_{number}": text for number, text in enumerate(HOSTILE)}
        submission = adopter.submission(environment=environment, arguments=HOSTILE)
        one = run(adopter, backend, submission)
        expected = [submission.filled(text, 0) for text in HOSTILE]
        got = seen_by(lambda: adopter.environment(one.handle))
        assert [got[name] for name in environment] == expected
        assert list(seen_by(lambda: adopter.argv(one.handle))[-len(HOSTILE) :]) == expected

    def test_each_worker_of_a_batch_gets_its_own_number_and_name(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission(
            count=batch(adopter), environment={"NUMBER": "{index}", "NAME": "<{worker}>"}, arguments=("{worker}",)
        )
        launch(backend, submission)
        for index in range(submission.count):
            one = wait_for(adopter, backend, submission, index, WorkerPhase.RUNNING)
            got = seen_by(lambda handle=one.handle: adopter.environment(handle))  # type: ignore[misc]
            assert (got["NUMBER"], got["NAME"]) == (str(index), f"<{submission.worker_id(index)}>")
            assert adopter.argv(one.handle)[-1] == submission.worker_id(index)

    def test_a_join_token_reaches_its_worker_and_nobody_else(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission(Behaviour(says="hello"), count=min(3, adopter.capabilities.max_batch))
        outcome = launch(backend, submission)
        for index, token in enumerate(submission.join_tokens):
            one = wait_for(adopter, backend, submission, index, WorkerPhase.RUNNING)
            assert seen_by(lambda handle=one.handle: adopter.token(handle)) == token  # type: ignore[misc]
            assert token not in backend.logs(one.handle, 10**6)
        visible = repr(backend.list()) + repr(outcome) + backend.render(submission) + repr(backend.check())
        visible += "".join(exposed(adopter, seen) for seen in backend.list().seen)
        assert "wmj_canary" not in visible

    def test_set_up_lines_run_before_the_worker(self, adopter: Adopter, backend: Backend) -> None:
        need_shell(adopter)
        submission = adopter.submission(setup=("greeting='set up'", 'export FROM_SETUP="$greeting"', "echo prepared"))
        one = run(adopter, backend, submission)
        assert seen_by(lambda: adopter.environment(one.handle))["FROM_SETUP"] == "set up"
        adopter.until(lambda: "prepared" in backend.logs(one.handle, 10_000), "the output of set-up")

    @pytest.mark.parametrize("line", ["echo no such module >&2; false", "exit 3", "echo 'unbalanced", "cd /nonesuch"])
    def test_a_set_up_line_that_fails_ends_the_worker_and_is_logged(
        self, adopter: Adopter, backend: Backend, line: str
    ) -> None:
        need_shell(adopter)
        submission = adopter.submission(setup=("echo before", line))
        launch(backend, submission)
        ended = wait_for(adopter, backend, submission, 0, WorkerPhase.ENDED)
        assert ended.exit_code != 0
        assert backend.logs(ended.handle, 10_000).strip()

    # ------------------------------------------------ for people

    def test_logs_are_the_end_of_what_the_worker_wrote(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission(Behaviour(says="first words ✓ last words", exits=0))
        launch(backend, submission)
        ended = wait_for(adopter, backend, submission, 0, WorkerPhase.ENDED)
        whole = backend.logs(ended.handle, 10**6)
        assert "last words" in whole
        for size in (1, 5, 16, 20):
            piece = backend.logs(ended.handle, size)
            assert len(piece) <= size
            assert whole.endswith(piece.lstrip("\ufffd"))
        assert backend.logs(ended.handle, 0) == ""

    def test_logs_of_nobody_are_empty(self, backend: Backend) -> None:
        for handle in ("", "nobody", "../../../etc/passwd", "wm-a-pool-9999-0", "x\0y"):
            assert backend.logs(handle, 1000) == ""

    def test_render_says_what_would_be_sent_and_sends_nothing(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission(count=min(2, adopter.capabilities.max_batch), environment={"COLOUR": "green"})
        text = backend.render(submission)
        assert submission.id in text
        assert "COLOUR" in text
        assert "green" in text
        assert not any(token in text for token in submission.join_tokens)
        assert backend.render(submission) == text
        assert_empty(adopter, backend)

    def test_check_says_what_to_do_about_every_trouble_and_changes_nothing(
        self, adopter: Adopter, backend: Backend
    ) -> None:
        findings = backend.check()
        assert findings
        for finding in findings:
            assert isinstance(finding, Finding)
            assert finding.subject
            assert finding.text
            assert finding.severity is Severity.OK or finding.mend
        assert not [finding for finding in findings if finding.severity is Severity.ERROR]
        assert_empty(adopter, backend)


# ---------------------------------------------------------------- words of the suite


def order(adopter: Adopter, fault: Fault) -> None:
    if fault not in adopter.faults:
        pytest.skip(f"{fault} cannot be ordered here")
    adopter.inject(fault)


def seen_by(look):  # type: ignore[no-untyped-def]
    """What the adopter can see; where it cannot, the test is skipped."""
    try:
        return look()
    except NotHere as reason:
        pytest.skip(str(reason))


def need_shell(adopter: Adopter) -> None:
    if not adopter.has_shell:
        pytest.skip("no shell starts the workers here")


def exposed(adopter: Adopter, seen: Seen) -> str:
    try:
        return adopter.exposed(seen.handle)
    except NotHere:
        return ""


def batch(adopter: Adopter) -> int:
    if adopter.capabilities.max_batch == 1:
        pytest.skip("the platform takes one worker at a time")
    return min(4, adopter.capabilities.max_batch)


def launch(backend: Backend, submission: Submission) -> Accepted:
    outcome = backend.launch(submission)
    assert isinstance(outcome, Accepted), outcome
    return outcome


def run(adopter: Adopter, backend: Backend, submission: Submission) -> Seen:
    launch(backend, submission)
    return wait_for(adopter, backend, submission, 0, WorkerPhase.RUNNING)


def find(backend: Backend, submission: Submission, index: int) -> Seen | None:
    listing = backend.list()
    assert isinstance(listing, Listing)
    found = [seen for seen in listing.seen if (seen.submission, seen.index) == (submission.id, index)]
    assert len(found) <= 1, f"{submission.worker_id(index)} is listed {len(found)} times"
    return found[0] if found else None


def indexes(backend: Backend, submission: Submission) -> list[int]:
    return sorted(seen.index for seen in backend.list().seen if seen.submission == submission.id)


def wait_for(adopter: Adopter, backend: Backend, submission: Submission, index: int, *phases: WorkerPhase) -> Seen:
    last: list[Seen | None] = [None]

    def there() -> bool:
        last[0] = find(backend, submission, index)
        return last[0] is not None and last[0].phase in phases

    adopter.until(there, f"{submission.worker_id(index)} {' or '.join(phases)}")
    assert last[0] is not None
    return last[0]


def wait_until_gone(adopter: Adopter, backend: Backend, submission: Submission, index: int) -> Seen | None:
    """Ended, or no longer shown where the platform shows nothing of what is over."""

    def gone() -> bool:
        seen = find(backend, submission, index)
        return seen is None or seen.phase is WorkerPhase.ENDED

    adopter.until(gone, f"the end of {submission.worker_id(index)}")
    return find(backend, submission, index)


def assert_empty(adopter: Adopter, backend: Backend) -> None:
    """Now, and after whatever the list may lag."""
    for _ in range(3):
        assert backend.list() == Listing(())
        adopter.pause()


def replace_tokens(submission: Submission, tokens: tuple[str, ...]) -> Submission:
    return replace(submission, join_tokens=tokens)
