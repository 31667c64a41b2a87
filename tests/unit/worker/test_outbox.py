"""What is owed to the hub leaves in order, in good time, and within bounds."""

import json
from pathlib import Path
from typing import Any

import pytest

from worker import outbox as outboxes
from worker.files import told_bytes
from worker.outbox import LINGER_MS, LOG_LINGER_MS, SHORT_LINGER_MS, Outbox
from worker.spool import Spool


def an_outbox(folder: Path, limit: int = 1 << 30) -> Outbox:
    return Outbox(session=7, heartbeat_ms=15_000, spool=Spool(str(folder), limit), now=0)


def result(name: str) -> Any:
    return {"job": name, "epoch": 1, "outcome": "succeeded"}


def drained(outbox: Outbox) -> list[dict[str, Any]]:
    """Everything that waits, report by report."""
    reports: list[dict[str, Any]] = []
    while outbox.waiting:
        reports.append(dict(outbox.take(1, 0, False)))
        outbox.acknowledged()
    return reports


def output_of(reports: list[dict[str, Any]], job: str) -> bytes:
    chunks = [chunk for report in reports for chunk in report.get("logs", ()) if chunk["job"] == job]
    whole = b""
    for chunk in chunks:
        assert chunk["offset"] == len(whole), "no gap, no overlap"
        whole += chunk["text"].encode()
    return whole


