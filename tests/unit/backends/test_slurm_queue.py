"""squeue's and sacct's texts, read."""

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import RefusalKind, WorkerPhase
from backends.slurm.names import Owner, comment, is_submission, job_name, read_comment, submission_of
from backends.slurm.queue import Garbage, Job, parse_sacct, parse_squeue, seen, submission_if_ours

OURS = Owner("main", "gpu")
COMMENT = comment(OURS, "main-1")


def line(*fields: str) -> str:
    return "\x1f".join((*fields, "\n"))


def a_job(**more: object) -> Job:
    return Job(**{"id": "7", "state": "RUNNING", "name": "main-1", "comment": COMMENT, **more})  # type: ignore[arg-type]


def test_a_worker_of_an_array_and_one_that_is_alone() -> None:
    text = line("12", "3", "15", "RUNNING", "0", "1795185512", "n[1-2]", "None", "main-1", COMMENT)
    text += line("16", "N/A", "16", "PENDING", "0", "N/A", "", "Priority", "main-2", "(null)")
    one, two = parse_squeue(text)
    assert (one.id, one.number, one.index, one.started_at) == ("12_3", 12, 3, 1_795_185_512_000)
    assert (two.id, two.number, two.index, two.started_at) == ("16", 16, 0, None)


def test_no_jobs_is_an_answer() -> None:
    assert parse_squeue("") == ()
    assert parse_sacct("") == ()


@pytest.mark.parametrize(
    "text",
    [
        *("<html>", "12", "slurm_load_jobs error: Unexpected message\n", "\n<html>\n", line("a", "b"), line("x") * 3),
        line("x", "3", "15", "RUNNING", "0", "1", "n1", "None", "main-1", COMMENT),
        line("12", "3", "15", "RUNNING", "0", "1", "n1", "None", "main-1", COMMENT) + "12\x1f3\x1f15",
        line("12", "3", "15", "RUNNING", "0", "1", "n1", "None", "main-1", COMMENT)[:-2],
    ],
)
def test_what_is_cut_off_or_no_answer_is_never_an_empty_queue(text: str) -> None:
    with pytest.raises(Garbage):
        parse_squeue(text)


@given(st.text(alphabet=string.printable.replace("\x1f", ""), max_size=60), st.text(max_size=60))
def test_jobs_of_others_may_be_named_and_commented_as_they_like(name: str, said: str) -> None:
    said = said.replace("\x1f", "")
    text = line("12", "3", "15", "RUNNING", "0", "1", "n1", "None", name, said)
    text += line("16", "N/A", "16", "PENDING", "0", "N/A", "", "None", "main-2", COMMENT)
    assert [job.id for job in parse_squeue(text)] == ["12_3", "16"]


@given(st.text(max_size=2000))
def test_any_text_is_jobs_or_an_error(text: str) -> None:
    for parse in (parse_squeue, parse_sacct):
        with contextlib.suppress(Garbage):
            parse(text)


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ("COMPLETED", 0, 0),
        ("FAILED", 1792, 7),
        ("FAILED", 9, 137),
        ("CANCELLED", 15, 143),
        ("CANCELLED", 0, None),
        ("NODE_FAIL", 0, None),
        ("OUT_OF_MEMORY", 125 << 8, 125),
    ],
)
def test_exit_codes_are_as_a_shell_says_them(state: str, status: int, code: int | None) -> None:
    (job,) = parse_squeue(line("1", "N/A", "1", state, str(status), "N/A", "", "None", "a", "b"))
    assert job.exit_code == code


def test_sacct_tells_ends_only() -> None:
    text = (
        "7_1|FAILED|1:0|node4|main-1\n3|CANCELLED by 0|0:15|node1|main-2\n9|RUNNING|0:0|n1|main-3\n"
        "12_[3-5]|CANCELLED|0:0|None assigned|main-4\n5|TIMEOUT|0:0|None assigned|a|b|c\n"
    )
    one, two, three = parse_sacct(text)
    assert (one.id, one.index, one.exit_code) == ("7_1", 1, 1)
    assert (two.id, two.exit_code) == ("3", 143)
    assert (three.id, three.nodes, three.name) == ("5", "", "a|b|c")


