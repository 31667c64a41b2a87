"""Blobs on disk: a name only for what is whole, and what has come of the others."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.hub.store.house import sha
from worker_manager.errors import StoreError
from worker_manager.hub.blobs.folder import BlobFolder, is_digest
from worker_manager.hub.blobs.upload import READ_BYTES, Upload

TEXT = "some bytes of a blob"
LATER = 10**15


@pytest.fixture
def folder(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "blobs")


def upload(folder: BlobFolder, text: str = TEXT, owner: str = "ann") -> Upload:
    return Upload(folder, owner, sha(text))


def read(folder: BlobFolder, digest: str) -> bytes | None:
    descriptor = folder.open(digest)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def published(folder: BlobFolder, text: str = TEXT, owner: str = "ann") -> Upload:
    one = upload(folder, text, owner)
    one.open()
    one.append([text.encode()])
    one.flush()
    assert one.is_right()
    one.publish()
    return one


def test_what_is_published_can_be_read_and_its_unfinished_name_stays_until_it_is_let_go(folder: BlobFolder) -> None:
    one = published(folder)
    assert read(folder, sha(TEXT)) == TEXT.encode() and folder.size(sha(TEXT)) == len(TEXT)
    assert folder.so_far(one.name) == len(TEXT)
    one.publish()  # again, after a commit that failed
    one.discard()
    assert read(folder, sha(TEXT)) == TEXT.encode()
    assert folder.unfinished() == [] and folder.so_far(one.name) == 0
    folder.remove(sha(TEXT))
    folder.remove(sha(TEXT))
    assert folder.size(sha(TEXT)) is None and read(folder, sha(TEXT)) is None


def test_another_owners_upload_of_the_same_takes_the_place_of_the_first(folder: BlobFolder) -> None:
    published(folder).discard()
    reader = folder.open(sha(TEXT))
    assert reader is not None
    published(folder, owner="bob").discard()
    folder.remove(sha(TEXT))
    with os.fdopen(reader, "rb") as file:
        assert file.read() == TEXT.encode(), "who reads goes on"


def test_without_links_a_file_is_renamed(folder: BlobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    one = published(folder)
    one.discard()
    assert read(folder, sha(TEXT)) == TEXT.encode()


def test_an_upload_goes_on_where_it_was_and_its_digest_with_it(folder: BlobFolder) -> None:
    first = upload(folder)
    assert first.open() == 0
    first.append([b"some ", b"bytes"])
    first.close()
    assert first.open() == 10 and not first.catch_up()
    first.append([b" of"])
    first.close()
    after_a_restart = upload(folder)
    assert after_a_restart.open() == 13
    assert not after_a_restart.is_right()
    while after_a_restart.catch_up():
        pass
    after_a_restart.append([b" a blob"])
    assert after_a_restart.is_right()
    after_a_restart.close()


def test_what_came_before_is_read_in_steps(folder: BlobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_manager.hub.blobs.upload.STEP_BYTES", READ_BYTES)
    text = "x" * (2 * READ_BYTES + 5)
    one = upload(folder, text)
    one.open()
    one.append([text.encode()])
    one.close()
    again = upload(folder, text)
    again.open()
    assert [again.catch_up() for _ in range(3)] == [True, True, False]
    assert again.is_right()
    again.close()


def test_an_upload_whose_file_went_begins_anew(folder: BlobFolder) -> None:
    one = upload(folder)
    one.open()
    one.append([b"other bytes"])
    one.close()
    folder.discard(folder.set_aside(one.name))
    assert one.open() == 0 and not one.catch_up()
    one.append([TEXT.encode()])
    assert one.is_right()
    one.close()


def test_a_failed_flush_throws_away_what_nobody_can_be_sure_of(
    folder: BlobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "the disk says no")

    one = upload(folder)
    one.open()
    one.append([b"some"])
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="the disk says no"):
        one.flush()
    assert one.size == 0 and folder.unfinished() == []


def test_only_names_of_blobs_are_strays_and_second_names_go(folder: BlobFolder, tmp_path: Path) -> None:
    published(folder).discard()
    place = tmp_path / "blobs" / sha(TEXT)[:2]
    second = place / f".second-{sha(TEXT)}"
    second.touch()
    (place / "notes").touch()
    (tmp_path / "blobs" / "zz").mkdir()
    group = int(sha(TEXT)[:2], 16)
    assert folder.rested(group, 0) == folder.rested(group ^ 1, LATER) == []
    assert second.exists()
    assert folder.rested(group, LATER) == [sha(TEXT)]
    assert not second.exists() and (place / "notes").exists()


def test_some_of_the_disk_is_left_to_others(folder: BlobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk(free_mib: int, all_mib: int) -> None:
        told = os.statvfs_result((4096, 2**20, all_mib, 0, free_mib, 0, 0, 0, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda _: told)

    disk(free_mib=100, all_mib=1000)
    assert folder.room() == 50 * 2**20
    disk(free_mib=40, all_mib=1000)
    assert folder.room() == 0
    disk(free_mib=10_000, all_mib=1_000_000)
    assert folder.room() == (10_000 - 1024) * 2**20


def test_a_place_that_cannot_hold_them_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot hold the files of jobs: Not a directory"):
        BlobFolder(tmp_path / "file" / "blobs")


@pytest.mark.parametrize("text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_what_is_no_digest(text: str) -> None:
    assert not is_digest(text)
