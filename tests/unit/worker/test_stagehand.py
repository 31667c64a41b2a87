"""Where the files of jobs go, as a worker's options say it."""

import os
from pathlib import Path
from typing import Any

import pytest

from worker.options import Options, UsageError, parse
from worker.stages.stagehand import place_of, put_leftovers_aside, ways

TOKEN = "t" * 20


def options(*argv: str) -> Options:
    return parse(["--server", "http://127.0.0.1:1", *argv], {"WM_JOIN_TOKEN": TOKEN})


@pytest.fixture
def work_dir(tmp_path: Path) -> str:
    (tmp_path / "work" / "w-1").mkdir(parents=True)
    return str(tmp_path / "work" / "w-1")


def test_workers_of_one_user_share_the_cache_beside_their_folders(work_dir: str) -> None:
    place, why = place_of(options(), work_dir)
    disk = os.statvfs(work_dir)
    assert (place.work_dir, why) == (work_dir, "")
    assert place.cache_dir == str(Path(work_dir).parent / f"cache-{os.geteuid()}")
    assert place.cache_quota == disk.f_blocks * disk.f_frsize // 4
    assert [each.name for each in Path(work_dir).parent.iterdir()] == ["w-1"], "not before there is something to keep"


def test_a_worker_that_leaves_nothing_behind_has_its_own(work_dir: str) -> None:
    assert place_of(options("--delete-work-dir-on-exit"), work_dir)[0].cache_dir == f"{work_dir}/cache"


def test_a_cache_as_named(work_dir: str, tmp_path: Path) -> None:
    asked = options("--cache-dir", str(tmp_path / "deep" / "cache"), "--cache-size", "5GB", "--transfers", "3")
    place, why = place_of(asked, work_dir)
    assert (place.cache_dir, place.cache_quota, place.transfers, why) == (
        str(tmp_path / "deep" / "cache"), 5_000_000_000, 3, "")  # fmt: skip
    assert (tmp_path / "deep" / "cache").stat().st_mode & 0o777 == 0o700, "sandboxes hide it, so it must be there"


def test_without_a_cache(work_dir: str) -> None:
    place, why = place_of(options("--no-cache"), work_dir)
    assert (place.cache_dir, why) == ("", "")


def test_one_that_cannot_be_used_is_done_without(work_dir: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place, why = place_of(options("--cache-dir", str(tmp_path / "file" / "cache")), work_dir)
    assert place.cache_dir == "" and "cannot be used: Not a directory" in why


def test_one_to_which_jobs_of_other_users_have_no_way_is_done_without(work_dir: str, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    named = ("--cache-dir", str(closed / "cache"))
    assert place_of(options(*named), work_dir)[1] == ""
    place, why = place_of(options(*named, "--job-user", "auto"), work_dir)
    assert place.cache_dir == "" and "others cannot enter" in why


def test_what_a_worker_can() -> None:
    assert ways(options()) == ("inputs", "outputs")
    assert ways(options("--input-path", "/data/", "--input-path", "/more")) == ("inputs", "outputs", "paths")
    assert options("--input-path", "/data/", "--input-path", "/more/./x").input_paths == ("/data", "/more/x")


@pytest.mark.parametrize("path", ["data", "/", "//", "/a/.."])
def test_folders_that_cannot_be_given(path: str) -> None:
    with pytest.raises(UsageError, match="--input-path"):
        options("--input-path", path)


def test_what_an_earlier_agent_left_goes_to_its_keepers_trash(work_dir: Any) -> None:
    put_leftovers_aside(work_dir, f"{work_dir}/jobs")
    assert not os.path.exists(f"{work_dir}/jobs")  # noqa: PTH110 (nothing is made where nothing was left)
    Path(work_dir, "staged", "j1.1").mkdir(parents=True)
    put_leftovers_aside(work_dir, f"{work_dir}/jobs")
    (left,) = Path(work_dir, "jobs", "trash").iterdir()
    assert (left / "j1.1").is_dir() and not Path(work_dir, "staged").exists()
