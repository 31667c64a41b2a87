"""What a job says of its progress, from its output to the hub's answers: real agent and keeper."""

from pathlib import Path
from typing import Any

WAIT = "while [ ! -e '{}' ]; do sleep 0.05; done\n"


def test_from_a_jobs_output_to_its_owner(hub: Any, join: Any, eventually: Any, tmp_path: Path) -> None:
    further, last = tmp_path / "further", tmp_path / "last"
    join(hub, hub.token("worker"))
    script = f"echo '@progress 40 epoch 3'\n{WAIT.format(further)}echo '@progress 3/4'\n{WAIT.format(last)}"
    job = hub.submit("/bin/sh", "-c", script)
    found = eventually(lambda: hub.get(f"/v1/jobs/{job}")["progress"], "its progress")
    assert {**found, "at_ms": 0} == {
        "phase": "running",
        "done": 40,
        "whole": 100,
        "percent": 40,
        "text": "epoch 3",
        "at_ms": 0,
    }
    assert hub.get("/v1/jobs")["jobs"][0]["progress"] == found
    further.touch()
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["progress"]["percent"] == 75, "more progress")
    last.touch()
    ended = eventually(lambda: _ended(hub, job), "its end")
    assert (ended["state"], ended["progress"]) == ("succeeded", None)
    assert hub.call("GET", f"/v1/jobs/{job}/logs").content == b"@progress 40 epoch 3\n@progress 3/4\n"


def test_a_pattern_of_ones_own(hub: Any, join: Any, eventually: Any, tmp_path: Path) -> None:
    last = tmp_path / "last"
    join(hub, hub.token("worker"))
    script = f"printf 'loading 10%%\\rloading 20%%\\r'\n{WAIT.format(last)}"
    job = hub.submit("/bin/sh", "-c", script, progress_regex=r"loading (\d+)%")
    eventually(lambda: (hub.get(f"/v1/jobs/{job}")["progress"] or {}).get("percent") == 20, "its progress")
    assert hub.get(f"/v1/jobs/{job}")["progress_regex"] == r"loading (\d+)%"
    last.touch()
    eventually(lambda: _ended(hub, job), "its end")


def test_patterns_that_are_none_are_refused(hub: Any) -> None:
    for pattern in ("(", "no group", "", "(1)" + "x" * 200):
        body = {"jobs": [{"command": ["true"], "progress_regex": pattern}]}
        answer = hub.call("POST", "/v1/jobs", body)
        assert answer.status_code == 422, pattern
        assert "progress_regex" in answer.text


def test_beyond_the_limit_of_its_output(fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path) -> None:
    last = tmp_path / "last"
    start_agent()
    script = f"head -c 20000 /dev/zero | tr '\\0' x\necho\necho '@progress 70 far'\n{WAIT.format(last)}"
    fake_hub.assign(fake_hub.job("a", "/bin/sh", "-c", script, output_limit=100))
    rows = [["a", 1, "running", 70, 100, "far"]]
    eventually(lambda: any(report.get("progress") == rows for report in fake_hub.reports), "its progress")
    last.touch()
    assert fake_hub.result("a")["outcome"] == "succeeded"


def test_a_pattern_that_never_comes_to_an_end_costs_nobody_anything(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    last = tmp_path / "last"
    agent = start_agent()
    script = f"head -c 400 /dev/zero | tr '\\0' a\necho\n{WAIT.format(last)}"
    fake_hub.assign(
        fake_hub.job("slow", "/bin/sh", "-c", script, work={"progress_regex": "(a+)+b"}), fake_hub.job("b", "true")
    )
    eventually(lambda: "progress pattern of slow.1 takes too long" in agent.errors.read_text(), "the keeper's word")
    assert fake_hub.result("b")["outcome"] == "succeeded"
    last.touch()
    assert fake_hub.result("slow")["outcome"] == "succeeded"


def test_who_writes_much_progress_is_heard_about_once_a_second(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    fake_hub.heartbeat_ms = 60_000
    start_agent()
    script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo @progress $i/300; sleep 0.01; done"
    fake_hub.assign(fake_hub.job("a", "/bin/sh", "-c", script))
    result = fake_hub.result("a", seconds=60)
    told = [row for report in fake_hub.reports for row in report.get("progress", ())]
    assert 1 <= len(told) <= 2 + result["run_ms"] / 1000
    assert [row[3] for row in told] == sorted({row[3] for row in told}), "only news, in order"


def _ended(hub: Any, job: str) -> Any:
    shown = hub.get(f"/v1/jobs/{job}")
    return shown if shown["state"] in ("succeeded", "failed", "cancelled") else None
