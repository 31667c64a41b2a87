"""Inputs and outputs as people write them, before anything is sent."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.place import until
from tests.unit.cli.house import FakeHub, House
from worker_manager.cli.inputs import input_of, output_of
from worker_manager.cli.transfers import AT_A_TIME, Meter, Stopped, all_of
from worker_manager.errors import UsageError


@pytest.mark.parametrize(
    ("word", "to", "source"),
    [
        ("data.csv", None, "data.csv"),
        ("in/x.csv=data.csv", "in/x.csv", "data.csv"),
        ("in/=some/data.csv", "in/data.csv", "some/data.csv"),
        ("in/=https://example.org/a/b.csv?sign=a/b", "in/b.csv", "https://example.org/a/b.csv?sign=a/b"),
        ("./a=b", None, "./a=b"),
        ("/data/a=b", None, "/data/a=b"),
        ("https://example.org/a?x=y", None, "https://example.org/a?x=y"),
        ("job:j7/a=b", None, "job:j7/a=b"),
        ("x=job:j7/a=b", "x", "job:j7/a=b"),
        ("job:7-3/a", None, "job:j7-3/a"),
        ("x=s3://bucket/a=b", "x", "s3://bucket/a=b"),
        ("./x/../y=a", None, "./x/../y=a"),
        ("x/../y=a", "y", "a"),
    ],
)
def test_an_input_in_one_word(word: str, to: str | None, source: str) -> None:
    assert input_of(word) == {"from": source, **({"to": to} if to else {})}


@pytest.mark.parametrize(
    ("word", "glob", "to"),
    [
        ("out/**", "out/**", None),
        ("./out/", "out", None),
        ("out=hub", "out", "hub"),
        ("out/*.csv=s3://bucket/a", "out/*.csv", "s3://bucket/a/"),
        ("a=b=az://account/box/c/", "a=b", "az://account/box/c/"),
        ("a=b", "a=b", None),
    ],
)
def test_an_output_in_one_word(word: str, glob: str, to: str | None) -> None:
    assert output_of(word) == {"glob": glob, **({"to": to} if to else {})}


def submitted(*words: str) -> list[Any]:
    hub = FakeHub({("POST", "/v1/jobs"): {"jobs": [{"id": "j1", "count": 1}]}})
    House(hub).ok("submit", *words)
    return list(hub.asked[-1].body["jobs"])


def test_the_options_become_fields_of_the_job() -> None:
    (job,) = submitted(
        *("--input", "https://example.org/a"),
        *("--input-unpack", "model=s3://bucket/m.tar.gz"),
        *("--input-copy", "state=job:j7/state"),
        *("--output", "out"),
        *("--output-optional", "*.png=s3://bucket/plots"),
        *("--output-always", "log"),
        *("--", "true"),
    )
    assert job["inputs"] == [
        {"from": "https://example.org/a"},
        {"from": "s3://bucket/m.tar.gz", "to": "model", "unpack": True},
        {"from": "job:j7/state", "to": "state", "copy": True},
    ]
    assert job["outputs"] == [
        {"glob": "out"},
        {"glob": "*.png", "to": "s3://bucket/plots/", "required": False},
        {"glob": "log", "required": False, "always": True},
    ]


def test_files_of_jobs_say_the_same_and_the_flags_come_on_top(tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    inputs = [{"source": "blob:" + "0" * 64, "to": "a"}]
    file.write_text(json.dumps([{"command": ["a"], "inputs": inputs}, {"command": ["b"], "outputs": [{"glob": "x"}]}]))
    one, two = submitted("-f", str(file), "--input", "https://example.org/all", "--output", "log")
    assert one["inputs"] == [{"from": "https://example.org/all"}, *inputs]
    assert (one["outputs"], two["outputs"]) == ([{"glob": "log"}], [{"glob": "log"}, {"glob": "x"}])
    assert two["inputs"] == [{"from": "https://example.org/all"}]


def refused(*words: str) -> str:
    return House().refused("submit", *words, "--", "true")


def test_what_is_not_here_cannot_be_sent(tmp_path: Path) -> None:
    assert "No such file" in refused("--input", str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    assert "has no file in it" in refused("--input", str(tmp_path / "empty"))
    (tmp_path / "empty" / "a").write_text("x")
    assert "only an archive can be unpacked" in House(FakeBlobs()).refused(
        "submit", "--input-unpack", str(tmp_path / "empty"), "--", "true"
    )
    (tmp_path / "empty" / "link").symlink_to(tmp_path)
    assert "is a link to a folder" in refused("--input", str(tmp_path / "empty"))
    assert "neither a file nor a folder" in refused("--input", "x=/dev/null")
    assert "write [TO=]FROM" in refused("--input", "x=")


class FakeBlobs(FakeHub):
    """Has everything already."""

    def exchange(self, method: str, path: str, **_: Any) -> tuple[int, dict[str, str]]:
        assert (method, path[:10]) == ("HEAD", "/v1/blobs/")
        return 200, {}


def test_a_folder_of_too_many_files_says_what_to_do(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / str(number)).touch()
    told = House(FakeBlobs()).refused("submit", "--input", str(tmp_path), "--", "true")
    assert "1001 files" in told and "--input-unpack" in told


def test_describe_tells_of_files_without_what_is_signed_into_an_address() -> None:
    job = {
        "id": "j1",
        "state": "succeeded",
        "inputs": [{"to": "a", "source": "https://example.org/a?signature=secret", "unpack": True}],
        "outputs": [{"glob": "out", "to": "hub", "required": False, "always": True}],
        "files": {"count": 2, "size": 2048},
    }
    told = House(FakeHub({("GET", "/v1/jobs/j1"): job})).ok("describe", "job", "j1")
    assert "a from https://example.org/a?…, unpacked" in told
    assert "secret" not in told
    assert "out to the hub, if it is there, even after a failure" in told
    assert "2 files, 2 KiB: worker-manager files j1" in told


# ---------------------------------------------------------------- several at a time


def test_all_are_done_and_what_fails_is_told_apart_where_the_others_go_on() -> None:
    def act(number: int) -> int:
        if number == 3:
            raise UsageError("three")
        return number * number

    done = all_of(Meter(), range(10), act, go_on=True)
    assert str(done.pop(3)) == "three"
    assert done == {number: number * number for number in range(10) if number != 3}
    with pytest.raises(UsageError, match="three"):
        all_of(Meter(), range(10), act)
    assert all_of(Meter(), [], act) == {}


def test_the_first_error_stops_the_others_at_their_next_block() -> None:
    meter = Meter()
    stopped = threading.Barrier(AT_A_TIME)
    ended = []

    def act(number: int) -> None:
        tell = meter.of_one()
        stopped.wait(30)
        if number == 0:
            raise UsageError("broken")
        while True:
            try:
                tell(1, None)
            except Stopped:
                ended.append(number)
                raise

    with pytest.raises(UsageError, match="broken"):
        all_of(meter, range(100), act)
    until(lambda: len(ended) == AT_A_TIME - 1, "the others to end")
    assert max(ended) < AT_A_TIME, "nothing more was begun"
