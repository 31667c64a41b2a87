"""The hooks of whoever runs a worker, with real agents, keepers and shells."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

TELL = "env | sort > {}/$WM_HOOK.$WM_JOB"


def variables(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def test_around_the_life_of_a_worker(fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path) -> None:
    tell = TELL.format(tmp_path)
    agent = start_agent("--hook-start", f"{tell}; echo ready", "--hook-stop", tell, env={"SECRET": "x", "LANG": "C"})
    eventually(lambda: fake_hub.registrations, "the worker")
    begun = variables(tmp_path / "start.")
    assert begun["WM_WORKER"] == "w-1"
    assert begun["WM_WORK_DIR"] == str(agent.work_dir)
    assert begun["LANG"] == "C"
    assert "SECRET" not in begun, "what is in the agent's environment may be secret"
    assert [line["output"] for line in agent.said("hook")] == ["ready"]
    assert not (tmp_path / "stop.").exists()
    fake_hub.assign(fake_hub.job("a", "true"))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    agent.process.send_signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert variables(tmp_path / "stop.")["WM_WORKER"] == "w-1"


@pytest.mark.parametrize(
    ("line", "text"), [("echo no disk; exit 3", "ended with exit status 3"), ("sleep 60", "took longer than 0.3 s")]
)
def test_a_worker_whose_first_hook_fails_does_not_start(
    fake_hub: Any, start_agent: Any, tmp_path: Path, line: str, text: str
) -> None:
    agent = start_agent("--hook-start", line, "--hook-stop", f"touch {tmp_path}/stopped", "--hook-seconds", "300ms")
    assert agent.exit_code() == 1
    (said,) = agent.said("hook-failed")
    assert (said["hook"], said["text"]) == ("start", text)
    assert fake_hub.registrations == []
    assert not (tmp_path / "stopped").exists(), "there is nothing to stop"


def test_a_worker_can_be_stopped_while_it_starts(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    agent = start_agent("--hook-start", f"touch {tmp_path}/begun; sleep 60")
    eventually((tmp_path / "begun").exists, "the hook")
    agent.process.send_signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert fake_hub.registrations == []


def test_around_each_job(fake_hub: Any, start_agent: Any, tmp_path: Path) -> None:
    tell = TELL.format(tmp_path) + f"; pwd >> {tmp_path}/where; ls $WM_JOB_DIR >> {tmp_path}/files"
    agent = start_agent("--hook-before-job", tell + "; touch $WM_JOB_DIR/made", "--hook-after-job", tell)
    script = "ls; touch result; exit 7"
    fake_hub.assign(fake_hub.job("a", "/bin/sh", "-c", script, env={"PASSWORD": "p", "WM_JOB": "x", "WM_HOOK": "y"}))
    result = fake_hub.result("a")
    assert (result["outcome"], result["exit_code"]) == ("failed", 7)
    assert fake_hub.logs["a", 1] == b"made\n"
    before, after = variables(tmp_path / "before-job.a"), variables(tmp_path / "after-job.a")
    assert before["WM_JOB"] == "a" and before["WM_EPOCH"] == "1" and before["WM_OWNER"] == "ann"
    assert before["WM_WORKER"] == "w-1" and before["WM_CPUS"] == "1"
    assert "PASSWORD" not in before and "PASSWORD" not in after
    assert "WM_EXIT_CODE" not in before
    assert (after["WM_OUTCOME"], after["WM_EXIT_CODE"]) == ("failed", "7")
    assert before["WM_JOB_DIR"] == after["WM_JOB_DIR"]
    assert (tmp_path / "files").read_text().split() == ["made", "result"]
    assert (tmp_path / "where").read_text().split() == [str(agent.work_dir)] * 2
    assert agent.said("hook-failed") == []


def test_how_a_job_was_ended_is_told(fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path) -> None:
    start_agent("--hook-after-job", TELL.format(tmp_path))
    fake_hub.assign(fake_hub.job("a", "sleep", "60"), fake_hub.job("b", "sleep", "60", time_limit_ms=100))
    eventually(lambda: ("a", 1) in fake_hub.started, "its start")
    fake_hub.tell(cancel=[{"job": "a", "epoch": 1, "reason": "cancelled"}])
    assert fake_hub.result("a")["outcome"] == "cancelled"
    after = variables(tmp_path / "after-job.a")
    assert (after["WM_OUTCOME"], after["WM_SIGNAL"]) == ("cancelled", "15")
    assert fake_hub.result("b")["reason"] == "time-limit"
    assert variables(tmp_path / "after-job.b")["WM_REASON"] == "time-limit"


def test_a_job_whose_hook_fails_goes_back_and_too_many_of_them_end_the_worker(
    fake_hub: Any, start_agent: Any, tmp_path: Path
) -> None:
    line = f"echo $WM_JOB >> {tmp_path}/log; echo the disk is gone >&2; exit 4"
    agent = start_agent("--hook-before-job", line, "--hook-after-job", f"touch {tmp_path}/after")
    fake_hub.assign(fake_hub.job("a", "true"))
    result = fake_hub.result("a")
    assert (result["outcome"], result["reason"]) == ("returned", "hook-failed")
    assert result["text"] == "the hook before it ended with exit status 4: the disk is gone"
    (said,) = agent.said("hook-failed")
    assert (said["hook"], said["job"], said["output"]) == ("before-job", "a", "the disk is gone")
    for name in ("b", "c"):
        fake_hub.assign(fake_hub.job(name, "true"))
        assert fake_hub.result(name)["reason"] == "hook-failed"
    assert fake_hub.left() == "black-hole"
    assert agent.exit_code() == 0
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c"]
    assert not (tmp_path / "after").exists(), "no job was begun"
    why = next(report["why"] for report in fake_hub.reports if report.get("why"))
    assert "the disk is gone" in why["text"]


def test_a_hook_that_takes_too_long_is_killed(fake_hub: Any, start_agent: Any) -> None:
    agent = start_agent("--hook-before-job", "sleep 60 & sleep 60", "--hook-seconds", "300ms")
    fake_hub.assign(fake_hub.job("a", "true"))
    assert fake_hub.result("a")["text"] == "the hook before it took longer than 0.3 s"
    assert agent.said("hook-failed")[0]["took_ms"] >= 300


def test_a_hook_keeps_nobody_else_waiting(fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path) -> None:
    line = f"touch {tmp_path}/$WM_JOB; [ $WM_JOB = b ] || while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    start_agent("--hook-before-job", line)
    fake_hub.assign(fake_hub.job("a", "true"))
    eventually((tmp_path / "a").exists, "the hook before a")
    fake_hub.assign(fake_hub.job("b", "true"))
    assert fake_hub.result("b")["outcome"] == "succeeded"
    assert ("a", 1) not in fake_hub.started
    (tmp_path / "go").touch()
    result = fake_hub.result("a")
    assert result["outcome"] == "succeeded"
    assert result["run_ms"] < 5000, "the hook is no part of the job's time"


def test_a_job_that_is_cancelled_before_it_began(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    line = f"trap 'touch {tmp_path}/told; exit' TERM; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    start_agent("--hook-before-job", line)
    fake_hub.assign(fake_hub.job("a", "touch", f"{tmp_path}/ran", grace_ms=20_000))
    eventually((tmp_path / "begun").exists, "the hook")
    fake_hub.tell(cancel=[{"job": "a", "epoch": 1, "reason": "cancelled"}])
    assert fake_hub.result("a")["outcome"] == "cancelled"
    assert (tmp_path / "told").exists()
    assert not (tmp_path / "ran").exists()


def test_the_hook_after_a_job_changes_nothing_of_its_result(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    agent = start_agent("--hook-after-job", "echo oh; kill -9 $$")
    fake_hub.assign(fake_hub.job("a", "true"))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    (said,) = eventually(lambda: agent.said("hook-failed"), "its failure")
    assert (said["hook"], said["text"], said["output"]) == ("after-job", "was ended by signal 9", "oh")


def test_a_worker_that_is_stopped_hastens_the_hook_but_runs_it(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    agent = start_agent("--hook-after-job", f"touch {tmp_path}/after", "--pass-down-termination")
    fake_hub.assign(fake_hub.job("a", "sleep", "60"))
    eventually(lambda: ("a", 1) in fake_hub.started, "its start")
    agent.process.send_signal(signal.SIGTERM)
    assert fake_hub.result("a")["outcome"] == "returned"
    assert agent.exit_code() == 0
    assert (tmp_path / "after").exists()


def test_what_a_hook_leaves_behind_goes_with_the_job(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    line = f"sleep 600 >/dev/null 2>&1 & echo $! > {pid_file}"
    start_agent("--hook-before-job", line)
    script = f"kill -0 $(cat {pid_file}) && echo helped"
    fake_hub.assign(fake_hub.job("a", "/bin/sh", "-c", script))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    assert fake_hub.logs["a", 1] == b"helped\n"
    eventually(lambda: not Path("/proc", pid_file.read_text().strip()).exists(), "its end")


def test_when_an_agent_is_killed_its_hook_goes_too(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    agent = start_agent("--hook-before-job", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 600")
    fake_hub.assign(fake_hub.job("a", "true"))
    eventually(pid_file.exists, "the hook")
    agent.process.kill()
    eventually(lambda: not Path("/proc", pid_file.read_text().strip()).exists(), "its end")


def test_when_a_keeper_is_killed_its_hook_goes_too(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    agent = start_agent("--hook-before-job", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 600")
    fake_hub.assign(fake_hub.job("a", "true"))
    eventually(pid_file.exists, "the hook")
    (keeper,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(int(keeper), signal.SIGKILL)
    assert fake_hub.result("a")["reason"] == "keeper-died"
    eventually(lambda: not Path("/proc", pid_file.read_text().strip()).exists(), "its end")


def test_a_wrap_stands_before_every_command(fake_hub: Any, start_agent: Any) -> None:
    start_agent("--wrap", "nice -n 7 env 'WRAPPED=a b'")
    fake_hub.assign(fake_hub.job("a", "/bin/sh", "-c", 'echo "$WRAPPED"; nice'))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    assert fake_hub.logs["a", 1] == b"a b\n7\n"


def test_many_jobs_with_hooks(fake_hub: Any, start_agent: Any, tmp_path: Path) -> None:
    start_agent("--hook-before-job", f"echo b >> {tmp_path}/log", "--hook-after-job", f"echo a >> {tmp_path}/log")
    names = [f"j{number}" for number in range(40)]
    fake_hub.assign(*(fake_hub.job(name, "true") for name in names))
    assert {fake_hub.result(name)["outcome"] for name in names} == {"succeeded"}
    assert sorted((tmp_path / "log").read_text().split()) == ["a"] * 40 + ["b"] * 40


def test_hooks_see_what_comes_and_what_is_kept(hub: Any, join: Any, eventually: Any, tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    data.mkdir()
    (data / "in").write_text("of the site")
    before, after = (
        f"cat $WM_JOB_DIR/in >> {log}; echo >> {log}",
        f"cat $WM_JOB_DIR/out >> {log}; echo x > $WM_JOB_DIR/sum",
    )
    join(
        hub,
        hub.token("worker"),
        *("--input-path", str(data), "--hook-before-job", before, "--hook-after-job", after),
    )
    inputs, outputs = [{"to": "in", "source": f"file://{data}/in"}], [{"glob": "out"}, {"glob": "sum"}]
    job = hub.submit("sh", "-c", "echo made > out", inputs=inputs, outputs=outputs)

    def ended() -> Any:
        shown = hub.get(f"/v1/jobs/{job}")
        return shown if shown["state"] in ("succeeded", "failed") else None

    assert eventually(ended, "its end")["state"] == "succeeded"
    assert log.read_text() == "of the site\nmade\n"
    assert [row["path"] for row in hub.get(f"/v1/jobs/{job}/files")["files"]] == ["out", "sum"]


def test_a_job_with_files_whose_hook_fails_goes_back_whole(fake_hub: Any, start_agent: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "in").write_text("x")
    start_agent("--input-path", str(data), "--hook-before-job", f"[ -e {tmp_path}/well ]")
    work = {"inputs": [{"to": "in", "source": f"file://{data}/in"}]}
    fake_hub.assign(fake_hub.job("a", "cat", "in", work=work))
    assert fake_hub.result("a")["reason"] == "hook-failed"
    (tmp_path / "well").touch()
    fake_hub.assign(fake_hub.job("a", "cat", "in", epoch=2, work=work))
    assert fake_hub.result("a", 2)["outcome"] == "succeeded"
    assert fake_hub.logs["a", 2] == b"x"
