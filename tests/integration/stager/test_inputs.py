"""Inputs of every kind, put together by the real stager process from a hub that also misbehaves."""

import hashlib
import io
import os
import stat
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.live_stager import LiveStager, StartStager
from tests.place import until
from tests.stand_ins.file_hub import SECRET, FileHub, digest_of
from worker.files import cache_scope, input_key
from worker.staging.messages import Cache, Note, NotStaged, Progress, Staged

DATA = os.urandom(400_000)


def archive(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def cut(after: int) -> Any:
    """Promises all of it, sends that much, and is gone."""

    def answer(request: Any) -> None:
        data, tag = request._found()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.send_header("ETag", f'"{tag}"')
        request.end_headers()
        request.wfile.write(data[:after])
        request.cut()

    return answer


def status(number: int) -> Any:
    return lambda request: request.says(number)


def test_a_blob_is_linked_to_and_shared(stager: LiveStager, hub: FileHub) -> None:
    sha256 = hub.add(DATA)
    said = stager.staged({"to": "in/data", "source": f"blob:{sha256}", "size": len(DATA)})
    link = Path(said.folder) / "in" / "data"
    assert link.is_symlink() and link.read_bytes() == DATA
    assert said.visible == [str(link.readlink())]
    assert Path(said.visible[0]).parent.name == input_key(sha256, False)
    assert Path(said.visible[0]).parents[1].name == cache_scope("alice")
    assert (said.stats["hits"], said.stats["fetched_bytes"], said.stats["bytes"]) == (0, len(DATA), len(DATA))
    again = stager.staged({"to": "x", "source": f"blob:{sha256}"}, job="j2")
    assert (again.stats["hits"], again.stats["hit_bytes"], again.stats["fetched_bytes"]) == (1, len(DATA), 0)
    assert hub.count("get") == 1
    assert len(hub.grants) == 1, "what the cache has needs no address"
    assert hub.grants[0] == {"session": 7, "job": "j1", "epoch": 1, "get": [f"blob:{sha256}"]}
    news = stager.hear(Cache, lambda said: bool(said.news["added"])).news
    assert news["added"] == [[cache_scope("alice"), input_key(sha256, False), len(DATA)]]
    assert stager.end() == 0
    assert not list((stager.cache_dir / "pins").iterdir())
    assert not list((stager.cache_dir / "alive").iterdir())
    assert not (stager.work_dir / "staged").exists()


def test_owners_have_parts_of_their_own(stager: LiveStager, hub: FileHub) -> None:
    source = f"blob:{hub.add(DATA)}"
    stager.staged({"to": "x", "source": source}, owner="alice")
    said = stager.staged({"to": "x", "source": source}, job="j2", owner="bob")
    assert said.stats["hits"] == 0
    assert Path(said.visible[0]).parents[1].name == cache_scope("bob")


def test_what_anyone_may_fetch_is_public_and_known_by_its_mark(stager: LiveStager, hub: FileHub) -> None:
    hub.web["/web/data"] = DATA
    source = hub.url + "/web/data"
    said = stager.staged({"to": "x", "source": source})
    assert Path(said.visible[0]).parents[1].name == "public"
    assert stager.staged({"to": "x", "source": source}, job="j2", owner="bob").stats["hits"] == 1
    hub.web["/web/data"] = b"newer"
    said = stager.staged({"to": "x", "source": source}, job="j3")
    assert (Path(said.folder) / "x").read_bytes() == b"newer"
    assert not hub.grants


def test_a_query_makes_it_its_owners_and_stays_secret(stager: LiveStager, hub: FileHub) -> None:
    hub.web["/web/data"] = DATA
    said = stager.staged({"to": "x", "source": f"{hub.url}/web/data?sig=canary", "sha256": digest_of(DATA)})
    assert Path(said.visible[0]).parents[1].name == cache_scope("alice")
    told = stager.not_staged({"to": "x", "source": f"{hub.url}/web/none?sig=canary", "sha256": "0" * 64}, job="j2")
    assert (told.outcome, told.reason) == ("failed", "input-refused")
    assert "404" in told.text and "canary" not in told.text
    wrong = {"source": f"{hub.url}/web/data?sig=canary", "sha256": "0" * 64}
    for number, more in enumerate(({"to": "x"}, {"to": "x", "size": 5}, {"to": "."}, {"to": "x", "unpack": True})):
        told = stager.not_staged({**wrong, **more}, job=f"wrong{number}")
        assert "canary" not in told.text, told


def test_who_asks_is_said_where_the_address_names_him(stager: LiveStager, hub: FileHub) -> None:
    said: list[str] = []

    def asked(request: Any) -> bool:
        said.append(request.headers["Authorization"])
        return False

    hub.web["/web/data"] = DATA
    hub.faults["head"], hub.faults["get"] = [asked], [asked]
    got = stager.staged({"to": "x", "source": hub.url.replace("//", "//us%40er:canary@") + "/web/data"})
    assert said == ["Basic dXNAZXI6Y2FuYXJ5"] * 2
    assert Path(got.visible[0]).parents[1].name == cache_scope("alice")
    source = hub.url.replace("//", "//user:canary@") + "/web/none"
    assert "canary" not in stager.not_staged({"to": "x", "source": source}, job="j2").text


def test_one_without_any_mark_is_nobodys_but_the_jobs(stager: LiveStager, hub: FileHub) -> None:
    hub.web["/web/data"] = DATA
    hub.tags["/web/data"] = ""
    said = stager.staged({"to": "x", "source": hub.url + "/web/data"})
    assert said.visible == []
    path = Path(said.folder) / "x"
    assert path.read_bytes() == DATA and stat.S_IMODE(path.stat().st_mode) == 0o444
    assert not list((stager.cache_dir / "entries").iterdir())


def test_what_is_to_run_can_be_executed_and_leaves_the_cache_as_it_is(stager: LiveStager, hub: FileHub) -> None:
    source = f"blob:{hub.add(b'#!/bin/sh')}"
    for number, more in enumerate(({}, {"run": True}, {"run": True, "copy": True})):
        said = stager.staged({"to": "x", "source": source, **more}, job=f"j{number}")
        path = Path(said.folder) / "x"
        mode = stat.S_IMODE(path.stat().st_mode)
        assert (path.is_symlink(), oct(mode)) == [(True, "0o444"), (False, "0o555"), (False, "0o755")][number]
    assert hub.count("get") == 1


def test_a_copy_may_be_written_to(stager: LiveStager, hub: FileHub) -> None:
    source = f"blob:{hub.add(DATA)}"
    said = stager.staged({"to": "a/x", "source": source, "copy": True})
    path = Path(said.folder) / "a" / "x"
    assert path.read_bytes() == DATA and stat.S_IMODE(path.stat().st_mode) == 0o644
    path.write_bytes(b"mine")
    assert said.visible == []
    again = stager.staged({"to": "x", "source": source}, job="j2")
    assert (again.stats["hits"], (Path(again.folder) / "x").read_bytes()) == (1, DATA)


def test_a_tree_of_another_job(stager: LiveStager, hub: FileHub) -> None:
    files = {f"part-{number}/data": os.urandom(1000 + number) for number in range(40)}
    hub.jobs["job:j0/results"] = files
    said = stager.staged({"to": "r", "source": "job:j0/results"})
    root = Path(said.folder) / "r"
    assert {path: (root / path).read_bytes() for path in files} == files
    assert stager.staged({"to": "r", "source": "job:j0/results"}, job="j2").stats["hits"] == 1
    copied = stager.staged({"to": "r", "source": "job:j0/results", "copy": True}, job="j3")
    (Path(copied.folder) / "r" / "part-0" / "data").write_bytes(b"mine")
    (Path(copied.folder) / "r" / "new").write_bytes(b"mine")


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\0b", "", "a\\..\\x", "x" * 300])
def test_a_listing_that_leads_out_is_refused(stager: LiveStager, hub: FileHub, path: str, tmp_path: Path) -> None:
    hub.jobs["job:j0/results"] = {"good": b"x", path: b"evil"}
    said = stager.not_staged({"to": "r", "source": "job:j0/results"})
    assert (said.outcome, said.reason) == ("failed", "input-unsafe"), said
    assert hub.count("get") == 0, "nothing was fetched of it"


def test_a_name_that_is_file_and_folder(stager: LiveStager, hub: FileHub) -> None:
    hub.jobs["job:j0/results"] = {"a": b"x", "a/b": b"evil"}
    assert stager.not_staged({"to": "r", "source": "job:j0/results"}).reason == "input-unsafe"


def test_an_archive_is_unpacked_once(stager: LiveStager, hub: FileHub) -> None:
    sha256 = hub.add(archive({"a/b": b"hello", "c": b"x" * 5000}))
    said = stager.staged({"to": "tree", "source": f"blob:{sha256}", "unpack": True})
    assert (Path(said.folder) / "tree" / "a" / "b").read_bytes() == b"hello"
    assert Path(said.visible[0]).parent.name == input_key(sha256, True)
    assert stager.staged({"to": "t", "source": f"blob:{sha256}", "unpack": True}, job="j2").stats["hits"] == 1
    assert not list(stager.cache_dir.rglob("*.archive"))


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
def test_an_archive_that_means_harm(stager: LiveStager, hub: FileHub, name: str) -> None:
    source = f"blob:{hub.add(archive({name: b'x'}))}"
    said = stager.not_staged({"to": "t", "source": source, "unpack": True})
    assert (said.outcome, said.reason) == ("failed", "input-unsafe")
    assert not list(stager.work_dir.rglob("evil")) and not list(stager.cache_dir.rglob("evil"))


def test_objects_by_signed_addresses_that_end(stager: LiveStager, hub: FileHub) -> None:
    hub.objects["s3://b/x"] = DATA

    def revoked(request: Any) -> bool:
        hub.revoke()
        return False

    hub.faults["get"] = [cut(100_000), revoked]
    said = stager.staged({"to": "x", "source": "s3://b/x"})
    assert (Path(said.folder) / "x").read_bytes() == DATA
    assert len(hub.grants) == 2, "asked for anew when it was refused"


def test_addresses_are_asked_for_anew_before_they_end(stager: LiveStager, hub: FileHub) -> None:
    hub.objects["s3://b/x"] = DATA
    hub.good_for_ms = 5_000
    hub.faults["get"] = [cut(100_000)]
    stager.staged({"to": "x", "source": "s3://b/x"})
    assert 1 <= len(hub.grants) <= 2


def test_one_that_changes_while_it_comes_is_looked_at_again(stager: LiveStager, hub: FileHub) -> None:
    hub.objects["s3://b/x"] = DATA

    def replaced(request: Any) -> bool:
        hub.objects["s3://b/x"] = b"another"
        return False

    hub.faults["get"] = [replaced]
    source = {"to": "x", "source": "s3://b/x"}
    said = stager.not_staged(source)
    assert said.outcome == "failed" or "changed" in said.text, said


def test_a_broken_line_is_taken_up_again(stager: LiveStager, hub: FileHub) -> None:
    sha256 = hub.add(DATA)
    hub.faults["get"] = [cut(100_000), status(503), cut(50_000)]
    said = stager.staged({"to": "x", "source": f"blob:{sha256}"})
    assert (Path(said.folder) / "x").read_bytes() == DATA
    assert said.stats["fetched_bytes"] == len(DATA)


def test_what_never_comes_is_handed_back(stager: LiveStager, hub: FileHub) -> None:
    hub.faults["get"] = [status(503)] * 99
    said = stager.not_staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    assert (said.outcome, said.reason) == ("returned", "staging-failed")
    assert "503" in said.text and SECRET not in said.text


def test_a_hub_that_is_silent_is_given_up(start_stager: StartStager, hub: FileHub) -> None:
    stager = start_stager(timeout_s=0.2, patience=[2, 0.01, 0.01])
    gone = threading.Event()
    hub.faults["get"] = [lambda request: gone.wait(30)] * 2
    said = stager.not_staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    gone.set()
    assert (said.outcome, said.reason) == ("returned", "staging-failed")
    assert "no answer came in time" in said.text


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"get": []}',
        b'{"get": [{}], "until_ms": 5}',
        b'{"get": [{"files": [{"path": 5, "url": "x"}]}], "until_ms": 5}',
        b'{"get": [{"files": [{"path": "", "url": "/x", "size": -1}]}], "until_ms": 5}',
        b'{"get": [{"files": [{"path": "", "url": "/x", "headers": [1]}]}], "until_ms": 5}',
        b'{"get": [{"files": [{"path": "", "url": "/x", "sha256": "../../x"}]}], "until_ms": 5}',
        b'{"get": [{"files": 7}], "until_ms": null}',
    ],
)
def test_garbage_for_addresses(stager: LiveStager, hub: FileHub, garbage: bytes) -> None:
    hub.faults["grants"] = [lambda request: request.says(200, garbage)] * 4
    said = stager.not_staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    assert (said.outcome, said.reason) == ("returned", "staging-failed")
    stager.drop()
    stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"}, job="j2")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x", "http://169.254.169.254/latest", "gopher://x/", "/v1/blobs/none"]
)
def test_addresses_that_lead_nowhere(start_stager: StartStager, hub: FileHub, url: str) -> None:
    stager = start_stager(patience=[1, 0.01, 0.01])
    answer = f'{{"get": [{{"files": [{{"path": "", "url": "{url}"}}]}}], "until_ms": 9999999999999}}'.encode()
    hub.faults["grants"] = [lambda request: request.says(200, answer)] * 9
    assert stager.not_staged({"to": "x", "source": "s3://b/x"}).outcome in ("failed", "returned")


