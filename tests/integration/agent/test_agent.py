"""One real agent with its keeper and real jobs, against a hub that behaves."""

from typing import Any


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
