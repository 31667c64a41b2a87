"""Files from this machine to a job and back: submitted, taken by a worker, kept, listed and fetched. The hub is real,
and the commands are processes of their own; the worker only tells what it would have kept."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import LiveHub, WireWorker
from tests.place import Place, a_place
from worker_manager.hub.settings import HubSettings

BIG = b"0123456789abcdef" * 400_000  # 6.4 MB: more than one block of everything


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Desk:
    """A person's command line, and a worker at the other end."""

    def __init__(self, place: Place) -> None:
        self.place = place
        place.run("hub", "start")
        found = place.hub()
        assert found is not None
        self.hub = LiveHub(HubSettings(place.state_dir), found)
        self.worker = WireWorker(self.hub, self.hub.operator, can=["inputs", "outputs"])

    def ask(self, assignment: Any, **asked: Any) -> Any:
        mine = {"session": self.worker.session, "job": assignment["job"], "epoch": assignment["epoch"]}
        return self.worker.call("grants", {**mine, **asked}).json()

    def fetched(self, assignment: Any) -> dict[str, bytes]:
        """What would stand in the job's directory."""
        inputs = assignment["work"]["inputs"]
        granted = self.ask(assignment, get=[each["source"] for each in inputs])["get"]
        return {
            each["to"]: self.hub.call("GET", answer["files"][0]["url"], by=None).content
            for each, answer in zip(inputs, granted, strict=True)
        }

    def keep(self, files: dict[str, bytes], *words: str) -> str:
        job = self.place.run("submit", "--output", "**", *words, "--", "true").strip()
        assignment = self.worker.take()
        assert assignment["job"] == job
        told = []
        for path, data in files.items():
            file = {"path": path, "size": len(data), "sha256": digest(data)}
            (answer,) = self.ask(assignment, put=[{**file, "to": "hub"}])["put"]
            if "url" in answer:
                headers = {"Upload-Offset": "0", "Upload-Length": str(len(data))}
                headers["Content-Type"] = "application/octet-stream"
                sent = self.hub.call("PATCH", answer["url"], by=None, headers=headers, data=data)
                assert sent.status_code == 201, sent.text
            told.append({**file, "at": answer["at"]})
        self.worker.finish(assignment, files=told)
        return job


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    for place in a_place(tmp_path_factory.mktemp("desk")):
        yield Desk(place)


def test_files_and_folders_of_this_machine_get_to_the_job(desk: Desk, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "a").write_bytes(b"a")
    (data / "a").chmod(0o755)
    (data / "deep" / "b c").write_bytes(b"a")  # the same bytes: sent once
    (data / "link").symlink_to(data / "a")
    (tmp_path / "big").write_bytes(BIG)
    words = ["--input", str(data), "--input", f"x/model={tmp_path}/big", "--input-copy", f"y/={tmp_path}/big"]
    job = desk.place.run("submit", *words, "--", "true").strip()
    assignment = desk.worker.take()
    assert desk.fetched(assignment) == {
        "data/a": b"a",
        "data/deep/b c": b"a",
        "data/link": b"a",
        "x/model": BIG,
        "y/big": BIG,
    }
    runs = [each["to"] for each in assignment["work"]["inputs"] if each.get("run")]
    assert runs == ["data/a", "data/link"]
    copies = [each["to"] for each in assignment["work"]["inputs"] if each.get("copy")]
    assert copies == ["y/big"]
    assert {each["size"] for each in assignment["work"]["inputs"]} == {1, len(BIG)}
    desk.worker.finish(assignment)
    told = desk.place.run("describe", "job", job)
    assert f"x/model from blob:{digest(BIG)}" in told


