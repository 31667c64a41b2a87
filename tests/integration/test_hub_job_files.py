"""Files that jobs have kept, read from a real hub: listed in pages, fetched whole and in ranges, and from object
storage by an address that the hub signs, below the prefixes that its operator named and nowhere else."""

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from tests.stand_ins.aws import AwsStandIn

STRANGE = "out/a b+c%d/ä~'(1)?.txt"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(url: str) -> bytes:
    return requests.get(url, timeout=30).content


class Kept:
    """An alice with a worker that runs nothing, and keeps what it is told to."""

    def __init__(self, hub: Any, wire_worker: Any, name: str = "w-files") -> None:
        self.hub = hub
        self.alice = hub.token("submit", "worker", owner="alice")
        self.worker = wire_worker(hub, self.alice, name, can=["inputs", "outputs"])

    def job(self, files: dict[str, bytes], to: str = "hub", **spec: Any) -> str:
        name = self.hub.submit("true", by=self.alice, outputs=[{"glob": "**", "to": to}], **spec)
        assignment = self.worker.take()
        assert assignment["job"] == name
        self.worker.finish(assignment, files=[self.send(assignment, *each, to) for each in files.items()])
        return str(name)

    def send(self, assignment: Any, path: str, data: bytes, to: str) -> dict[str, Any]:
        file = {"path": path, "size": len(data), "sha256": digest(data)}
        (answer,) = self.ask(assignment, put=[{**file, "to": to}])["put"]
        if not answer.get("there"):
            headers = dict(answer["headers"])
            url = answer["url"]
            if answer["method"] == "PATCH":
                url = self.hub.url + url
                headers |= {"Upload-Offset": "0", "Upload-Length": str(len(data))}
                headers["Content-Type"] = "application/octet-stream"
            sent = requests.request(answer["method"], url, data=data, headers=headers, timeout=30)
            assert sent.status_code in (200, 201), sent.text
        return {**file, "at": answer["at"]}

    def ask(self, assignment: Any, **asked: Any) -> Any:
        mine = {"session": self.worker.session, "job": assignment["job"], "epoch": assignment["epoch"]}
        reply = self.worker.call("grants", {**mine, **asked})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def file(self, job: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("by", self.alice)
        reply = self.hub.call("GET", f"/v1/jobs/{job}/files/{quote(path)}", **options)
        assert isinstance(reply, requests.Response)
        return reply


@pytest.fixture(scope="module")
def kept(shared_hub: Any) -> Kept:
    from tests.integration.conftest import WireWorker

    return Kept(shared_hub, WireWorker)


def test_files_are_listed_in_pages_by_path(kept: Kept) -> None:
    job = kept.job({f"out/{number}": b"x" * number for number in range(5)})
    pages, cursor = [], None
    while True:
        page = kept.hub.get(f"/v1/jobs/{job}/files", by=kept.alice, params={"limit": 2, "cursor": cursor})
        assert (page["job"], page["attempt"], page["count"], page["size"]) == (job, 1, 5, 10)
        pages.append([file["path"] for file in page["files"]])
        cursor = page["next"]
        if cursor is None:
            break
    assert pages == [["out/0", "out/1"], ["out/2", "out/3"], ["out/4"]]
    assert kept.hub.get(f"/v1/jobs/{job}", by=kept.alice)["files"] == {"count": 5, "size": 10}
    assert kept.hub.get(f"/v1/jobs/{job}/files", by=kept.alice, params={"attempt": 2})["files"] == []


def test_a_file_comes_whole_in_ranges_and_by_whatever_name(kept: Kept) -> None:
    data = b"0123456789" * 10_000
    job = kept.job({STRANGE: data, "empty": b""})
    whole = kept.file(job, STRANGE)
    assert (whole.status_code, whole.content, whole.headers["ETag"]) == (200, data, f'"{digest(data)}"')
    assert "filename*=UTF-8''%C3%A4" in whole.headers["Content-Disposition"]
    part = kept.file(job, STRANGE, headers={"Range": "bytes=5-14"})
    assert (part.status_code, part.content) == (206, b"5678901234")
    assert kept.file(job, "empty").content == b""
    head = kept.hub.call("HEAD", f"/v1/jobs/{job}/files/{quote(STRANGE)}", by=kept.alice)
    assert (head.headers["Content-Length"], head.content) == (str(len(data)), b"")


def test_only_who_may_see_the_job_sees_its_files(kept: Kept) -> None:
    job = kept.job({"a": b"secret"})
    bob = kept.hub.token("submit", owner="bob")
    assert kept.file(job, "a", by=bob).status_code == 404
    assert kept.hub.call("GET", f"/v1/jobs/{job}/files", by=bob).status_code == 404
    assert kept.file(job, "a", by=None).status_code == 401
    assert kept.file(job, "a", by=kept.hub.token("read", owner="carol")).content == b"secret"
    for path in ("b", "a/b", "../a", "a%2f..%2fa", "%2e%2e/a", "a\0"):
        assert kept.file(job, path).status_code in (400, 404), path
    assert kept.hub.call("GET", f"/v1/jobs/{job}/files", by=kept.alice, params={"cursor": "x"}).status_code == 422
    assert kept.hub.call("GET", "/v1/jobs/j999999/files", by=kept.alice).status_code == 404


def test_an_answer_has_room_for_so_many_files_and_the_rest_is_asked_for_by_itself(kept: Kept) -> None:
    first = kept.job({"one": b"x"})
    (blob,) = kept.hub.get(f"/v1/jobs/{first}/files", by=kept.alice)["files"]
    many = []
    for _ in range(2):
        name = kept.hub.submit("true", by=kept.alice, outputs=[{"glob": "**"}])
        assignment = kept.worker.take()
        kept.worker.finish(assignment, files=[{**blob, "path": f"out/{number}"} for number in range(6000)])
        many.append(f"job:{name}/out")
    kept.hub.submit("true", by=kept.alice, inputs=[{"from": source, "to": f"{n}"} for n, source in enumerate(many)])
    assignment = kept.worker.take()
    one, other = kept.ask(assignment, get=many)["get"]
    assert (len(one["files"]), other["refused"]["code"]) == (6000, "ask-again")
    (other,) = kept.ask(assignment, get=many[1:])["get"]
    assert len(other["files"]) == 6000
    kept.worker.finish(assignment)


# ---------------------------------------------------------------- object storage


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsStandIn]:
    with AwsStandIn() as stand_in:
        for name, value in {**stand_in.credentials, "AWS_ENDPOINT_URL_S3": stand_in.url}.items():
            monkeypatch.setenv(name, value)  # the hub that is started has it from here
        stand_in.client("s3").create_bucket(Bucket="bucket")
        yield stand_in


