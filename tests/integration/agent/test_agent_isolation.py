"""Isolation from a submission to its result: the real hub, the real agent, and what neither will do."""

from pathlib import Path
from typing import Any

import pytest

from tests import needs

ROOT = Path(__file__).resolve().parents[3]


def ended(hub: Any, job: str) -> Any:
    shown = hub.get(f"/v1/jobs/{job}")
    return shown if shown["state"] in ("succeeded", "failed", "cancelled") else None


def test_a_sandboxed_job_goes_to_a_worker_that_has_one(hub: Any, join: Any, eventually: Any) -> None:
    needs.sandbox()
    script = "ls /proc | grep -c '^[0-9]'; grep -c : /proc/net/dev; cat $1; echo end"
    token = hub.token("worker")
    job = hub.submit("sh", "-c", script, "sh", "token-0", isolation="sandbox", network=False)
    join(hub, token, "--worker-id", "plain", "--isolation", "none")
    other = hub.submit("true")
    eventually(lambda: ended(hub, other), "a plain job on the plain worker")
    assert hub.get(f"/v1/jobs/{job}")["state"] == "queued"
    join(hub, hub.token("worker"), "--worker-id", "boxed")
    shown = eventually(lambda: ended(hub, job), "the sandboxed job")
    assert (shown["state"], shown["worker"]) == ("succeeded", "boxed"), shown
    assert (shown["isolation"], shown["network"]) == ("sandbox", False)
    few, one, *rest = hub.call("GET", f"/v1/jobs/{job}/logs").text.splitlines()
    assert (int(few) < 10, one, rest[-1]) == (True, "1", "end")
    assert token not in "".join(rest)
    assert "sandbox" in hub.get("/v1/workers/boxed")["shape"]["can"]
    assert "sandbox" not in hub.get("/v1/workers/plain")["shape"].get("can", [])


def test_the_token_of_the_worker_is_not_in_the_sandbox(hub: Any, join: Any, eventually: Any, tmp_path: Path) -> None:
    """Wherever it lies: here in a folder that the sandbox hides, or masked by itself."""
    needs.sandbox()
    secret = hub.token("worker")
    join(hub, secret)
    script = f"cat {tmp_path}/token-0; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; echo end"
    job = hub.submit("sh", "-c", script, isolation="sandbox")
    assert eventually(lambda: ended(hub, job), "it")["state"] == "succeeded"
    text = hub.call("GET", f"/v1/jobs/{job}/logs").text
    assert "end" in text
    assert secret not in text


def test_a_job_whose_way_a_worker_does_not_have_is_given_back_unrun(
    fake_hub: Any, start_agent: Any, tmp_path: Path
) -> None:
    """A hub that errs: the agent itself refuses."""
    start_agent("--isolation", "none")
    fake_hub.assign(
        fake_hub.job("a", "touch", str(tmp_path / "ran"), work={"isolation": "sandbox"}),
        fake_hub.job("b", "touch", str(tmp_path / "ran"), work={"isolation": "vault"}),
        fake_hub.job("c", "true"),
    )
    assert fake_hub.result("c")["outcome"] == "succeeded"
    assert (fake_hub.result("a")["outcome"], "sandbox" in fake_hub.result("a")["text"]) == ("returned", True)
    assert (fake_hub.result("b")["outcome"], fake_hub.result("b")["reason"]) == ("failed", "bad-assignment")
    assert not (tmp_path / "ran").exists()


def test_what_was_asked_for_and_does_not_work_is_told(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    agent = start_agent("--isolation", "podman", env={"PATH": "/nowhere"})
    eventually(lambda: fake_hub.registrations, "the registration")
    registration = fake_hub.registrations[0]
    assert "podman" not in registration["shape"].get("can", [])
    assert "not on this machine" in registration["host"]["cannot"]["podman"]
    assert agent.said("isolation")[0]["cannot"] == registration["host"]["cannot"]


@pytest.mark.parametrize("who", ["nobody-of-this-name", "auto"])
def test_a_job_user_that_cannot_be_had_ends_the_agent(start_agent: Any, who: str) -> None:
    """pytest's folders are closed to others, so no other user could work there."""
    agent = start_agent("--job-user", who)
    assert agent.exit_code() == 2
    assert "--job-user" in agent.said("error")[0]["text"]
