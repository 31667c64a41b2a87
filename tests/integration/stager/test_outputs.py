"""What is kept of a job's directory, sent by the real stager process to a hub that also misbehaves."""

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.live_stager import LiveStager, StartStager
from tests.place import until
from tests.stand_ins.file_hub import SECRET, FileHub, digest_of
from worker.link.address import endpoint
from worker.staging.messages import Collected, NotCollected, Progress

LARGE = os.urandom(3_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job's directory, set aside."""
    made = tmp_path / "aside"
    made.mkdir()
    return made


def wrote(folder: Path, **files: bytes) -> dict[str, bytes]:
    """By path, with __ for a slash."""
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {name.replace("__", "/"): data for name, data in files.items()}


def paths(said: Collected | NotCollected) -> list[str]:
    return [file["path"] for file in said.files]


def status(number: int, **headers: str) -> Any:
    def answer(request: Any) -> None:
        request.body()
        request.says(number, **headers)

    return answer


def test_what_fits_is_kept_by_the_hub(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    files = wrote(folder, results__a=b"abc", results__deep__er__b=LARGE, log=b"", other=b"no")
    said = stager.collected(folder, {"glob": "results"}, {"glob": "*.none"}, {"glob": "log", "to": "hub"})
    del files["other"]
    assert {file["path"]: (file["size"], file["sha256"], file["at"]) for file in said.files} == {
        path: (len(data), digest_of(data), f"blob:{digest_of(data)}") for path, data in files.items()
    }
    assert all(hub.blobs[digest_of(data)] == data for data in files.values())
    assert (said.stats["files"], said.stats["bytes"]) == (3, sum(map(len, files.values())))
    assert said.stats["sent_bytes"] == said.stats["bytes"]
    again = stager.collected(folder, {"glob": "**"}, job="j2")
    assert (again.stats["files"], again.stats["sent_bytes"]) == (4, 2), "the rest was there"


def test_to_an_object_storage_by_signed_addresses(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, out__a=b"abc", out__b=LARGE)

    def revoked(request: Any) -> bool:
        hub.revoke()
        return False

    hub.faults["put"] = [revoked, status(503)]
    said = stager.collected(folder, {"glob": "out/*", "to": "s3://bucket/runs/1/"})
    assert [file["at"] for file in said.files] == ["s3://bucket/runs/1/out/a", "s3://bucket/runs/1/out/b"]
    assert hub.objects == {"s3://bucket/runs/1/out/a": b"abc", "s3://bucket/runs/1/out/b": LARGE}
    assert SECRET not in repr(said)


def test_one_file_for_two_places(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=b"abc")
    said = stager.collected(folder, {"glob": "*"}, {"glob": "a"}, {"glob": "a", "to": "s3://b/"})
    assert [file["at"] for file in said.files] == [f"blob:{digest_of(b'abc')}", "s3://b/a"]


def test_links_and_devices_are_left_out_and_named(
    stager: LiveStager, hub: FileHub, folder: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    wrote(folder, a=b"abc")
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    os.close(os.open(os.fsencode(folder) + b"/\xff\xfe", os.O_CREAT))
    said = stager.collected(folder, {"glob": "**"}, {"glob": "folder/secret"})
    assert paths(said) == ["a"]
    assert said.stats["left_out_count"] == 5
    assert set(said.stats["left_out"]) == {
        "link: a link",
        "folder: a link",
        "fifo: no plain file",
        "socket: no plain file",
        "\\udcff\\udcfe: its name is not UTF-8",
    }
    assert b"secret" not in hub.blobs.values()


def test_inputs_are_not_named_as_left_out(stager: LiveStager, hub: FileHub) -> None:
    staged = stager.staged({"to": "in", "source": f"blob:{hub.add(LARGE)}"})
    folder = Path(staged.folder).rename(stager.work_dir / "aside")
    wrote(folder, out=b"1")
    said = stager.collected(folder, {"glob": "**"})
    assert (paths(said), said.stats["left_out_count"]) == (["out"], 0)


@pytest.mark.parametrize("glob", ["../x", "/etc/passwd", "a/../../b", "a\0b"])
def test_a_pattern_that_leads_out(stager: LiveStager, folder: Path, glob: str) -> None:
    said = stager.not_collected(folder, {"glob": glob})
    assert (said.outcome, said.reason) == ("failed", "output-refused")


def test_what_must_be_there_and_is_not(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=b"abc")
    said = stager.not_collected(folder, {"glob": "*"}, {"glob": "model/*.bin", "required": True})
    assert (said.outcome, said.reason) == ("failed", "output-missing")
    assert "model/*.bin" in said.text
    assert paths(said) == ["a"], "the rest is kept all the same"


def test_of_one_that_failed_only_what_is_always_kept(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, log=b"why", result=b"half")
    outputs = (
        {"glob": "log", "always": True, "required": True},
        {"glob": "result", "required": True},
        {"glob": "none", "required": True, "always": True},
    )
    assert paths(stager.collected(folder, *outputs, succeeded=False)) == ["log"]


def test_a_hub_that_breaks_off_is_sent_the_rest(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=LARGE)
    sha256 = digest_of(LARGE)

    def half(request: Any) -> None:
        hub.partial[sha256] = bytearray(request.rfile.read(1_500_000))
        request.connection.close()
        request.close_connection = True

    sent: list[int] = []

    def noted(request: Any) -> bool:
        sent.append(int(request.headers["Content-Length"]))
        return False

    hub.faults["patch"] = [half, noted]
    stager.collected(folder, {"glob": "a"})
    assert hub.blobs[sha256] == LARGE
    assert sent == [len(LARGE) - 1_500_000]
    assert hub.count("head") == 2


def test_somebody_else_has_sent_a_part_of_it(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=LARGE, small=b"xyz")
    hub.partial[digest_of(LARGE)] = bytearray(LARGE[:1_000_000])
    hub.partial[digest_of(b"xyz")] = bytearray(b"x")
    stager.collected(folder, {"glob": "*"})
    assert set(hub.blobs.values()) == {LARGE, b"xyz"}


def test_it_was_sent_and_the_answer_was_lost(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=LARGE)

    def lost(request: Any) -> None:
        hub.add(request.body())
        request.cut()

    hub.faults["patch"] = [lost]
    stager.collected(folder, {"glob": "a"})
    assert hub.count("patch") == 1


@pytest.mark.parametrize("number", [500, 502, 503, 507, 429])
def test_what_passes_is_waited_for(stager: LiveStager, hub: FileHub, folder: Path, number: int) -> None:
    wrote(folder, a=LARGE)
    hub.faults["patch"] = [status(number)] * 3
    stager.collected(folder, {"glob": "a"})


@pytest.mark.parametrize(
    ("number", "outcome", "reason"),
    [
        (413, "failed", "output-refused"),
        (507, "failed", "output-refused"),
        (400, "failed", "output-refused"),
        (503, "returned", "staging-failed"),
        (422, "failed", "output-changed"),
    ],
)
def test_what_does_not_pass(
    stager: LiveStager, hub: FileHub, folder: Path, number: int, outcome: str, reason: str
) -> None:
    wrote(folder, a=b"a" * 10, b=LARGE)
    hub.faults["patch"] = [status(number)] * 99
    said = stager.not_collected(folder, {"glob": "*"})
    assert (said.outcome, said.reason) == (outcome, reason), said
    assert SECRET not in said.text


@pytest.mark.parametrize("garbage", [b"", b"{}", b'{"put": [{}]}', b'{"put": [{"at": 5, "url": 3}]}', b'{"put": 5}'])
def test_garbage_for_addresses(stager: LiveStager, hub: FileHub, folder: Path, garbage: bytes) -> None:
    wrote(folder, a=b"abc")
    hub.faults["grants"] = [lambda request: request.says(200, garbage)] * 3
    stager.collected(folder, {"glob": "*"})
    hub.faults["grants"] = [lambda request: request.says(200, garbage)] * 99
    assert stager.not_collected(folder, {"glob": "*"}, job="j2").reason == "staging-failed"


@pytest.mark.parametrize("number", ["-5", "99999999", "x", ""])
def test_garbage_for_an_offset(stager: LiveStager, hub: FileHub, folder: Path, number: str) -> None:
    wrote(folder, a=LARGE)
    hub.faults["head"] = [status(404, Upload_Offset=number)]
    hub.faults["patch"] = [status(409, Upload_Offset=number)]
    stager.collected(folder, {"glob": "a"})


def test_what_the_hub_does_not_allow(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=b"abc")
    said = stager.not_collected(folder, {"glob": "a", "to": "gs://other/"})
    assert (said.outcome, said.reason) == ("failed", "output-refused")
    assert "no storage" in said.text


def test_a_file_that_is_written_to_while_it_goes(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=LARGE)
    newer = os.urandom(2_000_000)

    def changed(request: Any) -> bool:
        (folder / "a").write_bytes(newer)
        return False

    hub.faults["patch"] = [changed]
    said = stager.collected(folder, {"glob": "a"})
    assert said.files[0]["sha256"] == digest_of(newer)
    assert hub.blobs[digest_of(newer)] == newer


def test_one_that_is_written_to_again_and_again(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=LARGE)

    def changed(request: Any) -> bool:
        (folder / "a").write_bytes(os.urandom(2_000_000))
        return False

    hub.faults["patch"] = [changed] * 9
    said = stager.not_collected(folder, {"glob": "a"})
    assert (said.outcome, said.reason) == ("failed", "output-changed")


def test_one_that_becomes_a_link_meanwhile(stager: LiveStager, hub: FileHub, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    wrote(folder, a=LARGE)

    def swapped(request: Any) -> bool:
        (folder / "a").unlink()
        (folder / "a").symlink_to(secret)
        return False

    hub.faults["grants"] = [swapped]
    said = stager.not_collected(folder, {"glob": "a"})
    assert not hub.blobs and said.files == []


def test_a_hub_that_is_not_there(start_stager: StartStager, folder: Path) -> None:
    stager = start_stager(endpoint("http://127.0.0.1:1"))
    wrote(folder, a=b"abc")
    said = stager.not_collected(folder, {"glob": "a"})
    assert (said.outcome, said.reason) == ("returned", "staging-failed")


def test_a_folder_that_is_not_there(stager: LiveStager, folder: Path) -> None:
    assert stager.not_collected(folder / "none", {"glob": "a"}).outcome == "returned"


def test_nothing_to_keep(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    assert stager.collected(folder).files == []
    assert stager.collected(folder, {"glob": "*"}, job="j2").files == []
    assert not hub.grants


def test_progress_is_told(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=LARGE, b=b"first")
    go_on = threading.Event()
    hub.faults["patch"] = [lambda request: go_on.wait(30) and False]
    stager.collect(folder, {"glob": "*"})
    said = stager.hear(Progress)
    assert (said.phase, said.whole) == ("collecting", len(LARGE) + 5)
    go_on.set()
    stager.hear(Collected)


def test_a_drop_stops_what_is_being_sent(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    wrote(folder, a=LARGE)
    asked, gone = threading.Event(), threading.Event()

    def silent(request: Any) -> None:
        request.body()
        asked.set()
        request.rfile.read(1)
        gone.set()

    hub.faults["patch"] = [silent]
    stager.collect(folder, {"glob": "a"})
    assert asked.wait(30)
    stager.drop()
    assert gone.wait(30)
    assert (folder / "a").exists(), "the folder is the agent's"


def test_many_small_files(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    files = {f"d{number % 7}/f{number}": b"%d" % number for number in range(300)}
    wrote(folder, **{path.replace("/", "__"): data for path, data in files.items()})
    said = stager.collected(folder, {"glob": "d*/**"})
    assert {file["path"] for file in said.files} == set(files)
    assert len(hub.grants) == 5
    until(lambda: len(hub.blobs) == 300, "all of them")
