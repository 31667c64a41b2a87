"""The folders of jobs that save what they have done: whose they are, and when they go."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from worker.checkpoints import ASIDE, FIRST_SWEEP_MS, SWEEP_EVERY_MS, Janitor, base_of, make, sweep

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000
USER = (700_123, 700_123)


def saved(base: Path, owner: str, name: str, age_ms: int) -> Path:
    folder = base / owner / name
    folder.mkdir(parents=True)
    (folder / "state").write_text("much work")
    when = (NOW_MS - age_ms) / 1000
    os.utime(folder, (when, when))
    return folder


def test_what_nobody_used_for_long_goes(tmp_path: Path) -> None:
    old, young = saved(tmp_path, "ann", "j1-a", 8 * DAY_MS), saved(tmp_path, "ann", "j2-a", 6 * DAY_MS)
    used, others = saved(tmp_path, "bob", "j3-a", 9 * DAY_MS), saved(tmp_path, "bob", "j4-a", 9 * DAY_MS)
    gone = sweep(str(tmp_path), 7 * DAY_MS, [str(used)], NOW_MS)
    assert gone == [str(old), str(others)]
    assert (young / "state").exists() and (used / "state").exists()
    assert sorted(each.name for each in tmp_path.glob("*/*")) == ["j2-a", "j3-a"]
    assert used.stat().st_mtime * 1000 > NOW_MS - 9 * DAY_MS, "and is young again"


def test_what_a_sweep_left_that_was_killed_goes_with_the_next(tmp_path: Path) -> None:
    left = saved(tmp_path, "ann", ASIDE + "j1-a", 0)
    assert sweep(str(tmp_path), 7 * DAY_MS, [], NOW_MS) == []
    assert not left.exists()


def test_only_folders_of_owners_are_looked_at(tmp_path: Path) -> None:
    elsewhere = saved(tmp_path / "elsewhere", "ann", "j1-a", 9 * DAY_MS)
    base = tmp_path / "base"
    base.mkdir()
    (base / "ann").symlink_to(elsewhere.parent)
    (base / "file").write_text("x")
    (base / "bob").mkdir()
    (base / "bob" / "j1-a").symlink_to(elsewhere)
    assert sweep(str(base), 7 * DAY_MS, [], NOW_MS) == []
    assert (elsewhere / "state").exists()
    assert sweep(str(tmp_path / "nowhere"), 7 * DAY_MS, [str(tmp_path / "no")], NOW_MS) == []


def test_links_in_a_folder_lead_nowhere_when_it_goes(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    old = saved(tmp_path / "base", "ann", "j1-a", 8 * DAY_MS)
    (old / "link").symlink_to(precious)
    os.utime(old, (1, 1))
    assert sweep(str(tmp_path / "base"), 7 * DAY_MS, [], NOW_MS) == [str(old)]
    assert (precious / "file").exists()


def test_a_folder_is_its_jobs_users_again_and_again(tmp_path: Path) -> None:
    needs.root()
    folder = tmp_path / "checkpoints-0" / "ann" / "j1-a"
    for _ in range(2):
        make(str(folder), USER)
        assert (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)) == (USER[0], 0o700)
        for above in (folder.parent, folder.parent.parent):
            assert (above.stat().st_uid, stat.S_IMODE(above.stat().st_mode)) == (0, 0o711)
    with pytest.raises(PermissionError):
        make(str(folder), (700_124, 700_124))
    with pytest.raises(PermissionError):
        make(str(folder))


def test_without_users_all_of_it_is_closed(tmp_path: Path) -> None:
    folder = Path(base_of(str(tmp_path))) / "ann" / "j1-a"
    make(str(folder))
    os.utime(folder, (1, 1))
    make(str(folder))
    assert folder.stat().st_mtime > 1, "it is used now"
    assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent, folder.parent.parent)} == {0o700}


def test_the_janitor_comes_now_and_then(tmp_path: Path) -> None:
    base = tmp_path / "base"
    old = saved(base, "ann", "j1-a", NOW_MS)
    janitor = Janitor(str(base), DAY_MS, list, 0)
    assert janitor.look(FIRST_SWEEP_MS - 1) == []
    assert old.exists()
    assert _looked(janitor, FIRST_SWEEP_MS) == [str(old)]
    assert not old.exists()
    second = saved(base, "ann", "j2-a", NOW_MS)
    assert _looked(janitor, FIRST_SWEEP_MS + SWEEP_EVERY_MS - 1) == []
    assert second.exists()
    assert _looked(janitor, FIRST_SWEEP_MS + SWEEP_EVERY_MS) == [str(second)]


def test_a_janitor_that_is_to_keep_everything(tmp_path: Path) -> None:
    old = saved(tmp_path, "ann", "j1-a", NOW_MS)
    janitor = Janitor(str(tmp_path), 0, list, 0)
    assert _looked(janitor, 10 * DAY_MS) == []
    assert old.exists()


def _looked(janitor: Janitor, now: int) -> list[str]:
    """What one round removed."""
    assert janitor.look(now) == []
    thread: Any = janitor._thread
    if thread is not None:
        thread.join()
    look: Callable[[int], list[str]] = janitor.look
    return look(now)
