from pathlib import Path

import pytest

from worker_manager.clock import ManualClock
from worker_manager.control.ledger import Ledger
from worker_manager.errors import StoreError
from worker_manager.places import file_system_of, refuse_network_file_system

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local\\040disk xfs rw 0 0
mgs@tcp:/scratch /scratch/größe\\011x lustre rw 0 0
"""


def test_the_file_system_of_a_path_is_that_of_the_longest_mount_above_it() -> None:
    paths = ("/var/x", "/home/ann", "/home/local disk/y", "/scratch/größe\tx/z", "/homes")
    found = {path: file_system_of(Path(path), MOUNTS) for path in paths}
    assert list(found.values()) == ["ext4", "nfs4", "xfs", "lustre", "ext4"]


def mounts(folder: Path, place: Path, kind: str) -> Path:
    file = folder / "mounts"
    file.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {place} {kind} rw 0 0\n")
    return file


def test_network_file_systems_are_refused_with_what_to_do(tmp_path: Path) -> None:
    refuse_network_file_system(tmp_path, mounts(tmp_path, tmp_path, "xfs"))
    with pytest.raises(StoreError, match=r"is on nfs.*local disk.*--state-dir.*PostgreSQL"):
        refuse_network_file_system(tmp_path, mounts(tmp_path, tmp_path, "nfs"))


def test_a_link_does_not_hide_where_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    with pytest.raises(StoreError, match="lustre"):
        refuse_network_file_system(tmp_path / "near", mounts(tmp_path, tmp_path / "far", "lustre"))


def test_a_machine_without_a_list_of_mounts_is_trusted(tmp_path: Path) -> None:
    refuse_network_file_system(tmp_path, tmp_path / "none")


def test_the_ledger_is_not_opened_there(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(StoreError, match="nfs4"):
        Ledger.in_folder(state, "m", ManualClock(), mounts=mounts(tmp_path, state, "nfs4"))
    assert list(state.iterdir()) == []
