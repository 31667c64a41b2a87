"""`wm-worker ps | status | stop` against real agents on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.place import alive
from worker_manager.hub import pyz

ROOT = Path(__file__).resolve().parents[3]
AGENT = [sys.executable, "-m", "worker"]


def wm_worker(*words: str, program: "list[str] | None" = None) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.run([*(program or AGENT), *words], env=env, capture_output=True, text=True, timeout=60)


def row(pid: int, *words: str, **how: Any) -> "dict[str, Any] | None":
    """Of ours: others may run agents here too."""
    rows = json.loads(wm_worker("ps", "-o", "json", *words, **how).stdout)
    return next((each for each in rows if each["pid"] == pid), None)


@pytest.fixture
def busy(fake_hub: Any, start_agent: Any, eventually: Any) -> Any:
    """An agent that runs a job which ends with TERM, with another two in its queue."""
    agent = start_agent("--pool", "nodes")
    fake_hub.assign(*(fake_hub.job(name, "sleep", "1000", shape={"cpus": 2000}) for name in ("j1", "j2", "j3")))
    eventually(lambda: ("j1", 1) in fake_hub.started, "the start to be reported")
    return agent


def test_ps_and_status_tell_what_it_does(busy: Any, fake_hub: Any) -> None:
    found = row(busy.pid)
    assert found is not None
    assert (found["worker"], found["pool"], found["hub"]) == ("w-1", "nodes", fake_hub.url)
    assert (found["standing"], found["running"], found["queued"]) == ("working", 1, 2)
    assert found["work_dir"] == str(busy.work_dir)
    assert found["started_ms"] > 10**12
    lines = [line for line in wm_worker("ps").stdout.splitlines() if str(busy.pid) in line]
    assert len(lines) == 1
    assert lines[0].split()[:5] == ["w-1", str(busy.pid), "nodes", "working", "1+2"]
    shown = wm_worker("status", str(busy.pid))
    assert shown.returncode == 0
    assert "['j1', 1, 'running']" in shown.stdout
    note = busy.work_dir / "agent.json"
    assert note.stat().st_mode & 0o777 == 0o600
    assert (busy.work_dir / "agent.sock").is_socket()


def test_the_single_file_has_it_too(busy: Any, tmp_path: Path) -> None:
    single = tmp_path / "worker.pyz"
    single.write_bytes(pyz.build())
    found = row(busy.pid, program=[sys.executable, str(single)])
    assert found is not None
    assert found["standing"] == "working"


def test_an_agent_that_does_not_answer_is_said_to(busy: Any) -> None:
    os.kill(busy.pid, 19)  # STOP
    try:
        found = row(busy.pid)
    finally:
        os.kill(busy.pid, 18)
    assert found is not None
    assert (found["standing"], found["running"]) == ("not-answering", None)


def test_stop_drains_and_the_job_goes_on(busy: Any, fake_hub: Any) -> None:
    told = wm_worker("stop", str(busy.pid))
    assert (told.returncode, told.stdout) == (0, "w-1 draining\n")
    again = wm_worker("stop", "--wait", "--timeout", "300ms", str(busy.pid))
    assert (again.returncode, again.stdout) == (1, "w-1 draining\n"), "it was not told a second time, so it runs on"
    assert fake_hub.result("j2")["outcome"] == "returned"
    assert not fake_hub.results["j1", 1]
    found = row(busy.pid)
    assert found is not None
    assert (found["standing"], found["running"], found["queued"]) == ("draining", 1, 0)


def test_stop_kill_hands_the_jobs_back_at_once(busy: Any, fake_hub: Any) -> None:
    told = wm_worker("stop", "--kill", "--wait", "-o", "json", str(busy.pid))
    assert told.returncode == 0
    assert json.loads(told.stdout) == [{"worker": "w-1", "pid": busy.pid, "result": "gone"}]
    assert busy.exit_code() == 0
    assert fake_hub.result("j1")["outcome"] == "returned"
    assert not (busy.work_dir / "agent.sock").exists()
    assert row(busy.pid) is None


def test_stop_force_leaves_no_process(busy: Any, eventually: Any) -> None:
    children = [int(pid) for pid in Path(f"/proc/{busy.pid}/task/{busy.pid}/children").read_text().split()]
    assert children, "its keeper"
    assert wm_worker("stop", "--force", "--wait", str(busy.pid)).returncode == 0
    assert busy.exit_code() == -9
    eventually(lambda: not any(alive(pid) for pid in children), "the keeper to end, and its jobs with it")


def test_who_is_not_there_is_named() -> None:
    told = wm_worker("stop", "nobody-of-that-name")
    assert (told.returncode, told.stderr) == (1, "wm-worker: no agent nobody-of-that-name runs here\n")


def test_several_are_not_stopped_by_accident(busy: Any, start_agent: Any, fake_hub: Any, eventually: Any) -> None:
    fake_hub.tokens["join-2"] = None
    other = start_agent(token="join-2", worker="w-2")
    eventually(lambda: row(other.pid), "the other one")
    told = wm_worker("stop")
    assert told.returncode == 2
    assert "give --all" in told.stderr
    assert busy.process.poll() is None
    assert other.process.poll() is None
