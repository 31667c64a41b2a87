"""What workers are granted by a real hub: only for what they hold, and only what stands in it."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

BLOB = b"weights\n" * 1000


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def upload(hub: Any, data: bytes, by: str) -> str:
    headers = {
        "Authorization": f"Bearer {by}",
        "Upload-Offset": "0",
        "Upload-Length": str(len(data)),
        "Content-Type": "application/octet-stream",
    }
    sent = hub.call("PATCH", f"/v1/blobs/{digest(data)}", by=None, headers=headers, data=data)
    assert sent.status_code == 201, sent.text
    return f"blob:{digest(data)}"


def grants(worker: Any, assignment: Any, **asked: Any) -> Any:
    mine = {"session": worker.session, "job": assignment["job"], "epoch": assignment["epoch"], **asked}
    return worker.call("grants", mine)


def granted(worker: Any, assignment: Any, **asked: Any) -> Any:
    reply = grants(worker, assignment, **asked)
    assert reply.status_code == 200, reply.text
    return reply.json()


def to_keep(path: str, data: bytes, to: str = "hub") -> dict[str, Any]:
    return {"path": path, "size": len(data), "sha256": digest(data), "to": to}


@pytest.fixture(scope="module")
def alice(shared_hub: Any) -> str:
    return str(shared_hub.token("submit", "worker", owner="alice"))


@pytest.fixture
def worker(shared_hub: Any, alice: str, wire_worker: Any, request: Any) -> Iterator[Any]:
    name = f"w-{digest(request.node.name.encode())[:20]}"
    made = wire_worker(shared_hub, alice, name, can=["inputs", "outputs"])
    yield made
    for assignment in getattr(made, "taken", []):
        made.finish(assignment)
    made.report(leaving="the test is over")


def take(hub: Any, worker: Any, by: str, **spec: Any) -> Any:
    """A job of these files, on this worker."""
    job = hub.submit("true", by=by, **spec)
    assignment = worker.take()
    assert assignment["job"] == job
    worker.taken = [*getattr(worker, "taken", []), assignment]
    return assignment


def test_a_blob_is_fetched_by_an_address_that_needs_no_token(shared_hub: Any, alice: str, worker: Any) -> None:
    source = upload(shared_hub, BLOB, alice)
    assignment = take(shared_hub, worker, alice, inputs=[{"source": source, "to": "model"}])
    assert assignment["work"]["inputs"] == [{"to": "model", "source": source, "sha256": digest(BLOB)}]
    answer = granted(worker, assignment, get=[source])
    (file,) = answer["get"][0]["files"]
    assert (file["path"], file["size"], file["sha256"]) == ("", len(BLOB), digest(BLOB))
    assert file["url"].startswith("/v1/blobs/")
    assert shared_hub.call("GET", file["url"], by=None).content == BLOB
    assert shared_hub.call("GET", file["url"].replace("signature=", "signature=x"), by=None).status_code == 403
    now = shared_hub.get("/v1/info")["now_ms"]
    assert 14 * 60_000 < answer["until_ms"] - now <= 15 * 60_000


def test_what_a_job_leaves_is_sent_listed_and_taken_by_the_next(shared_hub: Any, alice: str, worker: Any) -> None:
    assignment = take(shared_hub, worker, alice, outputs=[{"glob": "out/**"}, {"glob": "log"}])
    new, there = b"a new table", BLOB
    upload(shared_hub, there, alice)
    answer = granted(worker, assignment, put=[to_keep("out/new", new), to_keep("log", there)])
    first, second = answer["put"]
    assert second == {"there": True, "at": f"blob:{digest(there)}"}
    assert (first["method"], first["at"]) == ("PATCH", f"blob:{digest(new)}")
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(new)), "Content-Type": "application/octet-stream"}
    sent = shared_hub.call("PATCH", first["url"], by=None, headers=headers, data=new)
    assert sent.status_code == 201, sent.text
    kept = [
        {"path": "out/new", "size": len(new), "sha256": digest(new), "at": first["at"]},
        {"path": "log", "size": len(there), "sha256": digest(there), "at": second["at"]},
    ]
    worker.finish(assignment, files=kept)
    job = assignment["job"]
    assert shared_hub.get(f"/v1/jobs/{job}", by=alice)["files"] == {"count": 2, "size": len(new) + len(there)}

    later = take(
        shared_hub, worker, alice, inputs=[{"from": f"job:{job}/out/", "to": "in"}, {"from": f"job:{job}/log"}]
    )
    whole, one = granted(worker, later, get=[f"job:{job}/out/", f"job:{job}/log"])["get"]
    assert [(file["path"], file["sha256"]) for file in whole["files"]] == [("new", digest(new))]
    assert [(file["path"], file["sha256"]) for file in one["files"]] == [("", digest(there))]
    assert shared_hub.call("GET", whole["files"][0]["url"], by=None).content == new
    worker.finish(later)


def test_what_does_not_stand_in_the_job_is_refused(shared_hub: Any, alice: str, worker: Any) -> None:
    mine, other = upload(shared_hub, BLOB, alice), upload(shared_hub, b"not in the job", alice)
    assignment = take(
        shared_hub,
        worker,
        alice,
        inputs=[{"source": mine, "to": "a"}, {"from": "https://example.org/b"}],
        outputs=[{"glob": "out"}],
    )
    answer = granted(
        worker,
        assignment,
        get=[mine, other, "https://example.org/b", "file:///etc/passwd", "s3://bucket/a"],
        put=[to_keep("out", BLOB), to_keep("out", BLOB, to="s3://bucket/stolen/")],
    )
    said = [each.get("refused", {}).get("code") for each in answer["get"]]
    assert said == [None, "not-in-the-job", "no-grant-needed", "not-in-the-job", "not-in-the-job"]
    assert [each.get("refused", {}).get("code") for each in answer["put"]] == [None, "not-in-the-job"]


def test_only_the_worker_that_holds_the_current_attempt_is_answered(
    shared_hub: Any, alice: str, worker: Any, wire_worker: Any
) -> None:
    source = upload(shared_hub, BLOB, alice)
    assignment = take(shared_hub, worker, alice, inputs=[{"source": source, "to": "a"}])
    other = wire_worker(shared_hub, alice, "w-other")
    for asking, told, code in (
        (other, assignment, "attempt-not-held"),
        (worker, {**assignment, "epoch": 0}, "attempt-not-held"),
        (worker, {**assignment, "epoch": assignment["epoch"] + 1}, "attempt-not-held"),
        (worker, {**assignment, "job": "j999999"}, "attempt-not-held"),
    ):
        reply = grants(asking, told, get=[source])
        assert (reply.status_code, reply.json()["code"]) == (409, code)
    old = worker.session
    worker.session = old + 1
    assert grants(worker, assignment, get=[source]).json()["code"] == "session-superseded"
    worker.session = old
    asked = {"session": old, "job": assignment["job"], "epoch": assignment["epoch"], "get": [source]}
    path = f"/v1/workers/{worker.name}/grants"
    assert shared_hub.call("POST", path, asked, by=other.credential).status_code == 401
    assert shared_hub.call("POST", path, asked, by=alice).status_code == 401
    worker.finish(assignment)
    assert grants(worker, assignment, get=[source]).status_code == 409
    other.report(leaving="the test is over")


def test_anothers_files_are_not_there(shared_hub: Any, alice: str, worker: Any) -> None:
    bob = shared_hub.token("submit", "worker", owner="bob")
    theirs = upload(shared_hub, b"bob's own", bob)
    refused = shared_hub.call(
        "POST", "/v1/jobs", {"jobs": [{"command": ["true"], "inputs": [{"source": theirs, "to": "a"}]}]}, by=alice
    )
    assert (refused.status_code, refused.json()["errors"][0]["where"]) == (422, "jobs[0].inputs[0].source")
    theirs_too = shared_hub.submit("true", by=bob, tags=["nowhere"])
    refused = shared_hub.call(
        "POST", "/v1/jobs", {"jobs": [{"command": ["true"], "inputs": [{"from": f"job:{theirs_too}/a"}]}]}, by=alice
    )
    assert (refused.status_code, "no such job of yours" in refused.text) == (422, True)
    assignment = take(shared_hub, worker, alice, outputs=[{"glob": "out"}])
    (answer,) = granted(worker, assignment, put=[to_keep("out", b"bob's own")])["put"]
    assert "there" not in answer  # that bob has the same bytes is not told
    stolen = {"path": "out", "size": 9, "sha256": digest(b"bob's own"), "at": theirs}
    worker.finish(assignment, files=[stolen])
    assert shared_hub.get(f"/v1/jobs/{assignment['job']}", by=alice)["files"] is None


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"get": "s3://bucket/a"}, "get"),
        ({"get": [1]}, "get[0]"),
        ({"get": ["a"] * 1001}, "get"),
        ({"put": [{"path": "../a", "size": 1, "sha256": "0" * 64, "to": "hub"}]}, "put[0].path"),
        ({"put": [{"path": "a", "size": -1, "sha256": "0" * 64, "to": "hub"}]}, "put[0].size"),
        ({"put": [{"path": "a", "size": 1, "sha256": "0" * 63, "to": "hub"}]}, "put[0].sha256"),
        ({"put": [{"path": "a", "size": 1, "sha256": "0" * 64}]}, "put[0].to"),
        ({"put": ["a"]}, "put[0]"),
        ({"job": "../j1"}, "job"),
    ],
)
def test_a_question_that_makes_no_sense_is_explained(worker: Any, asked: Any, where: str) -> None:
    reply = grants(worker, {"job": "j1", "epoch": 1}, **asked)
    assert (reply.status_code, reply.json()["errors"][0]["where"]) == (422, where)


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ([{"path": "/a", "size": 1, "sha256": "0" * 64, "at": "blob:" + "0" * 64}], "results[0].files[0]"),
        ([{"path": "a", "size": None, "sha256": "0" * 64, "at": "blob:" + "0" * 64}], "results[0].files[0]"),
        ([{"path": "a", "size": 1, "sha256": "0" * 64, "at": "https://example.org/a"}], "results[0].files[0]"),
        ([{"path": "a", "size": 1, "sha256": 7, "at": "blob:" + "0" * 64}], "results[0].files[0]"),
        (["a"], "results[0].files[0]"),
        ("a", "results[0].files"),
        ([{}] * 10_001, "results[0].files"),
    ],
)
def test_files_of_a_result_are_looked_over(worker: Any, files: Any, where: str) -> None:
    result = {"job": "j1", "epoch": 1, "outcome": "succeeded", "run_ms": 1, "reason": "", "text": "", "files": files}
    reply = worker.call("report", {"session": worker.session, "seq": worker.seq + 1, "results": [result]})
    assert (reply.status_code, reply.json()["errors"][0]["where"]) == (422, where)
