"""A real agent and the real hub."""

import signal
from typing import Any

from worker_manager.hub.tls import fingerprint_of


def ended(hub: Any, job: str, **how: Any) -> Any:
    shown = hub.get(f"/v1/jobs/{job}", **how)
    return shown if shown["state"] in ("succeeded", "failed", "cancelled") else None


def test_jobs_run_with_their_output_and_the_worker_drains(hub: Any, join: Any, eventually: Any) -> None:
    agent = join(hub, hub.token("worker"))
    good = hub.submit("sh", "-c", "echo hello; exit 0")
    bad = hub.submit("sh", "-c", "exit 7")
    array = hub.submit("sh", "-c", "echo $WM_ARRAY_INDEX", array={"count": 200})
    assert eventually(lambda: ended(hub, good), "the good one")["state"] == "succeeded"
    assert eventually(lambda: ended(hub, bad), "the bad one")["exit_code"] == 7
    whole = eventually(lambda: ended(hub, array), "the array", 60)
    assert whole["array"]["succeeded"] == 200
    assert hub.call("GET", f"/v1/jobs/{good}/logs").content == b"hello\n"
    assert hub.call("GET", f"/v1/jobs/{array}-137/logs").content == b"137\n"
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0
    assert hub.get("/v1/workers/by-hand")["state"] == "gone"


def test_a_cancel_reaches_the_job(hub: Any, join: Any, eventually: Any) -> None:
    join(hub, hub.token("worker"))
    job = hub.submit("sleep", "1000")
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "running", "it to run")
    hub.post(f"/v1/jobs/{job}/cancel")
    assert eventually(lambda: ended(hub, job), "it to end")["state"] == "cancelled"


def test_a_drain_by_an_operator_and_its_withdrawal(hub: Any, join: Any, eventually: Any) -> None:
    agent = join(hub, hub.token("worker"))
    job = hub.submit("sleep", "1000")
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "running", "it to run")
    hub.post("/v1/workers/by-hand/drain", {})
    eventually(lambda: hub.get("/v1/workers/by-hand")["state"] == "draining", "it to drain")
    hub.post("/v1/workers/by-hand/undrain", {})
    eventually(lambda: hub.get("/v1/workers/by-hand")["state"] == "ready", "it to be back")
    second = hub.submit("true")
    assert eventually(lambda: ended(hub, second), "the second")["state"] == "succeeded"
    hub.post("/v1/workers/by-hand/drain", {})
    hub.post(f"/v1/jobs/{job}/cancel")
    assert agent.wait(20) == 0


def test_a_restart_of_the_hub_costs_nothing(hub: Any, join: Any, eventually: Any) -> None:
    agent = join(hub, hub.token("worker"))
    job = hub.submit("sh", "-c", "echo before; sleep 2; echo after")
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "running", "it to run")
    port = hub.found.url.rsplit(":", 1)[1]
    object.__setattr__(hub.settings, "listen", f"127.0.0.1:{port}")
    hub.restart()
    shown = eventually(lambda: ended(hub, job), "it to end")
    assert (shown["state"], shown["attempt"]) == ("succeeded", 1)
    assert hub.call("GET", f"/v1/jobs/{job}/logs").content == b"before\nafter\n"
    assert agent.poll() is None


def test_a_force_delete_ends_the_worker_and_requeues_its_job(hub: Any, join: Any, eventually: Any) -> None:
    agent = join(hub, hub.token("worker"))
    job = hub.submit("sleep", "1000")
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "running", "it to run")
    hub.call("DELETE", "/v1/workers/by-hand?force=true")
    assert agent.wait(20) in (0, 3)
    assert hub.get(f"/v1/jobs/{job}")["state"] == "queued"


def test_the_hub_is_known_by_its_fingerprint(start_hub: Any, join: Any, eventually: Any) -> None:
    hub = start_hub(tls="own")
    checked = {"verify": str(hub.state_dir / "tls" / "ca.pem")}
    secret = hub._good(hub.call("POST", "/v1/tokens", {"owner": "ann", "scopes": ["worker"]}, **checked))["token"]
    wrong = join(hub, secret, "--ca-fingerprint", "sha256:" + "0" * 64, "--join-seconds", "1s")
    assert wrong.wait(20) == 1
    none = join(hub, secret, "--join-seconds", "1s")
    assert none.wait(20) == 1, "the system's CAs do not vouch for it"
    authority = fingerprint_of(hub.state_dir / "tls" / "ca.pem")
    agent = join(hub, secret, "--ca-fingerprint", f"sha256:{authority}")
    body = {"jobs": [{"command": ["echo", "x" * 100_000]}]}
    job = hub._good(hub.call("POST", "/v1/jobs", body, **checked))["jobs"][0]["id"]
    done = eventually(lambda: ended(hub, job, **checked), "the job")
    assert done["state"] == "succeeded"
    logs = hub.call("GET", f"/v1/jobs/{job}/logs", **checked).content
    assert logs == b"x" * 100_000 + b"\n"
    for name in ("hub.pem", "hub.key"):  # as if it were old: the next start makes another
        (hub.state_dir / "tls" / name).unlink()
    port = hub.found.url.rsplit(":", 1)[1]
    object.__setattr__(hub.settings, "listen", f"127.0.0.1:{port}")
    before = hub.found.fingerprint
    hub.restart()
    assert hub.found.fingerprint != before
    body = {"jobs": [{"command": ["true"]}]}
    job = hub._good(hub.call("POST", "/v1/jobs", body, **checked))["jobs"][0]["id"]
    assert eventually(lambda: ended(hub, job, **checked), "a job after the renewal")["worker"] == "by-hand"
    assert agent.poll() is None
