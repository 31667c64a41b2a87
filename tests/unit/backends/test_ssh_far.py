"""The far side's modules: what they may use, and what they make of records."""

import ast
import json
import os
import sys
from pathlib import Path

import pytest

from backends.ssh import far
from backends.ssh.far import looking, seeing
from backends.ssh.far.answering import answer
from backends.ssh.far.processes import Table, boot_id, look
from backends.ssh.far.records import Pool, Refusal, Worker, private

FOLDER = Path(far.__file__).parent
SOURCES = {path.stem: path.read_text() for path in FOLDER.glob("*.py") if path.stem != "__init__"}


@pytest.mark.parametrize("name", SOURCES)
def test_a_host_needs_no_more_than_python_3_9_and_what_is_sent(name: str) -> None:
    tree = ast.parse(SOURCES[name], feature_version=(3, 9))
    sent = {f"backends.ssh.far.{common}" for common in far.COMMON}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module
            assert node.module in sent or node.module.partition(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.Import):
            assert all(alias.name.partition(".")[0] in sys.stdlib_module_names for alias in node.names)
    assert "from __future__ import annotations" in SOURCES[name], "or its hints would be read by Python 3.9"


def test_every_module_is_sent_with_some_call() -> None:
    assert set(SOURCES) == {*far.COMMON, *far.CALLS.values()}


def a_pool(tmp_path: Path) -> tuple[Pool, dict[str, object]]:
    request: dict[str, object] = {"base": str(tmp_path), "host": "h", "pool": "m@p", "keep_ms": 60_000}
    pool = Pool(request)
    pool.make()
    return pool, request


def a_worker(pool: Pool, **record: object) -> Worker:
    worker = pool.worker("m-1", 0)
    worker.path.mkdir(parents=True)
    if record:
        (worker.path / "process").write_text(json.dumps(record))
    return worker


def shown(request: dict[str, object]) -> list[tuple[str, object]]:
    return [(one["phase"], one.get("exit_code")) for one in seeing.run(request)["workers"]]


def me() -> dict[str, object]:
    mine = look(os.getpid())
    assert mine
    return {"pid": mine.pid, "start": mine.start, "boot": boot_id(), "at": 5}


def test_a_pool_that_was_never_here_has_no_folder(tmp_path: Path) -> None:
    request: dict[str, object] = {"base": str(tmp_path / "none"), "host": "h", "pool": "m@p", "keep_ms": 1}
    found = seeing.run(request)
    assert (found["workers"], found["kept"]) == ([], False)
    assert not (tmp_path / "none").exists()


def test_phases_by_record_and_process(tmp_path: Path) -> None:
    pool, request = a_pool(tmp_path)
    worker = a_worker(pool)
    assert shown(request) == [], "it never was started"
    with pool.alone():
        assert shown(request) == [("pending", None)]
    (worker.path / "process").write_text("nonsense")
    assert shown(request) == [("spoilt", None)]
    (worker.path / "process").write_text(json.dumps(me()))
    assert shown(request) == [("running", None)]
    (worker.path / "ending").touch()
    assert shown(request) == [("ending", None)]


@pytest.mark.parametrize("wrong", [{"boot": "another"}, {"pid": 2**22 + 1}])
def test_a_process_that_is_gone_has_ended_once_and_for_all(tmp_path: Path, wrong: dict[str, object]) -> None:
    pool, request = a_pool(tmp_path)
    worker = a_worker(pool, **{**me(), **wrong})
    (worker.path / "exit").write_text('{"code": 3}')
    (worker.path / "join-token").write_text("secret")
    status = None if "boot" in wrong else 3
    assert shown(request) == [("ended", status)]
    assert not (worker.path / "join-token").exists()
    (worker.path / "process").write_text(json.dumps(me()))
    assert shown(request) == [("ended", status)]
    assert seeing.run({**request, "keep_ms": -1})["workers"] == []


def test_a_start_time_that_differs_is_another_process(tmp_path: Path) -> None:
    mine = me()
    pool, request = a_pool(tmp_path)
    a_worker(pool, **{**mine, "start": int(str(mine["start"])) + 1})
    assert shown(request) == [("ended", None)]


def test_records_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    pool, request = a_pool(tmp_path)
    worker = a_worker(pool)
    (worker.path / "process").mkdir()  # reading it fails, also for root
    said = answer(seeing.run, request)
    assert said["refused"] == "config"
    assert "process" in said["text"]


def test_folders_are_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(Refusal):
            private(tmp_path / name)
    assert private(tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_table_knows_us_and_our_start() -> None:
    now = Table()
    assert now[os.getpid()].start == me()["start"]


def test_a_look_at_a_host_leaves_nothing(tmp_path: Path) -> None:
    request: dict[str, object] = {"base": str(tmp_path / "a" / "b"), "host": "h", "pool": "p"}
    found = looking.run({**request, "hub": ["127.0.0.1", 1, 1.0]})
    assert found["folder"] == ""
    assert found["linux"]
    assert "refused" in found["hub"].lower()
    assert list(tmp_path.iterdir()) == []
    json.dumps(found)