def test_a_result_goes_at_once_when_nothing_else_is_left_to_do(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.result(result("j1"), 100)
    assert outbox.due_at(held=0) == 0


def test_results_wait_for_company_while_more_work_is_here_than_was_done(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.result(result("j1"), 100)
    assert outbox.due_at(held=2) == 100 + LINGER_MS
    outbox.result(result("j2"), 110)
    assert outbox.due_at(held=2) == 0, "half is done: ask for more before a slot stands idle"


def test_a_start_waits_for_its_result_but_not_for_long(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.start("j1", 1, 1000, 100)
    assert outbox.due_at(held=0) == 100 + SHORT_LINGER_MS
    assert outbox.due_at(held=5) == 100 + LINGER_MS
    outbox.start("j2", 1, 1000, 110)
    assert outbox.due_at(held=0) == 100 + SHORT_LINGER_MS, "the oldest counts"


def test_output_waits_a_little_unless_it_is_much(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.output("j1", 1, 0, b"x", 100)
    assert outbox.due_at(held=0) == 100 + LOG_LINGER_MS
    outbox.output("j1", 1, 1, b"x" * outboxes.FULL, 101)
    assert outbox.due_at(held=0) == 101


def test_a_heartbeat_is_due_when_there_is_nothing_to_say(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    assert outbox.due_at(held=0) == 15_000
    outbox.take(15_000, 0, False)
    outbox.acknowledged()
    assert outbox.due_at(held=0) == 30_000


def test_one_report_at_a_time_and_its_number_grows(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    assert outbox.take(1, 0, False)["seq"] == 1
    with pytest.raises(RuntimeError):
        outbox.take(2, 0, False)
    outbox.acknowledged()
    assert outbox.take(3, 0, False)["seq"] == 2


def test_a_result_never_overtakes_its_output(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    size = outboxes.REPORT_BYTES
    for n in range(3):
        outbox.output("j1", 1, n * size, b"x" * size, 1)
    outbox.result(result("j1"), 1)
    reports = drained(outbox)
    assert len(reports) == 4
    assert [bool(report.get("results")) for report in reports] == [False, False, False, True]


def test_farewell_is_said_only_with_the_last_word(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.output("j1", 1, 0, b"x" * outboxes.REPORT_BYTES, 1)
    outbox.result(result("j1"), 1)
    assert "leaving" not in outbox.take(2, 0, True, "idle")
    outbox.acknowledged()
    assert outbox.take(3, 0, True, "idle")["leaving"] == "idle"


def test_output_beyond_memory_is_spooled_and_comes_back_in_order(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    parts = [bytes([65 + n % 26]) * 500_000 for n in range(20)]
    for n, part in enumerate(parts):
        outbox.output("j1", 1, n * 500_000, part, 1)
    assert outbox._spool._waiting > 0
    assert list(tmp_path.iterdir()) == [], "the spool has no name"
    assert output_of(drained(outbox), "j1") == b"".join(parts)
    assert outbox._spool._file is None, "its space is given back"


def test_a_full_disk_loses_output_but_no_result_and_counts_it(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path, limit=100_000)
    for n in range(20):
        outbox.output("j1", 1, n * 500_000, b"x" * 500_000, 1)
    outbox.result(result("j1"), 1)
    reports = drained(outbox)
    lost = outbox.lost
    assert lost > 0
    note = (outboxes.MISSING % lost).decode()
    assert output_of(reports, "j1").decode() == "x" * (20 * 500_000 - lost) + note, "one note for all of it"
    assert [r["job"] for report in reports for r in report.get("results", ())] == ["j1"]


def test_what_is_missing_is_noted_where_it_is_missing(tmp_path: Path) -> None:
    outbox, full = an_outbox(tmp_path, limit=0), outboxes.MEMORY
    outbox.output("j1", 1, 0, b"x" * full, 1)
    for job in ("j1", "j2"):
        outbox.output(job, 1, full, b"y" * 1000, 1)
    outbox.output("j1", 1, full + 1000, b"y" * 10, 1)
    reports = drained(outbox)
    outbox.output("j1", 1, full + 1010, b"z", 1)
    chunks = [chunk for each in [*reports, *drained(outbox)] for chunk in each["logs"]]
    found = {(chunk["job"], chunk["offset"]): chunk["text"].strip("x") for chunk in chunks}
    assert found == {
        ("j1", 0): "",
        ("j1", full): (outboxes.MISSING % 1010).decode(),
        ("j2", full): (outboxes.MISSING % 1000).decode(),
        ("j1", full + 1010): "z",
    }


def test_spooled_output_that_cannot_be_read_any_more_is_noted_too(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.output("j1", 1, 0, b"x" * outboxes.MEMORY, 1)
    outbox.output("j1", 1, outboxes.MEMORY, b"y" * 1000, 1)
    outbox._spool.close()
    chunks = [chunk for each in drained(outbox) for chunk in each["logs"]]
    assert chunks[-1]["text"].endswith("[worker: 1000 bytes are missing here, because its disk could not keep them]\n")


def test_a_spool_folder_that_is_gone_is_a_full_disk(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "gone"))
    assert spool.put(b"abc") is None
    assert spool.lost == 3


def test_bytes_that_are_no_text_travel_as_base64(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.output("j1", 1, 0, b"\xff\x00", 1)
    outbox.output("j2", 1, 0, "ü".encode(), 1)
    chunks = {chunk["job"]: chunk for chunk in outbox.take(2, 0, False)["logs"]}
    assert chunks["j1"]["b64"] == "/wA="
    assert chunks["j2"]["text"] == "ü"


def test_a_report_whose_output_is_refused_goes_again_with_its_results(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    outbox.output("j1", 1, 0, b"x", 1)
    outbox.result(result("j1"), 1)
    report = outbox.take(2, 0, False)
    assert outbox.without_output()
    assert outbox.under_way is report
    assert "logs" not in report
    assert report["results"]
    assert not outbox.without_output(), "there is nothing more to leave out"


def test_results_that_tell_of_many_files_go_in_several_reports(tmp_path: Path) -> None:
    outbox = an_outbox(tmp_path)
    at = "s3://bucket/" + "p" * 400
    for number in range(6):
        files = [{"path": f"{number}/{n}", "size": 1, "sha256": "0" * 64, "at": at} for n in range(5000)]
        outbox.result({**result(f"j{number}"), "files": files}, 100)
    reports = drained(outbox)
    assert [one["job"] for report in reports for one in report["results"]] == [f"j{number}" for number in range(6)]
    assert len(reports) == 6
    told = len(json.dumps(reports[0]["results"][0]))
    assert told <= sum(told_bytes(file["path"], file["at"]) for file in reports[0]["results"][0]["files"])
