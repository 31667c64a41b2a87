"""The real stager with the real hub: what one job keeps, the next one gets."""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live_stager import LiveStager, StartStager
from worker.files import input_key
from worker.link.address import endpoint

LARGE = os.urandom(5_000_000)


@pytest.fixture(scope="module")
def alice(shared_hub: Any) -> str:
    return str(shared_hub.token("submit", "worker", owner="alice"))


@pytest.fixture
def worker(shared_hub: Any, alice: str, wire_worker: Any, request: Any) -> Iterator[Any]:
    name = "w-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    made = wire_worker(shared_hub, alice, name, can=["inputs", "outputs"])
    made.taken = []
    yield made
    for assignment in made.taken:  # else the next test would be given its jobs
        made.finish(assignment)
    made.report(leaving="the test is over")


@pytest.fixture
def live(shared_hub: Any, worker: Any, start_stager: StartStager) -> LiveStager:
    return start_stager(
        endpoint(shared_hub.url), worker=worker.name, credential=worker.credential, session=worker.session
    )


Taken = Callable[..., Any]


@pytest.fixture
def taken(shared_hub: Any, alice: str, worker: Any) -> Taken:
    """A job of this kind, on this worker."""

    def take(**spec: Any) -> Any:
        job = shared_hub.submit("true", by=alice, **spec)
        assignment = worker.take()
        assert assignment["job"] == job
        worker.taken.append(assignment)
        return assignment

    return take


def staged(live: LiveStager, assignment: Any) -> Path:
    job, epoch = assignment["job"], assignment["epoch"]
    return Path(live.staged(*assignment["work"]["inputs"], job=job, epoch=epoch).folder)


def collected(live: LiveStager, assignment: Any, folder: Path) -> Any:
    job, epoch = assignment["job"], assignment["epoch"]
    return live.collected(folder, *assignment["work"]["outputs"], job=job, epoch=epoch)


def test_what_one_job_keeps_the_next_one_gets(live: LiveStager, worker: Any, taken: Taken, tmp_path: Path) -> None:
    first = taken(outputs=[{"glob": "out/**"}, {"glob": "*.tar", "required": True}])
    folder = tmp_path / "aside"
    (folder / "out" / "deep").mkdir(parents=True)
    (folder / "out" / "large").write_bytes(LARGE)
    (folder / "out" / "deep" / "ä small one").write_bytes(b"abc")
    (folder / "out" / "empty").write_bytes(b"")
    with tarfile.open(folder / "all.tar", "w") as tar:
        tar.add(folder / "out", "out")
    said = collected(live, first, folder)
    assert [file["path"] for file in said.files] == ["all.tar", "out/deep/ä small one", "out/empty", "out/large"]
    worker.taken.remove(first)
    worker.finish(first, files=said.files)
    again = collected(live, taken(outputs=[{"glob": "out"}]), folder)
    assert (again.stats["sent_bytes"], again.stats["files"]) == (0, 3), "the hub has it already"

    job = first["job"]
    second = taken(
        inputs=[
            {"from": f"job:{job}/out/", "to": "tree"},
            {"from": f"job:{job}/out/large", "to": "large", "copy": True},
            {"from": f"job:{job}/all.tar", "to": "unpacked", "unpack": True},
        ]
    )
    got = staged(live, second)
    assert (got / "tree" / "large").read_bytes() == (got / "large").read_bytes() == LARGE
    assert (got / "tree" / "deep" / "ä small one").read_bytes() == b"abc"
    assert (got / "tree" / "empty").read_bytes() == b""
    assert (got / "unpacked" / "out" / "large").read_bytes() == LARGE
    key = input_key(hashlib.sha256(LARGE).hexdigest(), False)
    assert list((live.cache_dir / "entries").glob(f"*/{key}")), "as the hub calls it when it looks who has it"


def test_what_is_no_longer_there(live: LiveStager, worker: Any, taken: Taken, shared_hub: Any, alice: str) -> None:
    data = b"to be lost"
    sha256 = hashlib.sha256(data).hexdigest()
    headers = {"Authorization": f"Bearer {alice}", "Upload-Offset": "0", "Upload-Length": str(len(data))}
    headers["Content-Type"] = "application/octet-stream"
    shared_hub.call("PATCH", f"/v1/blobs/{sha256}", by=None, headers=headers, data=data)
    assignment = taken(inputs=[{"source": f"blob:{sha256}", "to": "x"}])
    stored = [path for path in shared_hub.state_dir.rglob(f"*{sha256}*") if path.is_file()]
    for path in stored:
        path.unlink()
    assert stored
    said = live.not_staged(*assignment["work"]["inputs"], job=assignment["job"], epoch=assignment["epoch"])
    assert said.outcome == "failed" and said.reason.startswith("input-"), said


def test_an_attempt_that_the_worker_does_not_hold(live: LiveStager, worker: Any) -> None:
    said = live.not_staged({"to": "x", "source": "blob:" + "0" * 64}, job="j999999")
    assert (said.outcome, said.reason) == ("returned", "staging-failed")