def test_a_file_of_jobs_names_files_beside_itself(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("beside")
    (tmp_path / "jobs.yaml").write_text(
        """
jobs:
  - command: ["true"]
    inputs: [{from: in.txt}, {from: ./in.txt, to: again}]
    outputs: [{glob: out, required: false}]
"""
    )
    desk.place.run("submit", "-f", str(tmp_path / "jobs.yaml"))
    assignment = desk.worker.take()
    assert desk.fetched(assignment) == {"in.txt": b"beside", "again": b"beside"}
    desk.worker.finish(assignment)


def test_what_was_kept_is_listed_and_fetched(desk: Desk, tmp_path: Path) -> None:
    kept = {"out/table": BIG, "out/deep/ä b%20?.txt": b"strange", "log": b"", "plot.png": b"png"}
    job = desk.keep(kept)
    run = desk.place.run
    assert run("files", job, "-o", "name").splitlines() == sorted(kept)
    listed = json.loads(run("files", job, "out", "-o", "json"))
    assert (listed["kind"], [file["path"] for file in listed["items"]]) == (
        "FileList",
        ["out/deep/ä b%20?.txt", "out/table"],
    )
    assert "6.104 MiB" in run("files", job)
    assert "4 files, 6.104 MiB" in run("describe", "job", job)
    to = tmp_path / "new" / "folder"
    told = run("download", job, "--to", str(to)).splitlines()
    assert told == [str(to / path) for path in sorted(kept)]
    assert {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()} == kept

    # What is there is not fetched again, and not written over.
    run("download", job, "--to", str(to), "-q")
    (to / "log").write_text("mine")
    told = run("download", job, "--to", str(to), code=2)
    assert "there already, and other than what was kept" in told and str(to / "log") in told
    assert (to / "log").read_text() == "mine"
    run("download", job, "log", "--to", str(to), "--force", "-q")
    assert (to / "log").read_bytes() == b""

    only = tmp_path / "only"
    assert run("download", job, "*.png", "out/deep", "--to", str(only), "-q") == ""
    found = sorted(path.name for path in only.rglob("*") if path.is_file())
    assert found == ["plot.png", "ä b%20?.txt"]


def test_a_download_goes_on_where_it_broke_off_and_mends_what_was_torn(desk: Desk, tmp_path: Path) -> None:
    job = desk.keep({"big": BIG})
    (tmp_path / ".big.part").write_bytes(BIG[:3_000_000])
    sent = bytes_sent(desk)
    desk.place.run("download", job, "--to", str(tmp_path))
    assert (tmp_path / "big").read_bytes() == BIG
    assert bytes_sent(desk) - sent == len(BIG) - 3_000_000
    (tmp_path / "big").unlink()
    (tmp_path / ".big.part").write_bytes(b"torn" * 1000)
    desk.place.run("download", job, "--to", str(tmp_path))
    assert (tmp_path / "big").read_bytes() == BIG
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def bytes_sent(desk: Desk) -> int:
    text = desk.hub.call("GET", "/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("wm_hub_blob_bytes_sent_total ")]
    return int(float(line.split()[1]))


def test_nothing_is_written_through_links_that_lead_elsewhere(desk: Desk, tmp_path: Path) -> None:
    job = desk.keep({"out/a": b"a"})
    away, to = tmp_path / "away", tmp_path / "to"
    away.mkdir()
    to.mkdir()
    (to / "out").symlink_to(away)
    assert "leads out of" in desk.place.run("download", job, "--to", str(to), code=2)
    assert list(away.iterdir()) == []
    (to / "out").unlink()
    (to / "out").mkdir()
    (to / "out" / "a").symlink_to(away / "b")
    assert "--force replaces it" in desk.place.run("download", job, "--to", str(to), code=2)
    desk.place.run("download", job, "--to", str(to), "--force")
    assert ((to / "out" / "a").is_symlink(), (to / "out" / "a").read_bytes(), list(away.iterdir())) == (False, b"a", [])


def test_where_there_is_nothing_it_says_why(desk: Desk, tmp_path: Path) -> None:
    job = desk.keep({"out/a": b"a"})
    told = desk.place.call("download", job, "nothing*", "--to", str(tmp_path))
    assert (told.returncode, "none of them is meant by nothing*" in told.stderr) == (1, True)
    plain = desk.place.run("submit", "--tag", "nowhere", "--", "true").strip()
    told = desk.place.call("files", plain)
    assert "submitted without --output" in told.stderr
    array = desk.place.run("submit", "--tag", "nowhere", "--array", "3", "--output", "a", "--", "true").strip()
    assert f"name one of its tasks, {array}-0 to {array}-2" in desk.place.call("files", array).stderr
    assert desk.place.call("files", "j999").returncode == 1


def test_one_file_that_cannot_be_had_does_not_keep_the_others_away(desk: Desk, tmp_path: Path) -> None:
    job = desk.keep({"a": b"this one is lost", "b": b"b"})
    lost = digest(b"this one is lost")
    (blob,) = [path for path in (desk.place.state_dir / "blobs").rglob("*") if path.name.endswith(lost[4:])]
    blob.unlink()
    told = desk.place.call("download", job, "--to", str(tmp_path))
    assert (told.returncode, told.stdout.splitlines()) == (1, [str(tmp_path / "b")])
    assert "a: " in told.stderr
    assert (tmp_path / "b").read_bytes() == b"b"
