"""The measurements of cache and staging, with little in them: what they count is what happens."""

from pathlib import Path

import pytest

from tools.bench import cache, sides, staging
from tools.bench.report import Row


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def test_eight_workers_download_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SIZE", 2**22)
    monkeypatch.setattr(cache, "ROUNDS", 1)
    rows = {name.rpartition(": ")[2]: row for name, row in by_name(cache.same_input(tmp_path)).items()}
    assert rows["downloads"].value == 1
    assert rows["sent by the server"].ratio == 1
    written = rows["written to disk"].ratio
    assert written is not None and 0.9 < written < 1.5, "once, and a little for the folders"


def test_every_entry_that_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ENTRIES": 20, "READERS": 3, "SECONDS": 0.1, "ROUNDS": 1}.items():
        monkeypatch.setattr(cache, name, value)
    rows = cache.hits(tmp_path / "hits")
    assert all(row.value > 0 for row in rows)


def test_downloads_and_copies_are_what_they_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": 2**23, "ROUNDS": 1, "SMALL": 2**20, "LARGE": 2**24}.items():
        monkeypatch.setattr(staging, name, value)
    file = tmp_path / "input"
    digest = cache.random_file(file, staging.SIZE)
    moved = [*staging.downloads(tmp_path, file, digest), *staging.uploads(file)]
    rows = by_name([*moved, *staging.copies(tmp_path, file, digest)])
    assert "staging/download of 8 MiB/fetch" in rows
    assert all(row.ratio for row in rows.values() if row.baseline)
    with pytest.raises(RuntimeError, match="not what was sent"):
        staging.downloads(tmp_path, file, "0" * 64)
    (tmp_path / "to").unlink()
    assert len(staging.memory(tmp_path)) == 2


def test_sides_take_turns() -> None:
    told: list[str] = []
    acts = {name: lambda name=name: told.append(name) for name in "ab"}  # type: ignore[misc]
    found = sides.take_turns(acts, 2, lambda: None)
    assert told == ["b", "a", "a", "b"]
    assert [len(side.seconds) for side in found.values()] == [2, 2]
