"""An agent and a hub of which one is a version older or newer than the other: they still speak."""

import hashlib
import secrets
import signal
from typing import Any

import pytest

# What a version to come may say anywhere.
NEW: dict[str, Any] = {"flavour": "new", "more": {"of": ["it", 1, None]}, "x": True}
OF_TODAY = {
    "workers": {"session", "lease_ms", "poll_ms", "heartbeat_ms"},
    "poll": {"seq", "assign"},
    "report": {"ack"},
}


def newer(answer: dict[str, Any]) -> dict[str, Any]:
    """With more in it on every level."""
    grown = {**answer, **NEW}
    for name in ("assign", "cancel", "recall"):
        if name in grown:
            grown[name] = [{**each, **NEW} for each in grown[name]]
    for each in grown.get("assign", ()):
        each["shape"] = {**each["shape"], **NEW}
    if "ack" in grown:
        grown["tell"] = ["what-nobody-knows-yet"]
    return grown


def speaks(hub: Any, change: Any) -> None:
    """Every answer of the hub goes through `change(call, answer)`."""
    for call in OF_TODAY:
        setattr(hub, "_" + call, changed(getattr(hub, "_" + call), call, change))


def changed(right: Any, call: str, change: Any) -> Any:
    def answer(body: Any, token: str) -> Any:
        status, said = right(body, token)
        return status, change(call, said)

    return answer


def works(hub: Any, agent: Any, eventually: Any) -> None:
    hub.assign(hub.job("j1", "sh", "-c", "echo out"), hub.job("j2", "sleep", "1000"))
    assert hub.result("j1")["outcome"] == "succeeded"
    assert hub.logs["j1", 1] == b"out\n"
    eventually(lambda: ("j2", 1) in hub.started, "the other to run")
    agent.process.send_signal(signal.SIGTERM)
    agent.signal_again(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert hub.result("j2")["outcome"] == "returned"
    assert not agent.said("error")
    assert not agent.said("hub-unreachable")


def test_an_agent_takes_the_answers_of_a_newer_hub(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    speaks(fake_hub, lambda call, answer: newer(answer))
    works(fake_hub, start_agent(), eventually)


def test_an_agent_takes_the_answers_of_an_older_hub(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    """Which says no more than it must."""
    speaks(
        fake_hub,
        lambda call, answer: {name: each for name, each in answer.items() if name in OF_TODAY[call]},
    )
    works(fake_hub, start_agent(), eventually)


def test_what_an_older_agent_does_not_know_of_a_job_it_does_not_run(fake_hub: Any, start_agent: Any) -> None:
    """A hub that errs: a job that asks for more goes only to workers that say they can."""
    start_agent()
    fake_hub.assign(fake_hub.job("j1", "true", work={"teleport": True}), fake_hub.job("j2", "true"))
    assert fake_hub.result("j2")["outcome"] == "succeeded"
    refused = fake_hub.result("j1")
    assert (refused["outcome"], refused["reason"]) == ("failed", "bad-assignment")
    assert "does not know teleport" in refused["text"]


@pytest.mark.parametrize(("version", "more"), [(0, {}), (2, NEW)], ids=["older", "newer"])
def test_a_hub_takes_what_agents_of_other_versions_say(hub: Any, version: int, more: dict[str, Any]) -> None:
    credential = secrets.token_hex(16)
    message = {
        "protocol": version,
        "worker": "other",
        "nonce": secrets.token_hex(8),
        "credential_sha256": hashlib.sha256(credential.encode()).hexdigest(),
        "shape": {"cpus": 1000, **more},
        **more,
    }
    session = hub.post("/v1/workers", message, by=hub.token("worker"))["session"]
    job = hub.submit("true")

    def say(what: str, **body: Any) -> Any:
        return hub.post(f"/v1/workers/other/{what}", {"session": session, **body, **more}, by=credential)

    (assignment,) = say("poll", ack=0)["assign"]
    key = {"job": assignment["job"], "epoch": assignment["epoch"]}
    chunk = {**key, "offset": 0, "text": "out", **more}
    assert say("report", seq=1, started=[[*key.values(), 1]], logs=[chunk])["ack"] == 1
    result = {**key, "outcome": "succeeded", "exit_code": 0, **more}
    assert say("report", seq=2, results=[result])["stale"] == []
    assert hub.get(f"/v1/jobs/{job}")["state"] == "succeeded"
    assert hub.call("GET", f"/v1/jobs/{job}/logs").content == b"out"


def test_two_versions_apart_is_too_far_and_said(hub: Any) -> None:
    message = {"protocol": 3, "worker": "w", "nonce": "n", "credential_sha256": "0" * 64, "shape": {"cpus": 1}}
    reply = hub.call("POST", "/v1/workers", message, by=hub.token("worker"))
    assert (reply.status_code, reply.json()["code"]) == (400, "protocol-unknown")
    assert "speaks protocol 1 and one version around it, not 3" in reply.json()["detail"]
