"""Azure Batch: launching, listing and ending workers, by the official client against a stand-in."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.base import Accepted, ListFailed, RefusalKind, Refused, Severity, Unknown, WorkerPhase
from tests.stand_ins.azure_batch import FakeBatch
from tests.stand_ins.azure_blobs import FakeBlobs
from tests.stand_ins.azure_place import JOB, Place, bad, seen, until
from tests.stand_ins.azure_wire import Refusal
from worker_manager.clock import ManualClock


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.fake.make(JOB)
    yield made
    made.fake.close()
    assert made.fake.problems == []


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Place]:
    """Without processes, so that thousands cost nothing."""
    made = Place(tmp_path, runs=False, slots=10**6)
    made.fake.make(JOB)
    yield made
    made.fake.close()
    assert made.fake.problems == []


# ---------------------------------------------------------------- launching


def test_a_create_is_tried_once(place: Place) -> None:
    """The client would try a 503 ten times by itself."""
    backend = place.backend()
    busy = Refusal(503, "ServerBusy", "The server is busy.", {"Retry-After": "11"})
    place.fake.refuse("add", busy)
    outcome = backend.launch(place.submission())
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.retry_after_s) == (RefusalKind.THROTTLED, 11.0)
    place.fake.refuse("add", Refusal(500, "InternalError", "oh"))
    assert isinstance(backend.launch(place.submission()), Unknown)
    place.fake.cut("add", after=True)
    assert isinstance(backend.launch(place.submission()), Unknown)
    assert place.fake.calls["add"] == 3
    assert place.tasks() == {"m-3-0"}


def test_garbage_for_an_answer_is_unknown(place: Place) -> None:
    backend = place.backend()
    for body in (b"<html>", b"{}", b'{"value": 7}', b"[]", b"null", b'{"value": [7]}', b""):
        place.fake.garble("add", body)
        assert isinstance(backend.launch(place.submission()), Unknown), body


def test_a_refusal_of_ten_megabytes_is_one_page(place: Place) -> None:
    place.fake.refuse("add", Refusal(409, "JobNotActive", "x" * 10**7))
    outcome = place.backend().launch(place.submission())
    assert isinstance(outcome, Refused)
    assert len(outcome.text) <= 2000


def refuse_task(place: Place, id: str, refusal: Refusal) -> None:
    def does(_: Any) -> bool:
        raise refusal

    place.fake.order(f"task {id}", does)


def test_where_one_of_several_is_refused_none_is_left(place: Place) -> None:
    refuse_task(place, "m-1-2", Refusal(400, "InvalidPropertyValue", "no such image"))
    outcome = place.backend().launch(place.submission(count=4))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    assert "m-1-2: InvalidPropertyValue: no such image" in outcome.text
    assert place.tasks() == set()


def test_where_that_cannot_be_undone_it_is_unknown(place: Place) -> None:
    refuse_task(place, "m-1-2", Refusal(400, "InvalidPropertyValue", "no such image"))
    place.fake.refuse("delete", Refusal(500, "InternalError", "oh"))
    outcome = place.backend().launch(place.submission(count=4))
    assert isinstance(outcome, Unknown)
    assert "m-1-0, which was taken, cannot be deleted" in outcome.text
    assert place.tasks() == {"m-1-0", "m-1-1", "m-1-3"}


def test_where_the_service_failed_for_one_of_several_it_is_unknown(place: Place) -> None:
    refuse_task(place, "m-1-2", Refusal(500, "InternalError", "oh"))
    backend = place.backend()
    submission = place.submission(count=4)
    assert isinstance(backend.launch(submission), Unknown)
    assert len(place.tasks()) == 3
    assert isinstance(backend.launch(submission), Accepted), "the rest is added, and what is there is left alone"
    assert len(place.tasks()) == 4


def test_a_task_of_another_that_has_the_name_is_not_taken_for_ours(place: Place) -> None:
    theirs = place.submission(id="m-9")
    place.backend("m").launch(theirs)
    place.fake.tasks[JOB]["m-9-0"].spec["displayName"] = "somebody's"
    outcome = place.backend().launch(theirs)
    assert isinstance(outcome, Refused)
    assert "m-9-0 exists already in workers, made by another" in outcome.text
    assert place.tasks() == {"m-9-0"}
    assert place.backend().list().seen == ()


@pytest.mark.parametrize(
    ("state", "code"), [("disabled", "JobDisabled"), ("completed", "JobCompleted"), ("terminating", "JobNotActive")]
)
def test_a_job_that_takes_no_tasks_is_said(place: Place, state: str, code: str) -> None:
    place.fake.jobs[JOB]["state"] = state
    backend = place.backend()
    outcome = backend.launch(place.submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    assert code in outcome.text
    finding = bad(backend.check())["job"]
    assert f"workers is {state}" in finding.text
    assert finding.mend


# ---------------------------------------------------------------- listing


@pytest.mark.parametrize(
    "body", [b"{}", b'{"value": {}}', b'{"value": [7]}', b"null", b"7", b"", b'{"value": [{"id": 1}']
)
def test_an_answer_without_a_list_is_not_an_empty_list(place: Place, body: bytes) -> None:
    backend = place.backend()
    place.fake.garble("list", body)
    with pytest.raises(ListFailed):
        backend.list()


def test_an_empty_list_is_empty(place: Place) -> None:
    assert place.backend().list().seen == ()
    assert place.backend().list().complete


def test_a_link_to_somewhere_else_is_not_followed(place: Place, tmp_path: Path) -> None:
    """Not even where it would be understood: what goes there carries a signature, or a token."""
    elsewhere = FakeBatch(tmp_path / "elsewhere")
    elsewhere.make(JOB)
    backend = place.backend()
    backend.launch(place.submission())
    task = place.fake._shown(place.fake.tasks[JOB]["m-1-0"])
    body = {"value": [task], "odata.nextLink": f"{elsewhere.url}/jobs/workers/tasks?$skiptoken=1"}
    place.fake.garble("list", json.dumps(body).encode())
    listing = backend.list()
    assert [one.handle for one in listing.seen] == ["m-1-0"]
    assert not listing.complete
    assert sum(elsewhere.calls.values()) == 0
    elsewhere.close()


def test_ends_of_long_ago_are_not_asked_for(idle: Place) -> None:
    """A job keeps its tasks for ever: without this every listing would be longer than the last."""
    idle.clock = ManualClock(now_ms=int(time.time() * 1000))
    backend = idle.backend(keep_ended="10m")
    backend.launch(idle.submission(count=3))
    backend.terminate("m-1-0", force=True)
    assert len(backend.list().seen) == 3
    idle.clock.advance(3_600_000)
    assert {one.handle for one in backend.list().seen} == {"m-1-1", "m-1-2"}


def test_a_worker_that_azure_started_again_is_queued_and_says_so(place: Place) -> None:
    backend = place.backend()
    backend.launch(place.submission())
    until(lambda: seen(backend, "m-1-0").phase is WorkerPhase.RUNNING, "the worker")
    task = place.fake.tasks[JOB]["m-1-0"]
    task.state, task.requeues, task.held = "active", 1, True
    one = seen(backend, "m-1-0")
    assert (one.phase, one.started_at) == (WorkerPhase.PENDING, None)
    assert "started again by Azure" in one.detail


def test_a_pool_that_cannot_be_read_hides_no_worker(place: Place) -> None:
    place.fake.refuse("pool", Refusal(500, "InternalError", "oh"))
    place.fake.hold_next = 1
    backend = place.backend()
    backend.launch(place.submission())
    assert "why it waits cannot be told" in seen(backend, "m-1-0").detail
    del place.fake.pools["pool-1"]
    fresh = place.backend()
    assert seen(fresh, "m-1-0").refusal is RefusalKind.CONFIG
    assert "PoolNotFound" in seen(fresh, "m-1-0").detail


# ---------------------------------------------------------------- ending


def test_an_end_kills_all_that_the_worker_started(place: Place) -> None:
    backend = place.backend()
    backend.launch(place.submission(command=("/bin/sh", "-c", "setsid sleep 600 & sleep 600 & echo here; wait")))
    until(lambda: "here" in backend.logs("m-1-0", 100), "its first word")
    assert isinstance(backend.terminate("m-1-0", force=False), Accepted)
    assert not place.fake.alive(JOB, "m-1-0")
    one = seen(backend, "m-1-0")
    assert (one.phase, one.detail) == (WorkerPhase.ENDED, "ended on request; on node tvm-1")


def test_what_is_queued_is_ended_without_a_node(place: Place) -> None:
    place.fake.hold_next = 1
    backend = place.backend()
    backend.launch(place.submission())
    assert isinstance(backend.terminate("m-1-0", force=True), Accepted)
    assert seen(backend, "m-1-0").phase is WorkerPhase.ENDED


def test_force_deletes_what_azure_will_not_terminate(place: Place) -> None:
    backend = place.backend()
    backend.launch(place.submission())
    refusal = Refusal(409, "OperationInvalidForCurrentState", "not now")
    place.fake.refuse("terminate", refusal)
    outcome = backend.terminate("m-1-0", force=False)
    assert isinstance(outcome, Refused)
    place.fake.refuse("terminate", refusal)
    assert isinstance(backend.terminate("m-1-0", force=True), Accepted)
    assert place.tasks() == set()


def test_tasks_of_others_are_out_of_reach(place: Place) -> None:
    place.backend("m").launch(place.submission())
    before = sum(place.fake.calls.values())
    stranger = place.backend("other")
    assert isinstance(stranger.terminate("m-1-0", force=True), Accepted)
    assert stranger.logs("m-1-0", 100) == ""
    assert sum(place.fake.calls.values()) == before
    assert place.tasks() == {"m-1-0"}


# ---------------------------------------------------------------- output


@pytest.fixture
def blobs() -> Iterator[FakeBlobs]:
    made = FakeBlobs()
    yield made
    made.close()


def test_output_is_read_from_the_node_and_then_from_the_container(place: Place, blobs: FakeBlobs) -> None:
    place.sas = blobs.sas
    backend = place.backend(log_container_url=blobs.container, log_container_sas="env:SAS")
    says = "echo out; echo err >&2; sleep 0.2; echo over"
    backend.launch(place.submission(command=("/bin/sh", "-c", says)))
    until(lambda: backend.logs("m-1-0", 1000).startswith("out\nerr\n"), "output of a running task")
    until(lambda: seen(backend, "m-1-0").phase is WorkerPhase.ENDED, "its end")
    assert backend.logs("m-1-0", 1000) == "out\nerr\nover\n"
    assert blobs.blobs["m-1-0/stdout.txt"] == b"out\nerr\nover\n"
    place.fake.refuse("files", Refusal(409, "TaskFilesCleanedup", "the node is gone"))
    assert backend.logs("m-1-0", 1000) == "out\nerr\nover\n"
    place.fake.refuse("files", Refusal(404, "TaskNotFound", "the task is gone"))
    assert backend.logs("m-1-0", 5) == "over\n"
    assert "log_container" not in repr(backend)
    assert not bad(backend.check()).keys() - {"logs"}
    (warning,) = [one for one in backend.check() if one.subject == "logs" and one.severity is not Severity.OK]
    assert "a SAS stands in every task" in warning.text


def test_output_that_cannot_be_read_is_said(place: Place) -> None:
    backend = place.backend()
    place.fake.refuse("files", Refusal(500, "InternalError", "oh"))
    assert backend.logs("m-1-0", 1000).startswith("[its output cannot be read: Azure Batch answered 500")
    assert backend.logs("m-1-0", 1000) == ""
