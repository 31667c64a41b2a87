"""Archives, good ones and bad ones."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.staging.errors import Unsafe
from worker.staging.unpack import Bounds, unpack

Make = Callable[..., str]


@pytest.fixture
def tar(tmp_path: Path) -> Make:
    def make(*infos: tuple[tarfile.TarInfo, bytes], kind: str = "w") -> str:
        path = tmp_path / "archive.tar"
        with tarfile.open(path, kind) as archive:
            for info, data in infos:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return str(path)

    return make


def file(name: str, data: bytes = b"data", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info, data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def into(tmp_path: Path) -> str:
    return str(tmp_path / "out")


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_of_any_packing(tmp_path: Path, tar: Make, kind: str) -> None:
    folder = special("a/", tarfile.DIRTYPE)
    archive = tar(folder, file("a/b/c.txt", b"hello"), file("./run", b"#!", 0o4755), kind=kind)
    assert unpack(archive, into(tmp_path)) == 7
    out = Path(into(tmp_path))
    assert (out / "a" / "b" / "c.txt").read_bytes() == b"hello"
    assert (out / "run").stat().st_mode & 0o7777 == 0o700
    assert not os.access(out / "a" / "b" / "c.txt", os.X_OK) or os.geteuid() == 0


def test_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/", "")
        archive.writestr("a/b", "x" * 1000)
    assert unpack(str(path), into(tmp_path)) == 1000
    assert (Path(into(tmp_path)) / "a" / "b").stat().st_size == 1000


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "a/../../out",
        "/etc/passwd",
        "a/\0b",
        "..",
        "C:/x",
        "a\\..\\b",
        "x" * 300,
        "d/" * 70 + "x",
        "y/" * 3000,
    ],
)
def test_a_path_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        archive.writestr(info, b"data")
    if "\0" in name:  # zipfile itself cuts it there
        unpack(str(path), into(tmp_path))
        assert [path.name for path in Path(into(tmp_path)).iterdir()] == ["a"]
        return
    with pytest.raises(Unsafe):
        unpack(str(path), into(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.zip", "out"]


@pytest.mark.parametrize("name", ["../../out2", "/tmp/wm-absolute", "a/../../b"])
def test_a_tar_path_that_leads_out_is_refused(tmp_path: Path, tar: Make, name: str) -> None:
    with pytest.raises(Unsafe):
        unpack(tar(file(name)), into(tmp_path))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, tar: Make, kind: bytes) -> None:
    with pytest.raises(Unsafe, match="a link or a device"):
        unpack(tar(special("x", kind, "target"), file("x/y")), into(tmp_path))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(Unsafe, match="a link or a device"):
        unpack(str(path), into(tmp_path))


def test_one_name_for_a_file_and_a_folder_is_refused(tmp_path: Path, tar: Make) -> None:
    with pytest.raises(Unsafe, match="a file and for a folder"):
        unpack(tar(file("a"), file("a/b")), into(tmp_path))


def test_the_same_name_twice_is_refused(tmp_path: Path, tar: Make) -> None:
    with pytest.raises(Unsafe, match="twice"):
        unpack(tar(file("a"), file("./a")), into(tmp_path))


def test_a_bomb_is_stopped_while_it_goes_off(tmp_path: Path, tar: Make) -> None:
    archive = tar(file("zeros", bytes(200 * 2**20)), kind="w:gz")
    assert os.path.getsize(archive) < 2**20  # noqa: PTH202
    with pytest.raises(Unsafe, match="unpacks to more than"):
        unpack(archive, into(tmp_path))
    assert (Path(into(tmp_path)) / "zeros").stat().st_size <= 65 * 2**20


def test_a_size_of_ones_own(tmp_path: Path, tar: Make) -> None:
    with pytest.raises(Unsafe, match="more than 1000 bytes"):
        unpack(tar(file("a", bytes(600)), file("b", bytes(600))), into(tmp_path), Bounds(size=1000))


def test_too_many_entries(tmp_path: Path, tar: Make) -> None:
    with pytest.raises(Unsafe, match="more than 10 entries"):
        unpack(tar(*(file(f"f{n}", b"") for n in range(11))), into(tmp_path), Bounds(entries=10))


@pytest.mark.parametrize("data", [b"", b"no archive at all", b"PK\x03\x04 broken", b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "archive"
    path.write_bytes(data)
    with pytest.raises(Unsafe, match="cannot be read"):
        unpack(str(path), into(tmp_path))


def test_one_that_is_cut_short(tmp_path: Path, tar: Make) -> None:
    archive = Path(tar(file("a", os.urandom(100_000)), kind="w:gz"))
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(Unsafe, match="cannot be read"):
        unpack(str(archive), into(tmp_path))


def test_a_folder_that_is_there_already_is_not_touched(tmp_path: Path, tar: Make) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        unpack(tar(file("a")), into(tmp_path))


def test_bytes_that_were_damaged(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", os.urandom(20_000) + bytes(20_000))
    data = bytearray(path.read_bytes())
    data[5_000:15_000] = bytes(10_000)
    path.write_bytes(data)
    with pytest.raises(Unsafe, match="cannot be read"):
        unpack(str(path), into(tmp_path))
