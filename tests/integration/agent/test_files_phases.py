"""What happens to jobs with files in each phase of theirs: cancels, deaths, drains. Agent, keeper and stager are real;
the hub and the storage do as they are told."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.files_hub import FilesHub, fake_hub
from tests.integration.agent.web import Web
from tests.integration.test_keeper import interpreter
from worker_manager.hub import pyz

__all__ = ["fake_hub"]

BIG = b"0123456789abcdef" * 65536
HUGE = 4 * BIG


def children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def stagers(agent: Any) -> list[int]:
    return [pid for pid in children(agent.pid) if "worker.staging" in command(pid)]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def nothing_is_left(agent: Any, eventually: Callable[..., Any]) -> None:
    """Of an attempt that is over."""
    for folder in ("staged", "jobs/kept"):
        path = agent.work_dir / folder
        eventually(lambda path=path: not path.exists() or not list(path.iterdir()), f"{folder} to be empty")


# ---------------------------------------------------------------- as it should be


def test_a_worker_without_such_jobs_has_no_stager(fake_hub: FilesHub, start_agent: Any) -> None:
    agent = start_agent()
    fake_hub.assign(fake_hub.job("a", "true"))
    fake_hub.result("a")
    assert len(children(agent.pid)) == 1
    assert {"inputs", "outputs"} <= set(fake_hub.registrations[0]["shape"]["can"])
    assert "paths" not in fake_hub.registrations[0]["shape"]["can"]


def test_files_in_and_out_and_what_is_told_of_it(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = start_agent(env={"https_proxy": "http://user:word@127.0.0.1:9", "SECRET": "of the agent"})
    one = web.put("/one", BIG)
    script = "mkdir out; wc -c < one > out/size; touch one 2>/dev/null && echo WROTE; stat -L -c %a one"
    web.put("/private", b"not that")
    fake_hub.assign(fake_hub.with_files("a", script, one, "blob:" + "0" * 64, outputs=True))
    result = fake_hub.result("a")
    assert (result["outcome"], result["reason"], fake_hub.started) == ("failed", "input-corrupt", [])
    fake_hub.assign(fake_hub.with_files("b", script, one, outputs=True))
    result = fake_hub.result("b")
    assert result["outcome"] == "succeeded", result
    (kept,) = result["files"]
    assert (kept["path"], kept["at"], web.files["/kept/out/size"]) == ("out/size", "s3://b/out/size", b"1048576\n")
    if os.geteuid() != 0:
        assert b"WROTE" not in fake_hub.logs["b", 1]
    assert fake_hub.logs["b", 1].endswith(b"444\n")
    (stager,) = stagers(agent)
    (credential,) = fake_hub.credentials
    around = Path(f"/proc/{stager}/environ").read_bytes().decode() + command(stager)
    for secret in (credential, "word", "SECRET", "join-1"):
        assert secret not in around
    told = eventually(lambda: [r["cache"] for r in fake_hub.reports if r.get("cache", {}).get("added")], "the cache")
    assert [row[0] for row in told[0]["added"]] == ["public"]
    nothing_is_left(agent, eventually)


def test_a_job_that_is_being_staged_is_queued_and_seen(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    from worker import here

    agent = start_agent()
    gate = web.gate("/slow")
    fake_hub.assign(fake_hub.with_files("a", "cat slow | wc -c", web.put("/slow", HUGE)))
    web.until_waiting("/slow")
    told = here.ask(str(agent.work_dir), 5)
    assert told is not None and (told["queued"], told["running"], told["held"]) == (1, 0, [["a", 1, "staging"]])
    rows = eventually(lambda: [row for r in fake_hub.reports for row in r.get("progress", ())], "how far it is")
    assert rows[0][:3] == ["a", 1, "staging"] and 0 < rows[0][3] < len(HUGE) == rows[0][4]
    reports = len(fake_hub.reports)
    eventually(lambda: len(fake_hub.reports) > reports + 1, "heartbeats meanwhile")
    agent.process.send_signal(signal.SIGUSR1)
    dump = eventually(lambda: agent.said("dump"), "the dump")
    assert dump[0]["held"] == [["a", 1, "staging"]]
    gate.set()
    assert fake_hub.result("a")["outcome"] == "succeeded"
    assert int(fake_hub.logs["a", 1]) == len(HUGE)


def test_what_was_sent_within_the_grace_of_a_stop_counts(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = start_agent("--pass-down-termination")
    gate = web.gate("/kept/out/x")
    fake_hub.assign(fake_hub.with_files("sends", "mkdir out; echo x > out/x", outputs=True))
    web.until_waiting("/kept/out/x")
    agent.process.send_signal(signal.SIGTERM)
    eventually(lambda: agent.said("stopping"), "it to heed that")
    gate.set()
    result = fake_hub.result("sends")
    assert (result["outcome"], [one["path"] for one in result["files"]]) == ("succeeded", ["out/x"])
    assert agent.exit_code() == 0


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_the_single_file_brings_its_stager_along(
    fake_hub: FilesHub, start_agent: Any, web: Web, tmp_path: Path, version: str
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    single_file = tmp_path / "worker.pyz"
    single_file.write_bytes(pyz.build())
    start_agent(program=[python, "-I", "-S", str(single_file)], env={"PYTHONPATH": ""})
    fake_hub.assign(fake_hub.with_files("a", "mkdir out; cp one out/", web.put("/one", BIG), outputs=True))
    assert fake_hub.result("a")["outcome"] == "succeeded"
    assert web.files["/kept/out/one"] == BIG


# ---------------------------------------------------------------- an end in each phase


def test_a_cancel_while_it_is_staged_ends_it_at_once(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = start_agent()
    web.gate("/slow")
    fake_hub.assign(fake_hub.with_files("a", "true", web.put("/slow", BIG)))
    web.until_waiting("/slow")
    fake_hub.tell(cancel=[{"job": "a", "epoch": 1, "reason": "cancelled"}])
    result = fake_hub.result("a")
    assert (result["outcome"], result["run_ms"], fake_hub.started) == ("cancelled", 0, [])
    nothing_is_left(agent, eventually)


def test_a_recall_gives_back_what_is_being_staged(fake_hub: FilesHub, start_agent: Any, web: Web) -> None:
    start_agent()
    web.gate("/slow")
    fake_hub.assign(fake_hub.with_files("a", "true", web.put("/slow", BIG)))
    web.until_waiting("/slow")
    fake_hub.tell(recall=[{"job": "a", "epoch": 1}])
    result = fake_hub.result("a")
    assert (result["outcome"], result["reason"]) == ("returned", "recalled")


def test_a_cancel_while_it_is_collected_ends_it_at_once(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = start_agent()
    web.gate("/kept/out/x")
    fake_hub.assign(fake_hub.with_files("a", "mkdir out; echo x > out/x", outputs=True))
    web.until_waiting("/kept/out/x")
    assert fake_hub.started == [("a", 1)] and not fake_hub.results
    fake_hub.tell(cancel=[{"job": "a", "epoch": 1, "reason": "cancelled"}])
    result = fake_hub.result("a")
    assert (result["outcome"], result["exit_code"]) == ("cancelled", 0)
    nothing_is_left(agent, eventually)


def test_a_drain_gives_back_what_is_staged_and_waits_for_what_is_collected(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = start_agent()
    web.gate("/slow")
    gate = web.gate("/kept/out/x")
    waits = fake_hub.with_files("waits", "true", web.put("/slow", BIG))
    fake_hub.assign(fake_hub.with_files("sends", "mkdir out; echo x > out/x", outputs=True), waits)
    web.until_waiting("/slow")
    web.until_waiting("/kept/out/x")
    agent.process.send_signal(signal.SIGTERM)
    assert fake_hub.result("waits")["outcome"] == "returned"
    assert agent.process.poll() is None and not fake_hub.results["sends", 1]
    gate.set()
    assert [one["path"] for one in fake_hub.result("sends")["files"]] == ["out/x"]
    assert agent.exit_code() == 0
    assert not (agent.work_dir / "staged").exists()


def test_a_stop_gives_what_is_sent_the_grace_and_a_second_one_none(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    """And then nothing and nobody is left."""
    agent = start_agent("--pass-down-termination")
    web.gate("/slow")
    web.gate("/kept/out/x")
    waits = fake_hub.with_files("waits", "true", web.put("/slow", BIG))
    fake_hub.assign(fake_hub.with_files("sends", "mkdir out; echo x > out/x", outputs=True), waits)
    web.until_waiting("/slow")
    web.until_waiting("/kept/out/x")
    pids = children(agent.pid)
    assert len(pids) == 2
    agent.process.send_signal(signal.SIGTERM)
    assert fake_hub.result("waits")["outcome"] == "returned"
    assert not fake_hub.results["sends", 1]
    agent.signal_again(signal.SIGTERM)
    assert fake_hub.result("sends", seconds=5)["outcome"] == "returned"
    assert agent.exit_code() == 0
    eventually(lambda: not any(map(is_there, pids)), "the end of keeper and stager")


# ---------------------------------------------------------------- deaths


def test_a_killed_stager_gives_back_what_it_fetched(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = start_agent()
    gate = web.gate("/slow")
    slow = web.put("/slow", BIG)
    fake_hub.assign(fake_hub.with_files("a", "true", slow))
    web.until_waiting("/slow")
    (stager,) = stagers(agent)
    os.kill(stager, signal.SIGKILL)
    result = fake_hub.result("a")
    assert (result["outcome"], result["reason"]) == ("returned", "stager-died")
    assert "by signal 9" in agent.said("stager-died")[0]["text"]
    gate.set()
    fake_hub.assign(fake_hub.with_files("b", "cmp slow slow", slow))
    assert fake_hub.result("b")["outcome"] == "succeeded"
    nothing_is_left(agent, eventually)


def test_a_killed_stager_takes_no_input_from_a_job_that_runs(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any, tmp_path: Path
) -> None:
    """The next one holds what is in use, though the cache is too small and others want its room."""
    agent = start_agent("--cache-size", "1500000")
    go_on = tmp_path / "go-on"
    script = f"echo up; until [ -e {go_on} ]; do sleep 0.05; done; wc -c < one"
    fake_hub.assign(fake_hub.with_files("a", script, web.put("/one", BIG)))
    eventually(lambda: fake_hub.logs["a", 1] == b"up\n", "the job to run")
    (stager,) = stagers(agent)
    os.kill(stager, signal.SIGKILL)
    eventually(lambda: [pid for pid in stagers(agent) if pid != stager], "another stager")
    for name in ("b", "c"):
        fake_hub.assign(fake_hub.with_files(name, "true", web.put(f"/{name}", BIG + name.encode())))
        assert fake_hub.result(name)["outcome"] == "succeeded"
    go_on.touch()
    assert fake_hub.result("a")["outcome"] == "succeeded"
    assert fake_hub.logs["a", 1] == b"up\n1048576\n"


def test_what_a_killed_stager_was_sending_is_sent_again(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = start_agent()
    gate = web.gate("/kept/out/x")
    fake_hub.assign(fake_hub.with_files("a", "mkdir out; echo x > out/x", outputs=True))
    web.until_waiting("/kept/out/x")
    (stager,) = stagers(agent)
    os.kill(stager, signal.SIGKILL)
    web.until_waiting("/kept/out/x", times=2)
    gate.set()
    result = fake_hub.result("a")
    assert (result["outcome"], [one["at"] for one in result["files"]]) == ("succeeded", ["s3://b/out/x"])
    nothing_is_left(agent, eventually)


def test_a_stager_that_hangs_holds_up_nobody(fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any) -> None:
    """Reports go, other jobs run, a cancel counts at once, and the worker leaves."""
    agent = start_agent()
    web.gate("/slow")
    fake_hub.assign(fake_hub.with_files("a", "true", web.put("/slow", BIG)))
    web.until_waiting("/slow")
    (stager,) = stagers(agent)
    os.kill(stager, signal.SIGSTOP)
    many = [fake_hub.with_files(f"b{number}", "true", web.url("/slow?" + "x" * 4000)) for number in range(200)]
    fake_hub.assign(*many)
    fake_hub.assign(fake_hub.job("plain", "true"))
    assert fake_hub.result("plain")["outcome"] == "succeeded"
    reports = len(fake_hub.reports)
    eventually(lambda: len(fake_hub.reports) > reports + 2, "heartbeats")
    fake_hub.tell(cancel=[{"job": "a", "epoch": 1}, {"job": "b7", "epoch": 1}])
    assert {fake_hub.result(name)["outcome"] for name in ("a", "b7")} == {"cancelled"}
    agent.process.terminate()
    assert fake_hub.result("b199")["outcome"] == "returned"
    assert agent.exit_code() == 0
    assert not is_there(stager)


def test_a_stager_that_is_killed_again_and_again_is_given_up(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = start_agent()
    web.gate("/kept/out/x")
    fake_hub.assign(fake_hub.with_files("a", "mkdir out; echo x > out/x", outputs=True))
    for times in (1, 2, 3):
        web.until_waiting("/kept/out/x", times)
        (stager,) = stagers(agent)
        os.kill(stager, signal.SIGKILL)
    result = fake_hub.result("a")
    assert (result["outcome"], result["reason"]) == ("returned", "stager-died")
    shape = eventually(lambda: [r["shape"] for r in fake_hub.reports if "shape" in r], "what it can no more")[-1]
    assert not {"inputs", "outputs"} & set(shape["can"])
    fake_hub.assign(fake_hub.with_files("b", "true", outputs=True), fake_hub.job("plain", "true"))
    assert fake_hub.result("b")["reason"] == "stager-died"
    assert fake_hub.result("plain")["outcome"] == "succeeded"
    nothing_is_left(agent, eventually)


def one_in_each_phase(fake_hub: FilesHub, start_agent: Any, web: Web) -> Any:
    """The agent of a job that waits for its input, and of one whose output is being sent."""
    agent = start_agent()
    web.gate("/slow")
    web.gate("/kept/out/x")
    waits = fake_hub.with_files("waits", "true", web.put("/slow", BIG))
    fake_hub.assign(fake_hub.with_files("sends", "mkdir out; echo x > out/x", outputs=True), waits)
    web.until_waiting("/slow")
    web.until_waiting("/kept/out/x")
    return agent


def test_a_killed_agent_leaves_neither_process_nor_folder(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = one_in_each_phase(fake_hub, start_agent, web)
    pids = children(agent.pid)
    assert len(pids) == 2
    agent.process.kill()
    agent.process.wait()
    eventually(lambda: not any(map(is_there, pids)), "the end of keeper and stager")
    fake_hub.tokens["join-2"] = None
    fake_hub.messages.clear()
    start_agent(token="join-2")
    eventually(lambda: len(fake_hub.registrations) == 2, "the next one")
    nothing_is_left(agent, eventually)


def test_a_killed_keeper_gives_back_what_is_in_any_phase(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any
) -> None:
    agent = one_in_each_phase(fake_hub, start_agent, web)
    (stager,) = stagers(agent)
    (keeper,) = [pid for pid in children(agent.pid) if pid != stager]
    os.kill(keeper, signal.SIGKILL)
    assert {fake_hub.result(name)["reason"] for name in ("waits", "sends")} == {"keeper-died"}
    assert agent.exit_code() == 1
    eventually(lambda: not is_there(stager), "the end of the stager")


# ---------------------------------------------------------------- two workers, one cache


def test_two_workers_that_share_a_cache_download_once(
    fake_hub: FilesHub, start_agent: Any, web: Web, eventually: Any, tmp_path: Path
) -> None:
    gate = web.gate("/one")
    one = web.put("/one", BIG)
    shared = ("--cache-dir", str(tmp_path / "shared"))
    start_agent(*shared)
    fake_hub.assign(fake_hub.with_files("a", "wc -c < one", one))
    web.until_waiting("/one")
    other = FilesHub(web)
    other.up()
    try:
        second = start_agent(*shared, "--server", other.url, worker="w-2")
        other.assign(other.with_files("b", "wc -c < one", one))
        eventually(lambda: stagers(second), "the other one's stager")
        eventually(lambda: len(list((tmp_path / "shared" / "alive").iterdir())) == 2, "it to come to the cache")
        gate.set()
        assert fake_hub.result("a")["outcome"] == "succeeded"
        assert other.result("b")["outcome"] == "succeeded"
    finally:
        other.down()
    assert web.asked["GET", "/one"] == 1
    assert fake_hub.logs["a", 1] == other.logs["b", 1] == b"1048576\n"