def test_a_hub_that_is_silent_when_it_is_asked(start_stager: StartStager, hub: FileHub) -> None:
    stager = start_stager(timeout_s=0.2, patience=[3, 0.01, 0.01])
    gone = threading.Event()
    hub.faults["grants"] = [lambda request: gone.wait(30)]
    said = stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    gone.set()
    assert said.stats["fetched_bytes"] == len(DATA), "the second time it answered"


def test_what_has_a_digest_is_no_folder(stager: LiveStager, hub: FileHub) -> None:
    hub.jobs["job:j0/r"] = {"a": b"1"}
    said = stager.not_staged({"to": "x", "source": "job:j0/r", "sha256": digest_of(b"1")})
    assert (said.outcome, said.reason) == ("failed", "input-refused")


def test_a_hub_that_is_not_there(start_stager: StartStager, hub: FileHub) -> None:
    from worker.link.address import endpoint

    stager = start_stager(endpoint("http://127.0.0.1:1"))
    said = stager.not_staged({"to": "x", "source": f"blob:{'0' * 64}"})
    assert (said.outcome, said.reason) == ("returned", "staging-failed")
    assert "127.0.0.1:1" in said.text


def test_what_is_not_there_and_what_is_not_what_it_should_be(stager: LiveStager, hub: FileHub) -> None:
    said = stager.not_staged({"to": "x", "source": "job:j0/none"})
    assert (said.outcome, said.reason) == ("failed", "input-refused")
    assert "there is no job:j0/none" in said.text
    hub.objects["s3://b/x"] = DATA
    said = stager.not_staged({"to": "x", "source": "s3://b/x", "sha256": "0" * 64}, job="j2")
    assert (said.outcome, said.reason) == ("failed", "input-corrupt")
    assert digest_of(DATA) in said.text
    said = stager.not_staged({"to": "x", "source": "s3://b/x", "size": 5}, job="j3")
    assert (said.outcome, said.reason) == ("failed", "input-corrupt")
    assert not list((stager.cache_dir / "entries").rglob("data"))


