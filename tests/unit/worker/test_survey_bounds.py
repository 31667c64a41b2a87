"""What is told of a job's directory is never more than the hub takes: else it would refuse the whole result."""

import os
from pathlib import Path

import pytest

from worker.files import MOST_KEPT, MOST_PATH
from worker.staging.errors import Refused
from worker.staging.stops import Stop
from worker.staging.survey import survey, wishes
from worker_manager.hub.files.names import is_safe_path


def test_more_files_than_an_attempt_may_keep_are_refused_before_any_is_sent(tmp_path: Path) -> None:
    for number in range(MOST_KEPT):
        os.mknod(tmp_path / str(number))
    assert len(survey(str(tmp_path), wishes([{"glob": "**"}]), Stop()).kept) == MOST_KEPT
    os.mknod(tmp_path / "more")
    with pytest.raises(Refused, match="archive"):
        survey(str(tmp_path), wishes([{"glob": "**"}]), Stop())


def test_a_path_that_the_hub_would_refuse_is_left_out(tmp_path: Path) -> None:
    names = ["a" * 200] * (MOST_PATH // 200)
    folder = tmp_path
    for name in names[:-1]:
        folder = folder / name
        folder.mkdir()
    (folder / "short").touch()
    (folder / names[-1]).touch()  # with the folders just over it
    deep = tmp_path
    for _ in range(200):
        deep = deep / "d"
        deep.mkdir()
    (deep / "x").touch()
    found = survey(str(tmp_path), wishes([{"glob": "**"}]), Stop())
    assert sorted(each.path[-5:] for each in found.kept) == ["/d/d/x"[-5:], "short"]
    assert all(is_safe_path(each.path) for each in found.kept)
    (said,) = found.left_out
    assert said.endswith("longer than 1000 bytes")


def test_names_that_fill_a_report_by_themselves_are_refused(tmp_path: Path) -> None:
    for number in range(2000):
        os.mknod(tmp_path / f"{number}-{'ä' * 100}")
    assert len(survey(str(tmp_path), wishes([{"glob": "*"}]), Stop()).kept) == 2000
    far = [{"glob": "*", "to": f"s3://bucket/{'ö' * 600}/"}]
    with pytest.raises(Refused, match="too long"):
        survey(str(tmp_path), wishes(far), Stop())