# ---------------------------------------------------------------- whose


@given(st.text(), st.text(), st.text())
def test_a_comment_says_manager_pool_and_submission_whatever_they_are(manager: str, pool: str, submission: str) -> None:
    owner = Owner(*(part.encode("utf-8", "replace").decode() for part in (manager, pool)))
    submission = submission.encode("utf-8", "replace").decode()
    text = comment(owner, submission)
    assert text.isascii()
    assert text.isprintable()
    assert read_comment(text) == (owner, submission)


@pytest.mark.parametrize("text", ["", "(null)", "worker-manager", "worker-manager:a:b", "other:a:b:c", "a:b:c:d:e"])
def test_comments_of_others(text: str) -> None:
    assert read_comment(text) is None


def test_whose_a_job_is() -> None:
    assert submission_if_ours(a_job(), OURS, ()) == "main-1"
    assert submission_if_ours(a_job(), Owner("main", "cpu"), ("main-1",)) == "", "the comment is believed"
    rewritten = a_job(comment="checked", name="train.main-1")
    assert submission_if_ours(rewritten, OURS, ("main-1",)) == "main-1"
    assert submission_if_ours(rewritten, OURS, ()) == ""
    evil = a_job(comment=comment(OURS, "../../etc"))
    assert submission_if_ours(evil, OURS, ()) == "", "it would be a path"


def test_job_names() -> None:
    for prefix in ("", "train", "a.b"):
        assert submission_of(job_name(prefix, "main-1")) == "main-1"
    assert not is_submission("../x")


# ---------------------------------------------------------------- as the contract says it


def test_a_start_that_is_only_an_estimate_is_not_told() -> None:
    assert seen(a_job(state="PENDING", started_at=5), "main-1").started_at is None
    assert seen(a_job(started_at=5), "main-1").started_at == 5


@pytest.mark.parametrize(
    ("job", "phase", "refusal", "detail"),
    [
        (a_job(nodes="n1", reason="None"), WorkerPhase.RUNNING, None, "RUNNING on n1"),
        (
            a_job(state="PENDING", reason="QOSMaxJobsPerUserLimit"),
            WorkerPhase.PENDING,
            RefusalKind.QUOTA,
            "PENDING: QOSMaxJobsPerUserLimit",
        ),
        (
            a_job(state="NODE_FAIL", nodes="n1", reason="NodeDown"),
            WorkerPhase.ENDED,
            RefusalKind.CAPACITY,
            "NODE_FAIL on n1: NodeDown",
        ),
        (
            a_job(state="FAILED", exit_code=127, nodes="n1", reason="NonZeroExitCode"),
            WorkerPhase.ENDED,
            None,
            "FAILED on n1 with status 127: NonZeroExitCode",
        ),
        (a_job(state="FAILED", reason="BadConstraints"), WorkerPhase.ENDED, RefusalKind.CONFIG, None),
        (a_job(state="CANCELLED", reason="JobHeldUser"), WorkerPhase.ENDED, None, None),
        (a_job(state="NEW_STATE"), WorkerPhase.UNKNOWN, None, "NEW_STATE"),
    ],
)
def test_what_is_seen(job: Job, phase: WorkerPhase, refusal: RefusalKind | None, detail: str | None) -> None:
    found = seen(job, "main-1")
    assert (found.phase, found.refusal) == (phase, refusal)
    assert detail is None or found.detail == detail


def test_a_reason_of_ten_megabytes_is_clipped() -> None:
    assert len(seen(a_job(state="PENDING", reason="x" * 10**7), "main-1").detail) <= 2000
