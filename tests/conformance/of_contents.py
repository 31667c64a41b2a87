"""What reaches a worker, and what people see."""

import re

import pytest

from backends.base import (
    Backend,
    Finding,
    Severity,
    WorkerPhase,
)
from tests.conformance.adopter import Adopter, Behaviour
from tests.conformance.words import (
    assert_empty,
    batch,
    environment_of,
    exposed,
    find,
    launch,
    need_shell,
    run,
    seen_by,
    wait_for,
)

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


class OfContents:
    # ------------------------------------------------ what reaches the worker

    def test_hostile_texts_reach_the_worker_as_they_are(self, adopter: Adopter, backend: Backend) -> None:
        environment = {f"HOSTILE_{number}": text for number, text in enumerate(HOSTILE)}
        submission = adopter.submission(environment=environment, arguments=HOSTILE)
        one = run(adopter, backend, submission)
        expected = [submission.filled(text, 0) for text in HOSTILE]
        got = environment_of(adopter, one.handle, "HOSTILE_0")
        assert [got[name] for name in environment] == expected
        assert list(seen_by(lambda: adopter.argv(one.handle))[-len(HOSTILE) :]) == expected

    def test_each_worker_of_a_batch_gets_its_own_number_and_name(self, adopter: Adopter, backend: Backend) -> None:
        submission = adopter.submission(
            count=batch(adopter), environment={"NUMBER": "{index}", "NAME": "<{worker}>"}, arguments=("{worker}",)
        )
        launch(backend, submission)
        for index in range(submission.count):
            one = wait_for(adopter, backend, submission, index, WorkerPhase.RUNNING)
            got = environment_of(adopter, one.handle, "NUMBER")
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

    def test_a_worker_without_a_token_is_known_by_its_identity(self, adopter: Adopter, backend: Backend) -> None:
        if not adopter.capabilities.identity:
            pytest.skip("workers hold tokens here")
        submission = adopter.submission(count=min(3, adopter.capabilities.max_batch))
        launch(backend, submission)
        running = [
            wait_for(adopter, backend, submission, index, WorkerPhase.RUNNING) for index in range(submission.count)
        ]
        names = [one.identity for one in running]
        assert all(re.fullmatch(r"aws:[0-9]{12}:([\w+=,.@-]{1,64}:)?i-[0-9a-f]{8,32}", name) for name in names), names
        assert len(set(names)) == submission.count
        shown = [find(adopter.backend(), submission, index) for index in range(submission.count)]
        assert [one and one.identity for one in shown] == names, "another manager process tells the same"

    def test_set_up_lines_run_before_the_worker(self, adopter: Adopter, backend: Backend) -> None:
        need_shell(adopter)
        submission = adopter.submission(setup=("greeting='set up'", 'export FROM_SETUP="$greeting"', "echo prepared"))
        one = run(adopter, backend, submission)
        assert environment_of(adopter, one.handle, "FROM_SETUP")["FROM_SETUP"] == "set up"
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
