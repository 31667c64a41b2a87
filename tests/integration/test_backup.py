"""A state directory is copied while its hub works, and the copy is a state directory."""

import sqlite3
import threading
from pathlib import Path

import pytest

from tests.place import Place, until
from worker_manager.blob_client import BlobClient
from worker_manager.errors import HubError, StoreError, UsageError
from worker_manager.hub.backup import backup


def test_a_copy_made_under_load_holds_everything_that_was_acknowledged_before(place: Place, tmp_path: Path) -> None:
    place.manage("--min-workers", "0", "up", "--cpus", "1", "--memory", "256MiB")
    job = place.run("submit", "--wait", "--", "echo", "kept").split()[0]
    client, over, acknowledged = place.client(), threading.Event(), 0

    def submit() -> None:
        while not over.is_set():
            client.post("/v1/jobs", {"jobs": [{"command": ["true"], "resources": {"gpus": 9}}] * 50})

    load = threading.Thread(target=submit)
    load.start()
    try:
        until(lambda: place.ask("/v1/info")["jobs"]["queued"] > 200, "some load")
        acknowledged = place.ask("/v1/info")["jobs"]["queued"]
        place.run("hub", "backup", str(tmp_path / "copy"))
    finally:
        over.set()
        load.join()
    copy = Place(tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
    try:
        copy.run("hub", "start")
        info = copy.ask("/v1/info")
        assert info["jobs"]["succeeded"] == 1
        assert info["jobs"]["queued"] >= acknowledged
        assert copy.run("logs", job) == "kept\n"
        assert copy.hub() != place.hub()
    finally:
        copy.run("hub", "stop")
    place.run("down", "--now")


def test_a_hub_that_does_not_run_is_copied_as_well(place: Place, tmp_path: Path) -> None:
    place.run("hub", "start")
    place.submit("--", "true")
    place.run("hub", "stop")
    place.run("hub", "backup", str(tmp_path / "copy"))
    with sqlite3.connect(tmp_path / "copy" / "hub.sqlite") as copied:
        assert copied.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    assert "is there already" in place.run("hub", "backup", str(tmp_path / "copy"), code=2)


def test_what_cannot_be_copied_leaves_nothing_behind(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with pytest.raises(UsageError, match="pg_dump"):
        backup(state, tmp_path / "copy")
    (state / "hub.sqlite").write_bytes(b"not a database at all, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="could not be written"):
        backup(state, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_files_of_jobs_are_in_the_copy_and_half_sent_ones_are_not(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"what a job takes")
    place.run("hub", "start")
    sent = BlobClient(place.client()).upload(tmp_path / "file")
    half = {"Upload-Offset": "0", "Upload-Length": "9"}
    place.client().exchange("PATCH", f"/v1/blobs/{'0' * 64}", body=b"half", headers=half)
    place.run("hub", "backup", str(tmp_path / "copy"))
    place.run("hub", "backup", "--without-blobs", str(tmp_path / "less"))
    assert not (tmp_path / "less" / "blobs").exists()
    (copied,) = [path for path in (tmp_path / "copy" / "blobs").rglob("*") if path.is_file()]
    assert copied.name == sent.sha256 and copied.stat().st_mode & 0o777 == 0o600
    for folder in ("copy", "less"):
        assert not (tmp_path / folder / "blob-grants.key").exists()
    place.run("hub", "stop")
    copy, less = Place(tmp_path / "copy"), Place(tmp_path / "less")
    try:
        for restored in (copy, less):
            restored.run("hub", "start")
        got = BlobClient(copy.client()).download(sent.sha256, tmp_path / "back")
        assert got == sent and (tmp_path / "back").read_bytes() == b"what a job takes"
        with pytest.raises(HubError, match="no blob"):
            BlobClient(less.client()).download(sent.sha256, tmp_path / "gone")
        assert BlobClient(less.client()).upload(tmp_path / "file") == sent, "it takes it again"
        assert BlobClient(less.client()).download(sent.sha256, tmp_path / "gone") == sent
    finally:
        for restored in (copy, less):
            restored.run("hub", "stop")