def test_through_object_storage(aws: AwsStandIn, start_hub: Any, wire_worker: Any) -> None:
    hub = start_hub(storages=("s3://bucket/of/{owner}",))
    kept = Kept(hub, wire_worker)
    client = aws.client("s3")

    # What the operator did not name is refused when it is submitted, with what there is.
    for spec, where in (
        ({"inputs": [{"from": "s3://bucket/of/bob/a"}]}, "jobs[0].inputs[0].source"),
        ({"outputs": [{"glob": "a", "to": "s3://bucket/of/"}]}, "jobs[0].outputs[0].to"),
        ({"inputs": [{"from": "gs://bucket/of/alice/a"}]}, "jobs[0].inputs[0].source"),
    ):
        refused = hub.call("POST", "/v1/jobs", {"jobs": [{"command": ["true"], **spec}]}, by=kept.alice)
        assert (refused.status_code, refused.json()["errors"][0]["where"]) == (422, where)
        assert "s3://bucket/of/alice/" in refused.json()["detail"]

    # What a job keeps goes there by signed addresses, and people are led to it.
    data = b"table\n" * 1000
    job = kept.job({"out/table": data, STRANGE: b"strange"}, to="s3://bucket/of/alice/{job}/")
    listed = hub.get(f"/v1/jobs/{job}/files", by=kept.alice)["files"]
    assert [file["at"] for file in listed][1] == f"s3://bucket/of/alice/{job}/out/table"
    assert client.get_object(Bucket="bucket", Key=f"of/alice/{job}/out/table")["Body"].read() == data
    led = kept.file(job, "out/table", allow_redirects=False)
    assert (led.status_code, urlsplit(led.headers["Location"]).netloc) == (302, urlsplit(aws.url).netloc)
    assert fetch(led.headers["Location"]) == data
    assert fetch(kept.file(job, STRANGE, allow_redirects=False).headers["Location"]) == b"strange"

    # The next job takes it from there, a folder and one object, and all below a prefix.
    for name in ("data/1", "data/deep/2", "data/", "alone"):
        client.put_object(Bucket="bucket", Key=f"of/alice/{name}", Body=name.encode() if name[-1] != "/" else b"")
    sources = [
        f"job:{job}/out",
        "s3://bucket/of/alice/alone",
        "s3://bucket/of/alice/data/",
        "s3://bucket/of/alice/gone",
        "s3://bucket/of/alice/none/",
    ]
    later = hub.submit("true", by=kept.alice, inputs=[{"from": s, "to": f"in{n}"} for n, s in enumerate(sources)])
    assignment = kept.worker.take()
    assert assignment["job"] == later
    folder, one, below, gone, none = kept.ask(assignment, get=sources)["get"]
    assert {file["path"]: fetch(file["url"]) for file in folder["files"]} == {
        "table": data,
        STRANGE.removeprefix("out/"): b"strange",
    }
    assert [file["sha256"] for file in folder["files"] if file["path"] == "table"] == [digest(data)]
    assert [(file["path"], file["size"]) for file in one["files"]] == [("", 5)]
    assert fetch(one["files"][0]["url"]) == b"alone"
    assert [file["path"] for file in below["files"]] == ["1", "deep/2"]
    assert gone["refused"]["code"] == none["refused"]["code"] == "source-missing"
    kept.worker.finish(assignment)


def test_a_storage_that_is_not_named_any_more_is_not_signed_for(
    aws: AwsStandIn, start_hub: Any, wire_worker: Any
) -> None:
    hub = start_hub(storages=("s3://bucket/a", "s3://bucket/b"))
    kept = Kept(hub, wire_worker)
    job = kept.job({"x": b"x"}, to="s3://bucket/a/")
    source = "s3://bucket/a/x"
    hub.submit("true", by=kept.alice, inputs=[{"from": source}])
    assignment = kept.worker.take()
    start_again = hub.settings.__class__(hub.state_dir, listen=urlsplit(hub.url).netloc, storages=("s3://bucket/b",))
    hub.settings = start_again
    hub.restart()
    (answer,) = kept.ask(assignment, get=[source])["get"]
    assert answer["refused"]["code"] == "storage-not-named"
    assert kept.file(job, "x", allow_redirects=False).status_code == 403


def test_a_hub_is_not_started_with_a_storage_that_is_none(start_hub: Any) -> None:
    from worker_manager.hub.discovery import HubDidNotStart

    with pytest.raises(HubDidNotStart, match="is no storage"):
        start_hub(storages=("https://example.org/",))
