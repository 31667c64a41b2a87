"""A real agent when its hub, its lines, its keeper or itself fail."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.place import alive


@pytest.fixture
def sleeper(fake_hub: Any, eventually: Any, tmp_path: Path) -> Any:
    """Assigns a job that sleeps; the pid of its process once it runs."""

    def start(name: str = "j1", script: str = "exec sleep 1000") -> int:
        pid_file = tmp_path / f"pid-{name}"
        line = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; {script}"
        fake_hub.assign(fake_hub.job(name, "sh", "-c", line))
        eventually(pid_file.exists, "the job to run")
        eventually(lambda: (name, 1) in fake_hub.started, "the start to be reported")
        return int(pid_file.read_text())

    return start


def test_lost_replies_start_nothing_twice_and_lose_nothing(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    fake_hub.faults["workers"] = ["drop", "drop"]
    fake_hub.faults["poll"] = ["drop", "drop", None, "drop"]
    fake_hub.faults["report"] = ["drop", None, "drop", "drop", None, "drop"]
    agent = start_agent()
    counts = [f"n{i}" for i in range(20)]
    for name in counts:
        fake_hub.assign(fake_hub.job(name, "sh", "-c", f"echo {name}"))
    eventually(lambda: len(fake_hub.results) == len(counts), "all results")
    for name in counts:
        assert fake_hub.result(name)["outcome"] == "succeeded"
        assert fake_hub.logs[name, 1] == f"{name}\n".encode()
    assert sorted(fake_hub.started) == sorted((name, 1) for name in counts), "each reported started once"
    assert len({told["nonce"] for told in fake_hub.registrations}) == 1
    assert len(fake_hub.registrations) == 3
    seqs = [report["seq"] for report in fake_hub.reports]
    assert seqs == list(range(1, len(seqs) + 1))
    assert agent.process.poll() is None


@pytest.mark.parametrize("fault", ["garbage", "proxy", (500, "internal"), (503, "store"), (429, "overloaded")])
def test_what_is_no_answer_is_asked_again(fake_hub: Any, start_agent: Any, fault: Any) -> None:
    for call in ("workers", "poll", "report"):
        fake_hub.faults[call] = [fault]
    agent = start_agent()
    fake_hub.assign(fake_hub.job("j1", "echo", "out"))
    assert fake_hub.result("j1")["outcome"] == "succeeded"
    assert fake_hub.logs["j1", 1] == b"out\n"
    assert agent.said("hub-unreachable")
    assert agent.process.poll() is None


def test_a_report_that_the_hub_cannot_take_goes_again_without_output(fake_hub: Any, start_agent: Any) -> None:
    start_agent()
    taken = fake_hub._report

    def refusing(body: dict[str, Any], token: str) -> tuple[int, Any]:
        return taken(body, token) if not body.get("logs") else (422, fake_hub.problem(422, "invalid"))

    fake_hub._report = refusing
    fake_hub.assign(fake_hub.job("j1", "echo", "out"))
    assert fake_hub.result("j1")["outcome"] == "succeeded"


def test_a_hub_that_is_away_for_less_than_a_lease_misses_nothing(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any, tmp_path: Path
) -> None:
    agent = start_agent()
    go = tmp_path / "go"
    script = f"while ! test -e {go}; do sleep 0.02; done; head -c 6000000 /dev/zero | tr '\\0' x; touch {go}.done"
    sleeper("j1", script)
    fake_hub.down()
    go.touch()
    eventually(Path(f"{go}.done").exists, "the job to end while the hub is away")
    eventually(lambda: agent.said("hub-unreachable"), "the agent to notice")
    fake_hub.up()
    assert fake_hub.result("j1")["outcome"] == "succeeded"
    assert fake_hub.logs["j1", 1] == b"x" * 6_000_000
    fake_hub.assign(fake_hub.job("j2", "true"))
    assert fake_hub.result("j2")["outcome"] == "succeeded"
    assert not agent.said("fenced")


def test_a_hub_that_is_away_for_longer_fences_the_worker_which_then_goes_on(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any
) -> None:
    fake_hub.lease_ms, fake_hub.heartbeat_ms = 1500, 200
    agent = start_agent()
    pid = sleeper()
    fake_hub.down()
    lease_ends = time.monotonic() + 1.5
    eventually(lambda: not alive(pid), "the job to be killed")
    assert time.monotonic() < lease_ends, "before the lease ends"
    assert agent.said("fenced")
    eventually(lambda: time.monotonic() > lease_ends + 1.5, "another lease to pass: the keeper outlives it")
    fake_hub.up()
    assert fake_hub.result("j1")["outcome"] == "returned"
    fake_hub.assign(fake_hub.job("j2", "true"))
    assert fake_hub.result("j2")["outcome"] == "succeeded"


def test_a_hub_that_answers_nothing_is_a_hub_that_is_away(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any
) -> None:
    fake_hub.lease_ms, fake_hub.heartbeat_ms, fake_hub.poll_ms = 1500, 200, 500
    agent = start_agent()
    pid = sleeper()
    for call in ("poll", "report"):
        fake_hub.faults[call] = ["silent"] * 100
    eventually(lambda: not alive(pid), "the job to be killed")
    assert agent.said("fenced")


def test_a_hub_that_lets_no_poll_wait_is_not_flooded(fake_hub: Any, start_agent: Any) -> None:
    fake_hub.poll_ms = 0
    start_agent()
    fake_hub.assign(fake_hub.job("j1", "sleep", "1"))
    assert fake_hub.result("j1")["outcome"] == "succeeded"
    assert 2 <= len(fake_hub.polls) < 40


def test_an_idle_worker_gives_up_on_a_hub_that_stays_away(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    fake_hub.lease_ms, fake_hub.heartbeat_ms = 1500, 200
    agent = start_agent("--dead-man-seconds", "1s")
    eventually(lambda: fake_hub.reports, "a heartbeat")
    fake_hub.down()
    assert agent.exit_code() == 0
    assert agent.said("exit")[0]["reason"] == "hub-unreachable"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("standing", ["working", "draining", "leaving"])
def test_it_waits_for_a_hub_that_is_away_without_work(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any, standing: str
) -> None:
    fake_hub.lease_ms, fake_hub.poll_ms = 600_000, 300
    agent = start_agent()
    eventually(lambda: fake_hub.polls, "it to be there")
    if standing == "draining":
        sleeper("j1")
    if standing == "leaving":  # that it drains is heard, that it leaves is not

        def deaf_from_now_on(body: dict[str, Any]) -> None:
            if body.get("draining"):
                fake_hub.faults["report"] = [(503, "store")] * 10_000

        fake_hub.on_report = deaf_from_now_on
    else:
        fake_hub.down()
    if standing != "working":
        agent.process.send_signal(signal.SIGTERM)
        eventually(lambda: agent.said("draining"), "it to drain")
    eventually(lambda: agent.said("hub-unreachable"), "it to notice")
    before, until_then = cpu_seconds(agent.pid), time.monotonic() + 2
    eventually(lambda: time.monotonic() > until_then, "some time to pass")
    assert agent.process.poll() is None
    assert cpu_seconds(agent.pid) - before < 0.3


def test_a_hub_that_is_never_there(fake_hub: Any, start_agent: Any) -> None:
    fake_hub.down()
    agent = start_agent("--join-seconds", "500ms")
    assert agent.exit_code() == 1
    assert "could not be reached" in agent.said("error")[0]["text"]


def test_a_signal_ends_an_agent_that_still_looks_for_its_hub(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    fake_hub.down()
    agent = start_agent()
    eventually(lambda: agent.said("hub-unreachable"), "the first try")
    agent.process.send_signal(signal.SIGTERM)
    assert agent.exit_code() == 0


def test_killing_the_agent_ends_its_jobs_and_its_keeper(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any
) -> None:
    agent = start_agent()
    pid = sleeper()
    (keeper,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    agent.process.kill()
    eventually(lambda: not alive(pid), "the job to die")
    eventually(lambda: not alive(int(keeper)), "the keeper to go")


def test_killing_the_keeper_gives_the_jobs_back(fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any) -> None:
    agent = start_agent()
    pid = sleeper()
    (keeper,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(int(keeper), signal.SIGKILL)
    assert (fake_hub.result("j1")["outcome"], fake_hub.result("j1")["reason"]) == ("returned", "keeper-died")
    assert fake_hub.left() == "keeper-died"
    assert agent.exit_code() == 1
    eventually(lambda: not alive(pid), "the job to die")


def test_an_agent_that_was_stopped_past_its_lease_has_no_jobs_when_it_wakes(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any
) -> None:
    fake_hub.lease_ms, fake_hub.heartbeat_ms = 1500, 200
    agent = start_agent()
    pid = sleeper()
    agent.process.send_signal(signal.SIGSTOP)
    eventually(lambda: not alive(pid), "the keeper to fence it")
    agent.process.send_signal(signal.SIGCONT)
    assert fake_hub.result("j1")["outcome"] == "returned"


def test_an_assignment_that_makes_no_sense_fails_alone(fake_hub: Any, start_agent: Any) -> None:
    agent = start_agent()
    bad = fake_hub.job("bad", "true", shape={"cpus": "many"})
    fake_hub.assign(bad, fake_hub.job("good", "true"))
    assert (fake_hub.result("bad")["outcome"], fake_hub.result("bad")["reason"]) == ("failed", "bad-assignment")
    assert fake_hub.result("good")["outcome"] == "succeeded"
    assert not agent.said("error")


# An agent whose code fails once, when the first job has started or ended.
BROKEN = """
import sys
from worker import state
from worker.__main__ import main

right = state.State.happened

def wrong(self, events, now):
    state.State.happened = right
    raise RuntimeError("an error of our own")

state.State.happened = wrong
sys.exit(main())
"""


def test_an_error_of_its_own_loses_no_job(fake_hub: Any, start_agent: Any) -> None:
    agent = start_agent(program=[sys.executable, "-c", BROKEN])
    fake_hub.assign(fake_hub.job("j1", "true"))
    assert fake_hub.result("j1")["outcome"] in ("returned", "succeeded")
    assert "an error of our own" in agent.said("error")[0]["text"]
    fake_hub.assign(fake_hub.job("j2", "true"))
    assert fake_hub.result("j2")["outcome"] == "succeeded"


def test_it_leaves_on_an_error_of_its_own_when_told_to(fake_hub: Any, start_agent: Any, tmp_path: Path) -> None:
    agent = start_agent("--exit-on-exception", program=[sys.executable, "-c", BROKEN])
    pid_file = tmp_path / "pid"
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", f"echo $$ > {pid_file}; exec sleep 1000"))
    assert agent.exit_code() == 1
    assert agent.said("exit")[0]["reason"] == "exception"
    assert not pid_file.exists() or not pid_file.read_text() or not alive(int(pid_file.read_text()))
