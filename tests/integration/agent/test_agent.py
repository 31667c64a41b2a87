"""One real agent with its keeper and real jobs, against a hub that behaves."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.place import alive

SLEEP = ("sleep", "1000")


@pytest.fixture
def sleeper(fake_hub: Any, eventually: Any, tmp_path: Path) -> Any:
    """Assigns a job that sleeps; the pid of its process once it runs."""

    def start(name: str = "j1", **more: Any) -> int:
        pid_file = tmp_path / f"pid-{name}"
        fake_hub.assign(
            fake_hub.job(
                name, "sh", "-c", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000", **more
            )
        )
        eventually(pid_file.exists, "the job to run")
        eventually(lambda: (name, 1) in fake_hub.started, "the start to be reported")
        return int(pid_file.read_text())

    return start


# ---------------------------------------------------------------- jobs


def test_it_registers_and_runs_a_job(fake_hub: Any, start_agent: Any) -> None:
    agent = start_agent("--pool", "p", "--tag", "b,a", "--config", "abc")
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", "echo out; echo err >&2; exit 3"))
    result = fake_hub.result("j1")
    assert (result["outcome"], result["exit_code"]) == ("failed", 3)
    assert sorted(fake_hub.logs["j1", 1].split()) == [b"err", b"out"]
    assert fake_hub.started == [("j1", 1)]
    (told,) = fake_hub.registrations
    assert (told["worker"], told["pool"], told["config"], told["protocol"]) == ("w-1", "p", "abc", 1)
    assert told["shape"]["cpus"] == 2000
    assert told["shape"]["tags"] == ["a", "b"]
    assert told["host"]["pid"] == agent.pid


def test_many_jobs_each_exactly_once(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    start_agent()
    names = [f"j{n}" for n in range(300)]
    fake_hub.assign(*(fake_hub.job(name, "echo", name) for name in names))
    eventually(lambda: len(fake_hub.results) == 300, "all results")
    assert all(fake_hub.result(name)["outcome"] == "succeeded" for name in names)
    assert sorted(fake_hub.started) == sorted((name, 1) for name in names)
    assert all(fake_hub.logs[name, 1] == name.encode() + b"\n" for name in names)
    assert len(fake_hub.reports) < 150, "in batches"


def test_output_streams_while_the_job_runs(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    start_agent()
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", "echo early; exec sleep 1000"))
    eventually(lambda: fake_hub.logs["j1", 1] == b"early\n", "the first line")
    assert not fake_hub.results
    fake_hub.tell(cancel=[{"job": "j1", "epoch": 1, "reason": "by ann"}])
    result = fake_hub.result("j1")
    assert (result["outcome"], result["reason"]) == ("cancelled", "by ann")


def test_jobs_run_in_order_and_only_as_many_as_fit(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any
) -> None:
    start_agent("--cpus", "1")
    first = sleeper("j1")
    fake_hub.assign(fake_hub.job("j2", "true"), fake_hub.job("j3", "true"))
    fake_hub.tell(recall=[{"job": "j2", "epoch": 1}])
    assert fake_hub.result("j2")["outcome"] == "returned"
    assert ("j2", 1) not in fake_hub.started
    os.kill(first, signal.SIGKILL)
    assert fake_hub.result("j1")["signal"] == 9
    assert fake_hub.result("j3")["outcome"] == "succeeded"


def test_a_cancel_that_comes_first_keeps_the_job_from_starting(fake_hub: Any, start_agent: Any, tmp_path: Path) -> None:
    started = tmp_path / "started"
    fake_hub.tell(assign=[fake_hub.job("j1", "touch", str(started))], cancel=[{"job": "j1", "epoch": 1}])
    start_agent()
    assert fake_hub.result("j1")["outcome"] == "cancelled"
    assert not started.exists()


def test_a_stale_attempt_is_killed(fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any) -> None:
    start_agent()
    pid = sleeper()
    fake_hub.stale = [["j1", 1]]
    eventually(lambda: not alive(pid), "the job to die")


# ---------------------------------------------------------------- leaving


def test_the_first_signal_drains(fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any) -> None:
    agent = start_agent("--cpus", "1")
    pid = sleeper()
    fake_hub.assign(fake_hub.job("j2", "true"))
    agent.process.send_signal(signal.SIGTERM)
    assert fake_hub.result("j2")["outcome"] == "returned", "it had not started"
    fake_hub.assign(fake_hub.job("j3", "true"))
    assert fake_hub.result("j3")["outcome"] == "returned", "it came too late"
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    assert agent.exit_code() == 0
    assert fake_hub.left() == "signal"
    assert fake_hub.result("j1")["signal"] == 9


def test_the_second_signal_hands_the_jobs_back_at_once(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any
) -> None:
    agent = start_agent()
    pid = sleeper(grace_ms=60_000)
    agent.process.send_signal(signal.SIGINT)
    agent.signal_again(signal.SIGINT)
    assert agent.exit_code() == 0
    assert (fake_hub.result("j1")["outcome"], fake_hub.left()) == ("returned", "signal")
    assert not alive(pid)


def test_pass_down_termination_ends_the_jobs_with_the_first_signal(
    fake_hub: Any, start_agent: Any, sleeper: Any
) -> None:
    agent = start_agent("--pass-down-termination")
    pid = sleeper()
    agent.process.send_signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert fake_hub.result("j1")["outcome"] == "returned"
    assert not alive(pid)


def test_a_drain_by_the_hub(fake_hub: Any, start_agent: Any, sleeper: Any) -> None:
    agent = start_agent()
    pid = sleeper()
    fake_hub.drain = {"reason": {"code": "idle", "text": "idle for 10 min"}, "deadline_ms": None, "cordon": 1}
    fake_hub.tell()
    os.kill(pid, signal.SIGKILL)
    assert agent.exit_code() == 0
    assert fake_hub.left() == "idle"
    assert not any(report["draining"] for report in fake_hub.reports)


def test_a_drain_with_a_deadline_gives_back_what_still_runs(fake_hub: Any, start_agent: Any, sleeper: Any) -> None:
    agent = start_agent()
    pid = sleeper(grace_ms=100)
    fake_hub.drain = {"reason": "spot", "deadline_ms": fake_hub._times()["now_ms"] + 300, "cordon": 1}
    fake_hub.tell()
    assert fake_hub.result("j1")["outcome"] == "returned"
    assert fake_hub.result("j1")["reason"] == "drained"
    assert agent.exit_code() == 0
    assert not alive(pid)


def test_stop_by_the_hub(fake_hub: Any, start_agent: Any, sleeper: Any) -> None:
    agent = start_agent()
    pid = sleeper(grace_ms=60_000)
    fake_hub.tell(stop=True)
    assert agent.exit_code() == 0
    assert (fake_hub.result("j1")["outcome"], fake_hub.left()) == ("returned", "deleted")
    assert not alive(pid)


def test_one_started_by_hand_leaves_when_idle(fake_hub: Any, start_agent: Any) -> None:
    agent = start_agent("--token-file", "TOKEN", "--idle-seconds", "300ms")
    fake_hub.assign(fake_hub.job("j1", "true"))
    assert fake_hub.result("j1")["outcome"] == "succeeded"
    assert agent.exit_code() == 0
    assert fake_hub.left() == "idle"


def test_after_its_number_of_runs_it_leaves(fake_hub: Any, start_agent: Any) -> None:
    agent = start_agent("--exit-after-num-runs", "2")
    fake_hub.assign(*(fake_hub.job(name, "true") for name in ("j1", "j2", "j3")))
    assert agent.exit_code() == 0
    assert [fake_hub.result(name)["outcome"] for name in ("j1", "j2", "j3")] == ["succeeded", "succeeded", "returned"]
    assert fake_hub.registrations[0]["max_runs"] == 2
    assert fake_hub.left() == "max-runs"


def test_its_work_dir_is_private_and_goes_with_it_when_asked(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    agent = start_agent("--delete-work-dir-on-exit")
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", "echo x > file; mkdir -m 0 locked"))
    fake_hub.result("j1")
    assert agent.work_dir.stat().st_mode & 0o777 == 0o700
    agent.process.send_signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert not agent.work_dir.exists()


# ---------------------------------------------------------------- who may not be here


def test_the_second_registrant_exits_at_once(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    first = start_agent()
    eventually(lambda: fake_hub.registrations, "the first to register")
    second = start_agent("--work-dir", str(first.work_dir) + "-elsewhere")
    assert second.exit_code() == 3
    assert second.said("refused")[0]["code"] == "second-registrant"
    assert first.process.poll() is None


def test_a_second_agent_in_the_same_work_dir_exits_at_once(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    start_agent()
    eventually(lambda: fake_hub.registrations, "the first to register")
    second = start_agent()
    assert second.exit_code() == 3
    assert second.said("refused")[0]["code"] == "work-dir-in-use"


def test_an_unknown_token_is_refused(start_agent: Any) -> None:
    assert start_agent(token="another").exit_code() == 3


def test_wrong_usage(start_agent: Any) -> None:
    agent = start_agent("--memory", "lots")
    assert agent.exit_code() == 2
    assert "--memory" in agent.errors.read_text()


@pytest.mark.parametrize(
    ("status", "code"), [(409, "session-superseded"), (410, "worker-gone"), (401, "token-revoked")]
)
@pytest.mark.parametrize("call", ["poll", "report"])
def test_a_session_that_is_over_kills_the_jobs(
    fake_hub: Any, start_agent: Any, sleeper: Any, call: str, status: int, code: str
) -> None:
    agent = start_agent()
    pid = sleeper()
    fake_hub.faults[call] = [(status, code)]
    fake_hub.tell()
    assert agent.exit_code() == 3
    assert not alive(pid)
    assert agent.said("refused")[0]["code"] == code


# ---------------------------------------------------------------- looking at it


def test_no_secret_can_be_seen(fake_hub: Any, start_agent: Any, sleeper: Any) -> None:
    agent = start_agent(env={"CANARY": "canary-1"})
    pid = sleeper()
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    assert children
    seen = {}
    for each in (str(agent.pid), *children, str(pid)):
        seen[each] = Path(f"/proc/{each}/cmdline").read_bytes() + Path(f"/proc/{each}/environ").read_bytes()
    assert all(b"join-1" not in text for text in seen.values())
    assert b"canary-1" not in seen[str(pid)], "a job's environment is its own"
    assert b"canary-1" not in seen[children[0]]
    assert b"WM_JOIN" not in seen[str(pid)]
    agent.process.send_signal(signal.SIGUSR1)
    agent.process.send_signal(signal.SIGTERM)
    agent.signal_again(signal.SIGINT)
    agent.exit_code()
    credential_sha256 = fake_hub.registrations[0]["credential_sha256"]
    assert "join-1" not in agent.errors.read_text()
    assert credential_sha256 not in agent.errors.read_text()


def test_usr2_says_that_the_machine_goes_and_what_runs_is_given_back_in_time(
    fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any
) -> None:
    agent = start_agent("--notice-seconds", "31")
    sleeper()
    agent.process.send_signal(signal.SIGUSR2)
    eventually(lambda: agent.said("notice"), "the notice")
    assert agent.exit_code() == 0
    assert fake_hub.result("j1")["outcome"] == "returned"


def test_usr1_tells_what_it_does_and_holds(fake_hub: Any, start_agent: Any, sleeper: Any, eventually: Any) -> None:
    agent = start_agent()
    sleeper()
    agent.process.send_signal(signal.SIGUSR1)
    (dump,) = eventually(lambda: agent.said("dump"), "the dump")
    assert dump["held"] == [["j1", 1, "running"]]
    assert (dump["standing"], dump["running"], dump["queued"]) == ("working", 1, 0)
    assert any("_step" in line for stack in dump["threads"].values() for line in stack)
    assert agent.process.poll() is None
