"""Disks that are full or fail under the stager: a job never stops because of the cache, and nothing torn is read."""

import os
from pathlib import Path

import pytest

from tests import needs
from tests.faults.tracing import injected
from tests.live_stager import StartStager, hub, start_stager
from tests.place import until
from tests.stand_ins.file_hub import FileHub
from worker.staging.messages import Note

__all__ = ["hub", "start_stager"]
SMALL, LARGE = os.urandom(200_000), os.urandom(3_000_000)


def test_a_cache_that_is_full_is_done_without(start_stager: StartStager, hub: FileHub, tmp_path: Path) -> None:
    with needs.small_disk(tmp_path / "small", "1m") as small:
        stager = start_stager(cache_dir=str(small / "cache"))
        held = stager.staged({"to": "x", "source": f"blob:{hub.add(SMALL)}"}, job="j0")
        said = stager.staged({"to": "x", "source": f"blob:{hub.add(LARGE)}"}, job="j1")
        path = Path(said.folder) / "x"
        assert path.read_bytes() == LARGE and not path.is_symlink()
        assert "nothing in the cache can go" in stager.hear(Note).text
        assert (Path(held.folder) / "x").read_bytes() == SMALL, "what is in use stays"
        assert not list((small / "cache" / "building" / "agent-1").iterdir())
        stager.drop("j0")
        until(lambda: not stager.folder("j0").exists(), "its folder to be gone")
        again = stager.staged({"to": "x", "source": f"blob:{hub.add(SMALL)}"}, job="j2")
        assert (Path(again.folder) / "x").read_bytes() == SMALL
        assert stager.end() == 0


def test_what_is_not_in_use_makes_room_on_a_full_disk(start_stager: StartStager, hub: FileHub, tmp_path: Path) -> None:
    with needs.small_disk(tmp_path / "small", "1m") as small:
        stager = start_stager(cache_dir=str(small / "cache"))
        for number in range(12):
            data = os.urandom(300_000)
            said = stager.staged({"to": "x", "source": f"blob:{hub.add(data)}"}, job=f"j{number}")
            assert said.visible and (Path(said.folder) / "x").read_bytes() == data
            stager.drop(f"j{number}")
            until(lambda number=number: not stager.folder(f"j{number}").exists(), "its folder to be gone")  # type: ignore[misc]
        assert stager.end() == 0


def test_with_no_room_anywhere_the_job_is_handed_back(start_stager: StartStager, hub: FileHub, tmp_path: Path) -> None:
    with needs.small_disk(tmp_path / "small", "1m") as small:
        (small / "work").mkdir()
        stager = start_stager(cache_dir=str(small / "cache"), work_dir=str(small / "work"))
        said = stager.not_staged({"to": "x", "source": f"blob:{hub.add(LARGE)}"})
        assert (said.outcome, said.reason) == ("returned", "disk-full")
        stager.drop()
        until(lambda: not stager.folder().exists(), "its folder to be gone")
        stager.staged({"to": "x", "source": f"blob:{hub.add(SMALL)}"}, job="j2")
        assert stager.end() == 0


@pytest.mark.parametrize(
    "fails",
    [
        "link,linkat:error=ESTALE",
        "link,linkat:error=EIO",
        "rename,renameat,renameat2:error=EIO",
        "ftruncate:error=EDQUOT",
        "chmod,fchmodat:error=EROFS",
    ],
)
def test_a_cache_whose_disk_fails_is_done_without(start_stager: StartStager, hub: FileHub, fails: str) -> None:
    stager = start_stager()
    stager.staged({"to": "x", "source": f"blob:{hub.add(SMALL)}"}, job="j0")
    with injected(stager.pid, fails):
        if fails.startswith("chmod"):
            said = stager.not_staged({"to": "x", "source": f"blob:{hub.add(LARGE)}"})  # the job's own folder, too
            assert (said.outcome, said.reason) == ("returned", "staging-failed")
        else:
            path = Path(stager.staged({"to": "x", "source": f"blob:{hub.add(LARGE)}"}).folder) / "x"
            assert path.read_bytes() == LARGE and not path.is_symlink()
    said_after = stager.staged({"to": "x", "source": f"blob:{hub.add(LARGE)}"}, job="j2")
    assert (Path(said_after.folder) / "x").read_bytes() == LARGE
    assert said_after.visible, "and used again when it works"
    assert stager.end() == 0


@pytest.mark.parametrize("fails", ["openat:error=ESTALE", "openat:error=EIO"])
def test_an_entry_that_cannot_be_read_is_built_anew(start_stager: StartStager, hub: FileHub, fails: str) -> None:
    stager = start_stager()
    source = {"to": "x", "source": f"blob:{hub.add(SMALL)}"}
    entry = Path(stager.staged(source).visible[0]).parent
    with injected(stager.pid, fails, path=entry / "meta"):
        said = stager.staged(source, job="j2")
        assert (Path(said.folder) / "x").read_bytes() == SMALL
    assert (Path(stager.staged(source, job="j3").folder) / "x").read_bytes() == SMALL


def test_an_entry_that_somebody_wrote_to_is_built_anew(start_stager: StartStager, hub: FileHub) -> None:
    stager = start_stager()
    source = {"to": "x", "source": f"blob:{hub.add(SMALL)}"}
    path = Path(stager.staged(source).visible[0])
    path.chmod(0o644)
    path.write_bytes(b"torn")
    said = stager.staged(source, job="j2")
    assert (Path(said.folder) / "x").read_bytes() == SMALL
    assert said.stats["hits"] == 0


def test_a_file_server_that_hangs_hands_the_job_back(start_stager: StartStager, hub: FileHub, tmp_path: Path) -> None:
    """Simulated: a call about this file takes longer than anybody waits."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "file").write_bytes(SMALL)
    stager = start_stager(input_paths=[str(site)], stall_s=1.0)
    stager.staged({"to": "x", "source": f"blob:{hub.add(SMALL)}"}, job="j0")
    with injected(stager.pid, "openat,newfstatat:delay_enter=20000000", path=site / "file"):
        said = stager.not_staged({"to": "x", "source": f"file://{site}/file"})
        assert (said.outcome, said.reason) == ("returned", "staging-failed")
        assert "hangs" in said.text
        stager.drop()
        stager.staged({"to": "x", "source": f"blob:{hub.add(SMALL + SMALL)}"}, job="j2")


def test_a_directory_that_cannot_be_read_hands_the_job_back(
    start_stager: StartStager, hub: FileHub, tmp_path: Path
) -> None:
    folder = tmp_path / "aside"
    folder.mkdir()
    (folder / "out").write_bytes(LARGE)
    stager = start_stager()
    stager.staged({"to": "x", "source": f"blob:{hub.add(SMALL)}"})
    with injected(stager.pid, "openat,read,preadv:error=EIO", path=folder / "out"):
        said = stager.not_collected(folder, {"glob": "out"})
    assert (said.outcome, said.reason) == ("returned", "staging-failed")
