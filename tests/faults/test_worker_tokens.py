"""Tokens where they do not belong: replayed, another's, expired, revoked. Refused with 401 or 403, and nothing done."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.witness import pools
from tests.place import ROOT, Place, until

FAR = 2**50
SHAPE = {"cpus": 1000}


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def launch(hub: Any, submission: str, *secrets: str) -> list[str]:
    """Announces workers with these join tokens; their names."""
    workers = [f"{submission}-{index}" for index in range(len(secrets))]
    claim = {"submission": submission, "pool": "p", "workers": workers, "call_deadline": FAR}
    hub.post("/v1/managers/m/launches", {**claim, "token_hashes": [sha256(one) for one in secrets]}, by="manager")
    return workers


def registration(worker: str, nonce: str = "n", credential: str = "c") -> dict[str, Any]:
    told = {"protocol": 1, "worker": worker, "nonce": nonce, "credential_sha256": sha256(credential), "pool": "p"}
    return {**told, "shape": SHAPE}


def refused(reply: Any, status: int, code: str) -> None:
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    if status == 401:
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")


# ---------------------------------------------------------------- join tokens


def test_a_join_token_admits_one_worker_and_then_nobody(hub: Any) -> None:
    (name,) = launch(hub, "m-a", "join-a")
    first = hub.post("/v1/workers", registration(name), by="join-a")
    assert hub.post("/v1/workers", registration(name), by="join-a") == {**first, "now_ms": hub_now(hub, first)}
    for other in (registration(name, nonce="other"), registration(name, credential="other")):
        refused(hub.call("POST", "/v1/workers", other, by="join-a"), 409, "second-registrant")
    assert [one["id"] for one in hub.get("/v1/workers")["workers"]] == [name]
    assert hub.post(f"/v1/workers/{name}/report", {"session": first["session"], "seq": 1, "leaving": "x"}, by="c")
    late = hub.call("POST", "/v1/workers", registration(name), by="join-a")
    assert late.status_code == 410, "its worker has left: the same process may not come back either"


def hub_now(hub: Any, first: dict[str, Any]) -> Any:
    """The one field of an identical answer that differs."""
    return pytest.approx(first["now_ms"], abs=60_000)


def test_a_join_token_is_good_for_its_own_worker_and_for_nothing_else(hub: Any) -> None:
    mine, other = launch(hub, "m-b", "join-b0", "join-b1")
    refused(hub.call("POST", "/v1/workers", registration(other), by="join-b0"), 409, "second-registrant")
    refused(hub.call("POST", "/v1/workers", registration("by-hand"), by="join-b0"), 409, "second-registrant")
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/tokens"), ("GET", "/v1/info")):
        refused(hub.call(method, path, {"jobs": [{"command": ["true"]}]}, by="join-b0"), 401, "token-unknown")
    unregistered = hub.call("POST", f"/v1/workers/{mine}/poll", {"session": 1, "ack": 0}, by="join-b0")
    assert unregistered.status_code in (401, 410)
    hub.post("/v1/workers", registration(mine), by="join-b0")
    refused(hub.call("POST", f"/v1/workers/{mine}/poll", {"session": 1}, by="join-b0"), 401, "token-unknown")
    assert hub.post("/v1/workers", registration(other, credential="d"), by="join-b1")


def test_the_token_of_a_launch_that_was_given_up_is_revoked(hub: Any) -> None:
    (name,) = launch(hub, "m-c", "join-c")
    assert hub.post("/v1/managers/m/bury", {"workers": [name], "reason": "too late"}, by="manager")["buried"] == [name]
    refused(hub.call("POST", "/v1/workers", registration(name), by="join-c"), 401, "token-revoked")
    hub.restart()
    refused(hub.call("POST", "/v1/workers", registration(name), by="join-c"), 401, "token-revoked")
    refused(hub.call("POST", "/v1/workers", registration(name), by="never-issued"), 401, "token-unknown")
    assert hub.get("/v1/workers")["workers"] == []


def test_no_manager_takes_another_s_worker_or_name(hub: Any) -> None:
    (name,) = launch(hub, "m-d", "join-d")
    stolen = {"submission": "x-d", "pool": "p", "workers": [name], "token_hashes": [sha256("mine")]}
    reply = hub.call("POST", "/v1/managers/x/launches", {**stolen, "call_deadline": FAR}, by="manager")
    assert reply.status_code == 409
    assert hub.post("/v1/managers/x/bury", {"workers": [name], "reason": "mine"}, by="manager")["buried"] == []
    by_hand = hub.call("POST", "/v1/workers", registration(name), by=hub.token("worker"))
    refused(by_hand, 409, "second-registrant")
    assert hub.post("/v1/workers", registration(name), by="join-d")


# ---------------------------------------------------------------- workers' credentials


def test_a_credential_speaks_for_its_own_worker_alone(hub: Any, wire_worker: Any) -> None:
    token = hub.token("worker")
    one, two = wire_worker(hub, token, "one"), wire_worker(hub, token, "two")
    job = hub.submit("true")
    taken, other = (one, two) if one.poll()["assign"] else (two, one)
    result = {"job": job, "epoch": 1, "outcome": "failed"}
    forged = {"session": taken.session, "seq": 1, "results": [result]}
    for secret in (other.credential, token, hub.operator, hub.manager, "made-up"):
        refused(hub.call("POST", f"/v1/workers/{taken.name}/report", forged, by=secret), 401, "token-unknown")
        poll = hub.call("POST", f"/v1/workers/{taken.name}/poll", {"session": taken.session, "ack": 0}, by=secret)
        refused(poll, 401, "token-unknown")
    assert hub.get(f"/v1/jobs/{job}")["state"] == "assigned"
    stale = other.report(results=[result])["stale"]
    assert stale == [[job, 1]], "its own credential does not reach another's job"
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("DELETE", f"/v1/workers/{other.name}")):
        refused(hub.call(method, path, {"jobs": []}, by=taken.credential), 401, "token-unknown")
    assert taken.call("report", {"session": taken.session + 1, "seq": 1}).status_code == 409


def test_output_of_who_is_not_known_never_reaches_the_disk(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"), "w")
    job = hub.submit("true")
    assignment = worker.take()
    chunk = {"job": job, "epoch": assignment["epoch"], "offset": 0, "text": "x" * 1_000_000}
    body = {"session": worker.session, "seq": 99, "logs": [chunk]}

    def kept() -> int:
        return sum(file.stat().st_size for file in (hub.state_dir / "logs").glob("*.log"))

    for secret, name in (("made-up", "w"), (worker.credential, "nobody"), (hub.operator, "w")):
        reply = hub.call("POST", f"/v1/workers/{name}/report", body, by=secret)
        assert reply.status_code in (401, 410), reply.text
    assert kept() == 0
    worker.report(logs=[chunk])
    assert kept() == 1_000_000
    worker.report(leaving="done")
    assert worker.call("report", {**body, "seq": 100}).status_code == 410
    assert hub.call("GET", f"/v1/jobs/{job}/logs").content == b"x" * 1_000_000


# ---------------------------------------------------------------- tokens of people and programs


def test_an_expired_token_is_refused_and_so_is_a_worker_that_comes_with_it(hub: Any) -> None:
    soon = int(time.time() * 1000) + 1500
    made = {
        scope: hub.post("/v1/tokens", {"owner": "ann", "scopes": [scope], "expires_ms": soon})["token"]
        for scope in ("submit", "worker")
    }
    job = hub.submit("true", by=made["submit"])
    until(lambda: hub.call("GET", "/v1/jobs", by=made["submit"]).status_code == 401, "it to expire")
    assert int(time.time() * 1000) >= soon
    refused(hub.call("POST", f"/v1/jobs/{job}/cancel", by=made["submit"]), 401, "token-unknown")
    refused(hub.call("POST", "/v1/workers", registration("w"), by=made["worker"]), 401, "token-expired")
    assert hub.get(f"/v1/jobs/{job}")["state"] == "queued", "what it did before stays"


def test_a_token_revoked_is_refused_on_the_next_request_after_any_use(hub: Any) -> None:
    made = hub.post("/v1/tokens", {"owner": "ann", "scopes": ["submit"]})
    for _ in range(5):
        hub.submit("true", by=made["token"])
    assert hub.call("DELETE", f"/v1/tokens?id={made['id']}").status_code == 200
    refused(hub.call("POST", "/v1/jobs", {"jobs": [{"command": ["true"]}]}, by=made["token"]), 401, "token-unknown")
    assert len(hub.get("/v1/jobs")["jobs"]) == 5


def test_a_token_said_wrongly_is_no_token(hub: Any) -> None:
    for wrong in ("", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {}x", "Bearer x{}", "Bearer {} {}", "Bearer {},"):
        header = wrong.replace("{}", hub.operator)
        reply = hub.call("GET", "/v1/jobs", by=None, headers={"Authorization": header})
        assert reply.status_code == 401, wrong
        assert hub.operator not in reply.text
    assert hub.call("GET", f"/v1/jobs?token={hub.operator}", by=None).status_code == 401


# ---------------------------------------------------------------- the real agent


def test_the_token_of_a_running_worker_is_of_no_use_to_a_second_process(place: Place) -> None:
    """Whoever reads the token file on the node gains nothing: the agent has used it."""
    place.manage("run", "-c", pools(place, most=1))
    job = place.submit("--", "sleep", "600")
    worker = place.reaches(job, "running")["worker"]
    left = [file for file in place.state_dir.glob("managers/**/*") if file.is_file() and "token" in file.name]
    assert all(file.stat().st_mode & 0o077 == 0 for file in left)
    token = place.state_dir.parent / "stolen"
    token.write_text(left[0].read_text() if left else "removed after its use")
    token.chmod(0o600)
    hub = place.hub()
    assert hub is not None
    argv = [sys.executable, "-m", "worker", "--server", hub.url, "--worker-id", worker, "--cpus", "1"]
    argv += ["--join-token-file", str(token), "--work-dir", str(place.state_dir.parent / "elsewhere")]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    second = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert second.returncode == 3, second
    assert "second-registrant" in second.stderr or "token-unknown" in second.stderr
    assert token.read_text() not in second.stderr
    assert place.job(job)["state"] == "running"
    assert not list(Path(place.state_dir.parent / "elsewhere").glob("*/jobs/slots/*"))