def test_one_that_was_spoilt_on_its_way_is_fetched_again(stager: LiveStager, hub: FileHub) -> None:
    sha256 = hub.add(DATA)
    hub.faults["get"] = [lambda request: request.says(200, b"!" * len(DATA))]
    assert (Path(stager.staged({"to": "x", "source": f"blob:{sha256}"}).folder) / "x").read_bytes() == DATA


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([{"to": "../x", "source": "blob:" + "0" * 64}], "input-unsafe"),
        ([{"to": "/x", "source": "blob:" + "0" * 64}], "input-unsafe"),
        ([{"to": ".", "source": "blob:" + "0" * 64}], "input-refused"),
        ([{"to": "x", "source": "blob:nonsense"}], "input-refused"),
        ([{"to": "x", "source": "ftp://host/x"}], "input-refused"),
        ([{"to": "x", "source": "file:///etc/passwd"}], "input-refused"),
        ([{"to": "x", "source": "s3://b/x", "sha256": "short"}], "input-refused"),
        ([{"to": "x", "source": "s3://b/x"}, {"to": "./x", "source": "s3://b/y"}], "input-refused"),
        ([{"to": "x", "source": "s3://b/x"}, {"to": "x/y", "source": "s3://b/y"}], "input-refused"),
        ([{"to": 5, "source": None}], "input-refused"),
        ([{"to": "x", "source": "http://[::1/x"}], "input-refused"),
        ([{"to": "x", "source": "http://host:port/x"}], "input-refused"),
        ([{"to": "x", "source": "http://127.0.0.1:99999/x"}], "input-refused"),
        ([{"to": "x", "source": "http:///x"}], "input-refused"),
    ],
)
def test_inputs_that_make_no_sense(stager: LiveStager, inputs: Any, reason: str) -> None:
    said = stager.not_staged(*inputs)
    assert (said.outcome, said.reason) == ("failed", reason), said


