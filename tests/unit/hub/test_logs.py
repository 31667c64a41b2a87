"""Output in segments: durable, bounded, read back piece by piece; torn tails and repeats do no harm."""

import asyncio
from pathlib import Path

import pytest

from worker_manager.clock import ManualClock
from worker_manager.hub.contract import LogPiece, LogView
from worker_manager.hub.logreader import join, read_output
from worker_manager.hub.logs import DAY_MS, LogFolder, Place
from worker_manager.hub.logwriter import LogWriter
from worker_manager.hub.types import LogsQuery


def folder_at(tmp_path: Path, segment_bytes: int = 1000) -> LogFolder:
    return LogFolder(tmp_path / "logs", segment_bytes)


def test_pieces_are_read_back_where_they_were_put(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    first = folder.append([b"abc", b"defgh"], 0)
    second = folder.append([b"ij"], 0)
    assert [folder.read(place) for place in first + second] == [b"abc", b"defgh", b"ij"]
    assert folder.read(first[1], skip=2) == b"fgh"
    assert folder.read(first[1], skip=1, limit=2) == b"ef"
    assert folder.read(first[1], skip=9) == b""


def test_a_segment_is_closed_when_it_is_full_or_a_day_old(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, segment_bytes=10)
    names = [folder.append([b"x" * 6], now)[0].segment for now in (0, 1, 2, 2 + DAY_MS)]
    assert names == ["00000001", "00000001", "00000002", "00000003"]


def test_a_new_process_never_writes_into_an_old_segment(tmp_path: Path) -> None:
    one = folder_at(tmp_path)
    place = one.append([b"kept"], 0)[0]
    one.close()
    with (tmp_path / "logs" / "00000001.log").open("ab") as file:
        file.write(b"a torn tail that no index names")
    two = folder_at(tmp_path)
    assert two.append([b"new"], 0)[0] == Place("00000002", 0, 3)
    assert two.read(place) == b"kept"


def test_whole_segments_are_deleted_but_never_the_current_one(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, segment_bytes=1)
    places = [folder.append([b"x"], 0)[0] for _ in range(3)]
    assert folder.delete(["00000001", "00000003", "../hub", "nonsense"]) == ["00000001"]
    assert folder.names() == ["00000002", "00000003"]
    assert [folder.read(place) for place in places] == [b"", b"x", b"x"]


def test_names_that_are_not_ours_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.log").write_text("secret")
    assert folder_at(tmp_path).read(Place("../secret", 0, 6)) == b""


def test_a_write_that_fails_goes_on_in_a_new_segment(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.append([b"a"], 0)
    descriptor = folder._descriptor
    assert descriptor is not None
    import os

    os.close(descriptor)
    folder._descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError):
        folder.append([b"b"], 0)
    assert folder.append([b"c"], 0) == [Place("00000002", 0, 1)]


def piece(offset: int, place: Place, job: str = "j1") -> LogPiece:
    return LogPiece(job, 1, offset, place.length, place.segment, place.position)


def test_overlaps_are_read_once_and_a_gap_ends_the_answer(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    a, again, b, far = folder.append([b"0123", b"0123", b"2345", b"89"], 0)
    pieces = [piece(0, a), piece(0, again), piece(2, b), piece(8, far)]
    assert join(pieces, folder, 0, 100) == (0, b"012345")
    assert join(pieces, folder, 3, 100) == (3, b"345")
    assert join(pieces, folder, 1, 2) == (1, b"12")
    assert join(pieces, folder, 6, 100) == (8, b"89")
    assert join(pieces, folder, 10, 100) == (10, b"")


class OneAttempt:
    """The part of a store that the reader asks."""

    def __init__(self, pieces: list[LogPiece], complete: bool) -> None:
        self.pieces, self.complete = pieces, complete
        self.size = max((each.offset + each.length for each in pieces), default=0)

    def log_view(self, job: str, attempt: int | None = None, offset: int = 0, limit: int = 1000) -> LogView:
        wanted = tuple(each for each in self.pieces if each.offset + each.length > offset)[:limit]
        return LogView(job, 1, wanted, self.size, self.complete)


def output_of(tmp_path: Path, complete: bool = True, purge: bool = False, **query: int) -> tuple[int, bytes, bool]:
    folder = folder_at(tmp_path, segment_bytes=1)
    places = [folder.append([data], 0)[0] for data in (b"abcd", b"efgh", b"ij")]
    if purge:
        folder.delete(["00000001", "00000002"])
    store = OneAttempt([piece(offset, place) for offset, place in zip((0, 4, 8), places, strict=True)], complete)
    found = read_output(store, folder, "j1", LogsQuery.model_validate(query))  # type: ignore[arg-type]
    return found.offset, found.data, found.complete


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, (0, b"abcdefghij", True)),
        ({"offset": 9}, (9, b"j", True)),
        ({"limit": 5}, (0, b"abcde", False)),
        ({"tail": 3}, (7, b"hij", True)),
        ({"tail": 99}, (0, b"abcdefghij", True)),
        ({"tail": 0}, (10, b"", True)),
        ({"offset": 10}, (10, b"", True)),
        ({"offset": 99}, (99, b"", True)),
    ],
)
def test_offset_limit_and_tail(tmp_path: Path, query: dict[str, int], expected: tuple[int, bytes, bool]) -> None:
    assert output_of(tmp_path, **query) == expected


def test_it_is_complete_only_when_the_attempt_has_ended(tmp_path: Path) -> None:
    assert output_of(tmp_path, complete=False) == (0, b"abcdefghij", False)


def test_what_was_purged_is_passed_over(tmp_path: Path) -> None:
    assert output_of(tmp_path, purge=True) == (8, b"ij", True)


def test_output_that_comes_together_is_made_durable_together(tmp_path: Path) -> None:
    batches: list[int] = []

    async def body() -> None:
        writer = LogWriter(folder_at(tmp_path), ManualClock(), lambda pieces, size: batches.append(pieces))
        try:
            many = await asyncio.gather(*(writer.append([b"%d" % n, b"."]) for n in range(50)))
            assert [[writer.folder.read(place) for place in some] for some in many] == [
                [b"%d" % n, b"."] for n in range(50)
            ]
        finally:
            writer.close()

    asyncio.run(body())
    assert sum(batches) == 100
    assert len(batches) <= 2
