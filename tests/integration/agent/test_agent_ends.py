"""How a real agent ends, told to or left alone, and what it says when asked while it is busiest."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.place import alive

BIG = 16_000_000


@pytest.fixture
def running(fake_hub: Any, eventually: Any, tmp_path: Path) -> Any:
    """Assigns a job with this script; the pid of its process once it runs."""

    def start(name: str, script: str = "exec sleep 1000", **more: Any) -> int:
        pid_file = tmp_path / f"pid-{name}"
        line = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; {script}"
        fake_hub.assign(fake_hub.job(name, "sh", "-c", line, **more))
        eventually(pid_file.exists, f"{name} to run")
        eventually(lambda: (name, 1) in fake_hub.started, "the start to be reported")
        return int(pid_file.read_text())

    return start


# ---------------------------------------------------------------- told to


def test_passed_down_termination_returns_every_job_with_the_last_report(
    fake_hub: Any, start_agent: Any, running: Any
) -> None:
    """Those that run have their grace, those that wait never start."""
    agent = start_agent("--pass-down-termination", "--cpus", "3")
    saves = "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.02; done"
    pids = [running(name, saves, grace_ms=5000) for name in ("j1", "j2")]
    pids.append(running("j3", "exec sleep 1000"))
    fake_hub.assign(fake_hub.job("j4", "true"), fake_hub.job("j5", "true"))
    agent.process.send_signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    for name in ("j1", "j2", "j3", "j4", "j5"):
        assert fake_hub.result(name)["outcome"] == "returned", name
    assert all(fake_hub.logs[name, 1].endswith(b"saved\n") for name in ("j1", "j2"))
    assert {name for name, _ in fake_hub.started} == {"j1", "j2", "j3"}
    assert not any(map(alive, pids))
    last = fake_hub.reports[-1]
    assert (last["leaving"], last["running"]) == ("signal", 0), "nothing came after it"


def test_the_third_signal_ends_it_at_once(fake_hub: Any, start_agent: Any, running: Any, eventually: Any) -> None:
    """Even when a job does not heed anything and the hub does not answer."""
    agent = start_agent()
    pid = running("j1", "trap '' TERM; while :; do sleep 0.02; done", grace_ms=600_000)
    fake_hub.down()
    agent.process.send_signal(signal.SIGTERM)
    agent.signal_again(signal.SIGTERM)
    agent.signal_again(signal.SIGTERM, after=2)
    assert agent.exit_code() == 1
    eventually(lambda: not alive(pid), "the job to die with it")


# ---------------------------------------------------------------- left alone


def test_a_hub_that_is_gone_for_good_ends_jobs_worker_and_allocation(
    fake_hub: Any, start_agent: Any, running: Any, eventually: Any, tmp_path: Path
) -> None:
    """The job when the lease is nearly over, the worker after the set time, and with it the script that started it."""
    fake_hub.lease_ms, fake_hub.heartbeat_ms = 1500, 200
    over = tmp_path / "allocation-is-over"
    script = ["sh", "-c", f'"$@"; echo $? > {over}.new; mv {over}.new {over}', "batch", sys.executable, "-m", "worker"]
    agent = start_agent("--dead-man-seconds", "2s", program=script)
    pid = running("j1")
    fake_hub.down()
    eventually(over.exists, "the allocation to end")
    assert not alive(pid)
    assert over.read_text() == "1\n", "what became of the job could not be told"
    events = [line["event"] for line in agent.journal()]
    assert events.index("fenced") < events.index("exit")
    (left,) = agent.said("exit")
    assert left["reason"] == "hub-unreachable"
    assert agent.process.wait(10) == 0


def test_a_job_that_is_done_meanwhile_lets_it_go_as_well(
    fake_hub: Any, start_agent: Any, running: Any, eventually: Any, tmp_path: Path
) -> None:
    """It is never fenced; it is only that nobody hears of the result."""
    fake_hub.lease_ms, fake_hub.heartbeat_ms = 3000, 200
    agent = start_agent("--dead-man-seconds", "1s")
    running("j1", f"while ! test -e {tmp_path}/go; do sleep 0.02; done")
    fake_hub.down()
    (tmp_path / "go").touch()
    assert agent.exit_code() == 1
    assert not agent.said("fenced")
    assert agent.said("exit")[0]["reason"] == "hub-unreachable"


# ---------------------------------------------------------------- asked


def test_it_answers_while_output_pours_and_loses_none_of_it(
    fake_hub: Any, start_agent: Any, running: Any, eventually: Any
) -> None:
    agent = start_agent()
    running("j1", f"head -c {BIG} /dev/zero | tr '\\0' x")
    for number in range(1, 6):
        agent.process.send_signal(signal.SIGUSR1)
        eventually(lambda number=number: len(agent.said("dump")) >= number, "a dump")
    assert fake_hub.result("j1", seconds=60)["outcome"] == "succeeded"
    assert fake_hub.logs["j1", 1] == b"x" * BIG
    assert fake_hub.result("j1")["output"] == BIG