def test_progress_is_told(stager: LiveStager, hub: FileHub) -> None:
    go_on = threading.Event()

    def slowly(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(DATA)))
        request.end_headers()
        request.wfile.write(DATA[:150_000])
        request.wfile.flush()
        go_on.wait(30)
        request.wfile.write(DATA[150_000:])

    hub.faults["get"] = [slowly]
    stager.stage({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    said = stager.hear(Progress)
    assert said == Progress("j1", 1, "staging", said.done, len(DATA))
    assert 0 < said.done <= 150_000
    go_on.set()
    stager.hear(Staged)


def test_why_a_transfer_waits_is_told(start_stager: StartStager, hub: FileHub) -> None:
    stager = start_stager(patience=[8, 60.0, 60.0])
    hub.faults["get"] = [status(503)] * 99
    stager.stage({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    said = stager.hear(Progress)
    assert (said.phase, said.done) == ("staging", 0)
    assert said.text.startswith("tries again: ") and "503" in said.text and SECRET not in said.text
    stager.drop()


def test_what_is_dropped_stops_at_once_and_leaves_nothing(stager: LiveStager, hub: FileHub) -> None:
    asked, gone = threading.Event(), threading.Event()

    def silent(request: Any) -> None:
        asked.set()
        request.rfile.read(1)  # until the other side is gone
        gone.set()

    hub.faults["get"] = [silent]
    stager.stage({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    assert asked.wait(30)
    stager.drop()
    assert gone.wait(30)
    until(lambda: not stager.folder().exists(), "its folder to be gone")
    until(lambda: not list((stager.cache_dir / "building" / "agent-1").iterdir()), "what was built to be gone")
    assert not list((stager.cache_dir / "claims").iterdir())
    stager.drop()
    stager.drop("never", 3)
    stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"}, job="j2")
    assert not [said for said in stager.heard if isinstance(said, NotStaged)]


def test_one_attempt_with_many_inputs_does_not_hold_up_another(start_stager: StartStager, hub: FileHub) -> None:
    stager = start_stager(parallel=3, each=2)
    go_on = threading.Event()
    held: list[Any] = []

    def slowly(request: Any) -> bool:
        held.append(request)
        go_on.wait(30)
        return False

    hub.faults["get"] = [slowly] * 2
    stager.stage(*({"to": f"x{n}", "source": f"blob:{hub.add(b'%d' % n)}"} for n in range(20)), job="many")
    until(lambda: len(held) == 2, "two transfers")
    said = stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"}, job="one")
    assert said.job == "one"
    go_on.set()
    assert stager.hear(Staged).stats["files"] == 20


def test_two_jobs_that_want_the_same_have_it_fetched_once(stager: LiveStager, hub: FileHub) -> None:
    sha256 = hub.add(DATA)
    hub.faults["get"] = [lambda request: time.sleep(0.2) or False]  # type: ignore[func-returns-value]
    for job in ("a", "b", "c", "d"):
        stager.stage({"to": "x", "source": f"blob:{sha256}"}, job=job)
    for _ in range(4):
        stager.hear(Staged)
    assert hub.count("get") == 1


@pytest.mark.parametrize("cache_dir", ["", "/proc/cannot/be/made"])
def test_without_a_cache_jobs_go_on(start_stager: StartStager, hub: FileHub, cache_dir: str) -> None:
    stager = start_stager(cache_dir=cache_dir)
    said = stager.staged(
        {"to": "a/x", "source": f"blob:{hub.add(DATA)}"}, {"to": "y", "source": f"blob:{hub.add(b'y')}"}
    )
    path = Path(said.folder) / "a" / "x"
    assert path.read_bytes() == DATA and not path.is_symlink()
    assert said.visible == []
    if cache_dir:
        assert "the cache cannot be used" in stager.hear(Note).text
    hub.jobs["job:j0/r"] = {"a/b": b"1", "c": b"2"}
    tree = Path(stager.staged({"to": "r", "source": "job:j0/r"}, job="j2").folder) / "r"
    assert (tree / "a" / "b").read_bytes() == b"1"
    tree.rename(stager.work_dir / "moved")  # as the keeper does


def test_files_of_the_site(start_stager: StartStager, tmp_path: Path) -> None:
    site, secret = tmp_path / "site", tmp_path / "secret"
    (site / "data" / "sub").mkdir(parents=True)
    secret.write_text("secret")
    (site / "data" / "a").write_bytes(DATA)
    (site / "data" / "sub" / "run").write_bytes(b"#!/bin/sh\n")
    (site / "data" / "sub" / "run").chmod(0o755)
    (site / "data" / "link").symlink_to("sub/run")
    (site / "current").symlink_to("data")
    (site / "out").symlink_to(secret)
    (site / "up").symlink_to("../secret")
    (site / "loop").symlink_to("loop")
    os.mkfifo(site / "fifo")
    stager = start_stager(input_paths=[str(site)])
    root = f"file://{site}"
    said = stager.staged(
        {"to": "a", "source": f"{root}/current/a", "sha256": digest_of(DATA)},
        {"to": "run", "source": f"{root}/data/sub/run"},
        {"to": "tree", "source": f"{root}/data"},
    )
    folder = Path(said.folder)
    assert (folder / "a").read_bytes() == DATA
    assert os.access(folder / "run", os.X_OK) and os.access(folder / "tree" / "sub" / "run", os.X_OK)
    assert (folder / "tree" / "link").read_bytes() == b"#!/bin/sh\n"
    assert stager.staged({"to": "t", "source": f"{root}/data"}, job="j2").stats["hits"] == 1
    (site / "data" / "a").write_bytes(b"newer")
    said = stager.staged({"to": "t", "source": f"{root}/data"}, job="j3")
    assert (Path(said.folder) / "t" / "a").read_bytes() == b"newer"
    wrong = ("out", "up", "loop", "fifo", "none", "data/../../secret", "data/a/x", "../secret")
    for number, name in enumerate(wrong):
        told = stager.not_staged({"to": "x", "source": f"{root}/{name}"}, job=f"wrong{number}")
        assert (told.outcome, told.reason) == ("failed", "input-refused"), told
    (site / "data" / "evil").symlink_to("../../secret")
    assert stager.not_staged({"to": "t", "source": f"{root}/data"}, job="j4").reason == "input-unsafe"


def test_no_secret_is_seen_of_the_process(stager: LiveStager, hub: FileHub) -> None:
    stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    seen = Path(f"/proc/{stager.pid}/cmdline").read_bytes() + Path(f"/proc/{stager.pid}/environ").read_bytes()
    assert b"canary" not in seen
    assert "canary" not in repr(stager.heard)
    for path in [*stager.work_dir.rglob("*"), *stager.cache_dir.rglob("*")]:
        if path.is_file() and path.name != "data":
            assert b"canary" not in path.read_bytes(), path


def test_memory_does_not_grow_with_the_file(stager: LiveStager, hub: FileHub) -> None:
    piece = bytes(2**20)
    count = 200
    digest = hashlib.sha256(piece * count).hexdigest()

    def large(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(count * len(piece)))
        request.end_headers()
        for _ in range(count):
            request.wfile.write(piece)

    stager.staged({"to": "x", "source": f"blob:{hub.add(DATA)}"})
    before = peak(stager.pid)
    hub.faults["get"] = [large]
    hub.web["/web/large"] = b""
    stager.staged({"to": "x", "source": hub.url + "/web/large", "sha256": digest}, job="j2")
    assert peak(stager.pid) - before < 20 * 2**20


def peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
