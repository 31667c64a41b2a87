"""When a slot directory may be used again."""
# Plain paths, as in the module itself:
# ruff: noqa: PTH119, PTH208

import os
from pathlib import Path

import pytest

from worker.keeper.slots import IDLE_SLOTS, Slot, Slots


def test_the_same_owner_gets_the_same_empty_directory(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path))
    slot = slots.take("ann")
    assert os.listdir(slot.path) == []
    assert Path(slot.path).stat().st_mode & 0o777 == 0o700
    slots.give_back(slot)
    assert slots.take("ann").path == slot.path


def test_two_at_a_time_are_two_directories(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path))
    assert slots.take("ann").path != slots.take("ann").path


def test_another_owner_gets_another_directory(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path))
    slot = slots.take("ann")
    slots.give_back(slot)
    assert slots.take("bob").path != slot.path


def leave_a_file(slot: Slot) -> None:
    Path(slot.path, ".hidden").touch()


def change_its_rights(slot: Slot) -> None:
    Path(slot.path).chmod(0o777)


def replace_it(slot: Slot) -> None:
    moved = Path(slot.path).rename(slot.path + "-moved")
    Path(slot.path).mkdir(0o700)
    moved.rmdir()


def point_elsewhere(slot: Slot) -> None:
    Path(slot.path).rmdir()
    Path(slot.path).symlink_to("/etc")


def remove_it(slot: Slot) -> None:
    Path(slot.path).rmdir()


@pytest.mark.parametrize("touch", [leave_a_file, change_its_rights, replace_it, point_elsewhere, remove_it])
def test_a_directory_that_was_touched_is_never_used_again(tmp_path: Path, touch: object) -> None:
    slots = Slots(str(tmp_path))
    slot = slots.take("ann")
    keep_the_number = slots.take("ann")  # so that a file system cannot give the same inode to the replacement
    touch(slot)  # type: ignore[operator]
    slots.give_back(slot)
    assert slots.take("ann").path not in (slot.path, keep_the_number.path)
    assert not os.path.lexists(slot.path), "it is out of the way"


def test_a_directory_that_a_process_may_hold_is_not_used_again(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path))
    slot = slots.take("ann")
    slots.give_back(slot, reusable=False)
    assert slots.take("ann").path != slot.path


def test_what_is_not_empty_is_set_aside_to_be_removed(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path))
    slot = slots.take("ann")
    leave_a_file(slot)
    slots.give_back(slot)
    (aside,) = slots.garbage
    assert os.listdir(aside) == [".hidden"]


def test_idle_directories_do_not_pile_up(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path))
    for n in range(3 * IDLE_SLOTS):
        slots.give_back(slots.take(f"owner{n}"))
    assert len(os.listdir(tmp_path / "slots")) <= IDLE_SLOTS
    assert slots.garbage == []


def test_what_an_earlier_keeper_left_is_set_aside_and_its_names_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "slots" / "3").mkdir(parents=True)
    (tmp_path / "slots" / "3" / "file").touch()
    (tmp_path / "trash" / "5").mkdir(parents=True)
    slots = Slots(str(tmp_path))
    assert sorted(map(os.path.basename, slots.garbage)) == ["3", "5"]
    assert os.path.basename(slots.take("ann").path) == "6"
