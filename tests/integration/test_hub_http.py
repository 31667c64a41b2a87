"""The hub's HTTP service, against a real server process."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from worker_manager.hub import discovery
from worker_manager.hub.endpoint import Need
from worker_manager.hub.routes.table import ENDPOINTS
from worker_manager.hub.settings import HubSettings

ONE_JOB = {"jobs": [{"command": ["true"]}]}


def deadline(seconds: float = 20) -> float:
    return time.monotonic() + seconds


# ---------------------------------------------------------------- the process


def test_a_started_hub_is_found_private_and_of_its_own_session(hub: Any) -> None:
    assert discovery.find(hub.state_dir) == hub.found
    assert os.getsid(hub.pid) == hub.pid
    assert stat.S_IMODE(hub.state_dir.stat().st_mode) == 0o700
    for name in ("operator", "manager"):
        path = discovery.token_file(hub.state_dir, name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    everything = "".join(Path(f"/proc/{hub.pid}/{part}").read_text() for part in ("cmdline", "environ"))
    everything += discovery.tail(hub.state_dir)
    assert hub.operator not in everything and hub.manager not in everything


def test_stopping_ends_the_process_and_takes_the_discovery_file_away(hub: Any) -> None:
    assert discovery.stop(hub.state_dir) is True
    assert discovery.start_time(hub.pid) is None
    assert not (hub.state_dir / "hub.json").exists()
    assert discovery.stop(hub.state_dir) is False


def test_two_hubs_never_share_a_state_directory(hub: Any) -> None:
    argv = [sys.executable, "-m", "worker_manager.hub", str(hub.state_dir)]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=discovery._environment())
    assert second.returncode == 75
    assert "another hub" in second.stderr
    assert discovery.find(hub.state_dir) == hub.found
    again, started = discovery.find_or_start(hub.settings)
    assert (again, started) == (hub.found, False)


def test_many_who_start_at_once_get_one_hub(tmp_path: Any) -> None:
    settings = HubSettings(tmp_path / "hub")
    try:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: discovery.find_or_start(settings, 60)[0], range(3)))
        assert len({each.pid for each in found}) == 1
    finally:
        discovery.stop(settings.state_dir)


def test_a_hub_that_cannot_start_shows_the_end_of_its_log(tmp_path: Any) -> None:
    settings = HubSettings(tmp_path / "hub", listen="127.0.0.1:99999")
    with pytest.raises(discovery.HubDidNotStart, match=r"exit code 2.*\n.*listen: 127\.0\.0\.1:99999"):
        discovery.start(settings)


def test_a_restarted_hub_remembers_jobs_and_tokens(hub: Any) -> None:
    job = hub.submit("true", name="kept")
    before = hub.operator
    hub.restart()
    assert hub.operator == before
    assert hub.get(f"/v1/jobs/{job}")["name"] == "kept"


def test_a_killed_hub_is_not_found_and_another_takes_its_place(hub: Any) -> None:
    job = hub.submit("true")
    os.kill(hub.pid, signal.SIGKILL)
    until = deadline()
    while discovery.start_time(hub.pid) is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert discovery.find(hub.state_dir) is None
    hub.found = discovery.start(hub.settings)
    assert hub.get(f"/v1/jobs/{job}")["state"] == "queued"


def test_tls_with_the_own_authority_is_verified_and_pinned(start_hub: Any) -> None:
    live = start_hub(tls="own")
    assert live.url.startswith("https://")
    assert requests.get(live.url + "/healthz", verify=live.found.ca, timeout=10).status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(live.url + "/healthz", timeout=10)
    address = urlsplit(live.url)
    import hashlib

    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((address.hostname, address.port)))
    assert hashlib.sha256(shown).hexdigest() == live.found.fingerprint


def test_plaintext_off_loopback_is_refused(tmp_path: Any) -> None:
    settings = HubSettings(tmp_path / "hub", listen="0.0.0.0:0", tls="off")
    with pytest.raises(discovery.HubDidNotStart, match="not loopback"):
        discovery.start(settings)


# ---------------------------------------------------------------- open routes


def test_open_routes_answer_without_a_token(shared_hub: Any) -> None:
    assert shared_hub.get("/healthz", by=None) == {"status": "ok"}
    document = shared_hub.get("/v1/openapi.json", by=None)
    assert document["openapi"] == "3.1.0"
    metrics = shared_hub.call("GET", "/metrics", by=None)
    assert metrics.status_code == 200 and "wm_hub_backlog_jobs " in metrics.text
    agent = shared_hub.call("GET", "/v1/worker.pyz", by=None)
    digest = agent.headers["X-Digest"]
    again = shared_hub.call("GET", f"/v1/worker/{digest.removeprefix('sha256:')}.pyz", by=None)
    assert agent.content == again.content and agent.content.startswith(b"#!")
    assert shared_hub.call("GET", f"/v1/worker/{'0' * 64}.pyz", by=None).status_code == 404


def test_info_names_version_protocol_and_counts(hub: Any) -> None:
    hub.submit("true")
    info = hub.get("/v1/info")
    assert info["protocol"] == 1 and info["jobs"]["queued"] == 1
    assert abs(info["now_ms"] - time.time() * 1000) < 10_000


# ---------------------------------------------------------------- who may

SCOPES = ("read", "submit", "worker", "manager", "operator")


def filled(path: str) -> str:
    for name in ("job", "worker", "manager", "pool", "command", "digest"):
        path = path.replace(f"{{{name}}}", "j1" if name == "job" else "x")
    return path


def test_every_route_refuses_who_may_not_and_admits_who_may(shared_hub: Any) -> None:
    secrets = {scope: shared_hub.token(scope, owner=f"o-{scope}") for scope in SCOPES}
    wrong = []
    for endpoint in ENDPOINTS:
        path = filled(endpoint.path)
        if isinstance(endpoint.needs, Need):
            if endpoint.needs in (Need.JOIN, Need.CREDENTIAL):
                nobody = shared_hub.call(endpoint.method, path, {}, by=None)
                assert nobody.status_code == 401 and nobody.json()["code"] == "token-missing", endpoint
                assert nobody.headers["WWW-Authenticate"].startswith("Bearer")
            continue
        for token in (None, "wm_made-up"):
            refused = shared_hub.call(endpoint.method, path, {}, by=token)
            assert refused.status_code == 401, (endpoint, token)
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
            assert refused.headers["Content-Type"] == "application/problem+json"
        for scope, secret in secrets.items():
            # A body of the wrong kind: who is admitted gets as far as that, and changes nothing.
            reply = shared_hub.call(endpoint.method, path, ["not", "an", "object"], by=secret, params={"bad": "1"})
            may = scope == "operator" or scope in endpoint.needs
            expected = {400, 422} if may else {403}
            if reply.status_code not in expected:
                wrong.append((endpoint.method, endpoint.path, scope, reply.status_code))
    assert not wrong


def test_join_and_credential_routes_refuse_a_made_up_secret(shared_hub: Any) -> None:
    message = {"worker": "w", "nonce": "n", "credential_sha256": "0" * 64, "shape": {"cpus": 1000}}
    assert shared_hub.call("POST", "/v1/workers", message, by="wm_made-up").status_code == 401
    for what in ("poll", "report"):
        reply = shared_hub.call("POST", f"/v1/workers/w/{what}", {"session": 1, "seq": 1, "ack": 0}, by="wm_made-up")
        assert reply.status_code in (401, 404, 410), reply.text


def test_a_revoked_token_is_refused_at_once(hub: Any) -> None:
    made = hub.post("/v1/tokens", {"owner": "alice", "scopes": ["read"]})
    assert hub.get("/v1/jobs", by=made["token"]) == {"jobs": [], "next": None}
    assert made["token"] not in json.dumps(hub.get("/v1/tokens"))
    assert hub.call("DELETE", "/v1/tokens", params={"id": made["id"]}).status_code == 200
    assert hub.call("GET", "/v1/jobs", by=made["token"]).status_code == 401


def test_an_owner_who_may_only_submit_sees_and_cancels_own_jobs_only(hub: Any) -> None:
    alice, bob = hub.token("submit", owner="alice"), hub.token("submit", owner="bob")
    mine, theirs = hub.submit("true", by=alice), hub.submit("true", by=bob)
    assert [job["id"] for job in hub.get("/v1/jobs", by=alice)["jobs"]] == [mine]
    assert hub.get(f"/v1/jobs/{mine}", by=alice)["owner"] == "alice"
    for path in (f"/v1/jobs/{theirs}", f"/v1/jobs/{theirs}/logs", f"/v1/jobs/{theirs}/explain"):
        assert hub.call("GET", path, by=alice).status_code == 404
    assert hub.call("POST", f"/v1/jobs/{theirs}/cancel", by=alice).status_code in (403, 404)
    assert hub.call("POST", f"/v1/jobs/{mine}/cancel", by=alice).status_code == 202
    assert hub.call("POST", f"/v1/jobs/{mine}/cancel", by=alice).status_code == 200
    assert len(hub.get("/v1/jobs")["jobs"]) == 2


# ---------------------------------------------------------------- bad input


def raw(hub: Any, data: bytes, path: str = "/v1/jobs", **headers: str) -> requests.Response:
    shown = {"Authorization": f"Bearer {hub.operator}", "Content-Type": "application/json", **headers}
    return requests.post(hub.url + path, data=data, headers=shown, timeout=60)


def test_bodies_that_make_no_sense_are_4xx_and_name_the_place(hub: Any) -> None:
    table: list[tuple[bytes, int, str]] = [
        (b"", 400, "not-json"),
        (b"{", 400, "not-json"),
        (b"[]", 400, "not-an-object"),
        (b'{"jobs": NaN}', 400, "not-finite"),
        (b'{"jobs": 1e999}', 400, "not-finite"),
        (b'{"jobs": [], "jobs": []}', 400, "repeated-name"),
        (b"\xff\xfe", 400, "not-utf-8"),
        (b'{"jobs": "\\ud800"}', 400, "not-unicode"),
        (b'{"jobs": "\\u0000"}', 400, "nul-character"),
        (b'{"jobs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, "too-deep"),
        (b'{"jobs": []}', 422, "invalid"),
        (b'{"jobs": [{"command": ["true"], "memory": "1GiB"}]}', 422, "invalid"),
        (b'{"jobs": [{"command": ["true"], "resources": {"memory": "1 XB"}}]}', 422, "invalid"),
        (b'{"jobs": [{"command": ["true"], "depends_on": [{"job": "#0"}]}]}', 422, "invalid"),
    ]
    for data, status, code in table:
        reply = raw(hub, data)
        assert (reply.status_code, reply.json()["code"]) == (status, code), (data[:60], reply.text[:500])
        assert reply.headers["Content-Type"] == "application/problem+json"
    assert raw(hub, b"{}", **{"Content-Encoding": "gzip"}).status_code == 415
    assert raw(hub, b"{}", **{"Content-Type": "text/plain"}).status_code == 415
    assert hub.get("/v1/jobs")["jobs"] == []


def test_a_problem_says_where_and_what(shared_hub: Any) -> None:
    body = {"jobs": [{"command": ["true"]}, {"command": ["true"], "resources": {"memory": "lots"}}]}
    problem = shared_hub.call("POST", "/v1/jobs", body).json()
    assert problem["errors"][0]["where"] == "jobs[1].resources.memory"
    assert "'lots' is not a size" in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/jobs/x", 404),
        ("GET", "/v1/jobs/j999", 404),
        ("GET", "/v1/jobs/..%2f..%2fetc", 404),
        ("GET", "/v1/jobs/j1%00", 404),
        ("GET", "/v1/jobs/%ff%fe", 404),
        ("GET", "/v1/jobs/j99999999999999999999999999", 404),
        ("GET", "/v1/jobs/j999999999999999999", 404),
        ("GET", "/v1/jobs/j999/logs", 404),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", "/v1/jobs?limit=x", 422),
        ("GET", "/v1/jobs?cursor=garbage", 422),
        ("GET", "/v1/jobs?state=odd", 422),
        ("GET", "/v1/jobs?limit=1&limit=2", 400),
        ("GET", "/v1/jobs?lim=1", 422),
        ("GET", "/v1/jobs?array=j5", 404),
        ("GET", "/v1/events?after=garbage", 422),
        ("GET", "/v1/workers/w-1", 404),
        ("POST", "/v1/workers/w-1/drain", 404),
        ("DELETE", "/v1/workers/w-1", 404),
        ("GET", "/v1/pools/p/explain", 404),
        ("GET", "/v1/commands/x", 404),
        ("DELETE", "/v1/tokens?id=x", 404),
        ("PUT", "/v1/jobs", 405),
        ("DELETE", "/healthz", 405),
    ],
)
def test_paths_and_queries_that_make_no_sense(shared_hub: Any, method: str, path: str, status: int) -> None:
    reply = shared_hub.call(method, path)
    if status == 404 and "array=" in path:
        assert reply.status_code in (200, 404)
        return
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json()["detail"]


def connect(hub: Any) -> socket.socket:
    address = urlsplit(hub.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def first_line(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data.split(b"\r\n")[0]


def test_oversize_bodies_are_refused_whether_declared_or_not(start_hub: Any) -> None:
    live = start_hub(max_body=10_000)
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {live.operator}\r\n".encode()
    with connect(live) as connection:
        connection.sendall(head + b"Content-Length: 10001\r\n\r\n")
        assert b" 413 " in first_line(connection)
    with connect(live) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            connection.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        assert b" 413 " in first_line(connection)
    assert live.submit("true")


def test_a_slow_body_is_refused_and_nobody_waits_for_it(start_hub: Any) -> None:
    live = start_hub(body_seconds=0.3)
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {live.operator}\r\nContent-Length: 50\r\n\r\n"
    with connect(live) as connection:
        connection.sendall(head.encode() + b'{"jobs"')
        assert live.submit("true")
        assert b" 408 " in first_line(connection)


def test_a_client_that_leaves_in_the_middle_harms_nobody(shared_hub: Any) -> None:
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shared_hub.operator}\r\n"
    head += "Content-Length: 50\r\n\r\n"
    for _ in range(20):
        with connect(shared_hub) as connection:
            connection.sendall(head.encode() + b"{")
    with connect(shared_hub) as connection:
        connection.sendall(b"\x16\x03\x01 no http at all\r\n\r\n")
        assert b" 400 " in first_line(connection)
    assert shared_hub.submit("true")
    assert "Traceback" not in (shared_hub.state_dir / "hub.log").read_text()


# ---------------------------------------------------------------- jobs


def test_a_submit_with_a_key_is_done_once(hub: Any) -> None:
    def send(body: Any, key: str, by: str = "operator") -> requests.Response:
        reply: requests.Response = hub.call("POST", "/v1/jobs", body, by=by, headers={"Idempotency-Key": key})
        return reply

    first, second = send(ONE_JOB, "k-1"), send(ONE_JOB, "k-1")
    assert first.status_code == 201 and first.json() == second.json()
    other = send({"jobs": [{"command": ["false"]}]}, "k-1")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency-mismatch")
    assert send(ONE_JOB, "k-2").json() != first.json()
    assert send(ONE_JOB, "k-1", hub.token("submit", owner="someone-else")).json() != first.json()
    assert send(ONE_JOB, "a key").status_code == 400
    assert len(hub.get("/v1/jobs")["jobs"]) == 3


def test_jobs_are_listed_newest_first_in_pages(hub: Any) -> None:
    made = hub.post("/v1/jobs", {"jobs": [{"command": ["true"], "name": f"n{n}"} for n in range(5)]})["jobs"]
    seen, cursor = [], None
    while True:
        page = hub.get("/v1/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [job["id"] for job in reversed(made)]


def test_amounts_with_units_reach_the_backlog(hub: Any) -> None:
    hub.submit("true", resources={"cpus": "1.5", "memory": "2GiB"}, time_limit="10m")
    groups = hub.get("/v1/backlog", by="manager")["groups"]
    assert groups[0]["count"] == 1
    assert groups[0]["asks"]["cpus"] == 1500
    assert groups[0]["asks"]["memory"] >= 2 * 2**30


# ---------------------------------------------------------------- workers


def test_a_job_goes_to_a_worker_and_its_result_and_output_come_back(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"))
    job = hub.submit("echo", "hello", env={"A": "b"})
    assignment = worker.take()
    assert (assignment["job"], assignment["command"], assignment["env"]["A"]) == (job, ["echo", "hello"], "b")
    assert hub.get(f"/v1/jobs/{job}")["state"] == "running"
    mine = {"job": job, "epoch": assignment["epoch"]}
    worker.report(logs=[{**mine, "offset": 0, "text": "hel"}, {**mine, "offset": 3, "b64": "bG8K"}])
    worker.finish(assignment, exit_code=0)
    ended = hub.get(f"/v1/jobs/{job}")
    assert (ended["state"], ended["exit_code"]) == ("succeeded", 0)
    output = hub.call("GET", f"/v1/jobs/{job}/logs")
    assert output.content == b"hello\n"
    assert (output.headers["X-Offset"], output.headers["X-Next-Offset"]) == ("0", "6")
    assert output.headers["X-Complete"] == "true"
    assert hub.call("GET", f"/v1/jobs/{job}/logs", params={"tail": 3}).content == b"lo\n"
    assert hub.call("GET", f"/v1/jobs/{job}/logs", params={"offset": 1, "limit": 2}).content == b"el"


def test_a_report_sent_again_is_counted_once(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"))
    job = hub.submit("true")
    assignment = worker.take()
    mine = {"job": job, "epoch": assignment["epoch"]}
    body = {
        "session": worker.session,
        "seq": worker.seq + 1,
        "logs": [{**mine, "offset": 0, "text": "once"}],
        "results": [{**mine, "outcome": "succeeded", "exit_code": 0, "run_ms": 1}],
    }
    replies = [worker.call("report", body) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert len({reply.json()["ack"] for reply in replies}) == 1
    assert hub.call("GET", f"/v1/jobs/{job}/logs").content == b"once"
    assert len(hub.get(f"/v1/jobs/{job}")["attempts"]) == 1


def test_an_identical_registration_gets_the_same_answer_and_another_is_the_second(hub: Any, wire_worker: Any) -> None:
    token = hub.token("worker")
    worker = wire_worker(hub, token)
    again = hub.post("/v1/workers", worker.message, by=token)
    assert again["session"] == worker.session
    other = hub.call("POST", "/v1/workers", {**worker.message, "nonce": "another"}, by=token)
    assert other.status_code in (201, 409)


@pytest.mark.parametrize(
    "change",
    [
        {"worker": "UPPER"},
        {"worker": "../x"},
        {"nonce": ""},
        {"credential_sha256": "short"},
        {"shape": {"cpus": "many"}},
        {"shape": []},
        {"host": {"a": "x" * 30_000}},
        {"idle_exit_ms": -1},
        {"max_runs": 1.5},
    ],
)
def test_a_registration_that_makes_no_sense_is_refused(shared_hub: Any, change: dict[str, Any]) -> None:
    good = {"protocol": 1, "worker": "w", "nonce": "n", "credential_sha256": "0" * 64, "shape": {"cpus": 1}}
    reply = shared_hub.call("POST", "/v1/workers", {**good, **change}, by=shared_hub.token("worker"))
    assert reply.status_code == 422, reply.text


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"seq": 1}, "session"),
        ({"session": "1", "seq": 1}, "session"),
        ({"session": 1, "seq": -1}, "seq"),
        ({"session": 1, "seq": 1, "results": {}}, "results"),
        ({"session": 1, "seq": 1, "results": [1]}, "results[0]"),
        ({"session": 1, "seq": 1, "results": [{"job": "j1", "epoch": 1, "outcome": "odd"}]}, "results[0].outcome"),
        ({"session": 1, "seq": 1, "started": [["j1"]]}, "started[0]"),
        ({"session": 1, "seq": 1, "logs": [{"job": "j1", "epoch": 1, "offset": 0}]}, "logs[0].text"),
        ({"session": 1, "seq": 1, "logs": [{"job": "j1", "epoch": 1, "offset": 0, "b64": "*"}]}, "logs[0].b64"),
        ({"session": 1, "seq": 1, "shape": {"cpus": -1}}, "shape"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(shared_hub: Any, body: dict[str, Any], where: str) -> None:
    reply = shared_hub.call("POST", "/v1/workers/w/report", body, by="a-credential")
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["where"] == where


# ---------------------------------------------------------------- waiting


def in_background(call: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        result = call()
        found.append((time.monotonic(), result))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def waiting(hub: Any, count: int) -> None:
    """Until so many requests wait in the hub."""
    until = deadline()
    while f"wm_hub_long_polls {count}.0" not in hub.call("GET", "/metrics", by=None).text:
        assert time.monotonic() < until, "nobody waits"
        time.sleep(0.01)


def test_a_waiting_worker_is_woken_by_a_job(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"))
    worker.poll() if worker.registered.get("seq") else None
    thread, found = in_background(worker.poll)
    waiting(hub, 1)
    job = hub.submit("true")
    submitted = time.monotonic()
    thread.join(20)
    at, polled = found[0]
    assert [each["job"] for each in polled["assign"]] == [job]
    assert at - submitted < 2, "it was not woken but waited for its time"


def test_only_as_many_workers_are_woken_as_there_are_jobs(hub: Any, wire_worker: Any) -> None:
    token = hub.token("worker")
    workers = [wire_worker(hub, token, f"w-{n}") for n in range(4)]
    polls = [in_background(worker.poll) for worker in workers]
    waiting(hub, 4)
    hub.submit("true", resources={"cpus": 4000})
    waiting(hub, 3)
    until = deadline()
    while not any(found for _, found in polls) and time.monotonic() < until:
        time.sleep(0.01)
    assert sum(bool(found) for _, found in polls) == 1
    waiting(hub, 3)
    discovery.stop(hub.state_dir)
    for thread, _ in polls:
        thread.join(20)
    assert [len(found) for _, found in polls] == [1] * 4


def test_stopping_answers_those_who_wait(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"))
    thread, found = in_background(worker.poll)
    other, events = in_background(lambda: hub.get("/v1/events", params={"after": "now", "wait_ms": 50_000}))
    waiting(hub, 2)
    began = time.monotonic()
    assert discovery.stop(hub.state_dir)
    thread.join(20)
    other.join(20)
    assert time.monotonic() - began < 5
    assert found[0][1]["assign"] == []
    assert events[0][1]["events"] == []


def test_the_backlog_is_waited_for(hub: Any) -> None:
    version = hub.get("/v1/backlog", by="manager")["version"]
    call = {"version": version, "wait_ms": 50_000}
    thread, found = in_background(lambda: hub.get("/v1/backlog", by="manager", params=call))
    waiting(hub, 1)
    hub.submit("true")
    thread.join(20)
    assert found[0][1]["version"] > version
    assert found[0][1]["groups"][0]["count"] == 1


def test_a_manager_s_sync_answers_to_the_backlog_and_to_a_command(hub: Any) -> None:
    hub.post("/v1/managers/m/publish", {"pools": [{"pool": "p", "wanted": 0}]}, by="manager")

    def sync(seen: int | None, wait_ms: int) -> Any:
        body = {"seen_version": seen, "wait_ms": wait_ms, "pools": ["p"]}
        return hub.post("/v1/managers/m/sync", body, by="manager")

    now = sync(None, 0)
    assert (now["groups"], now["commands"]) == ([], [])
    thread, found = in_background(lambda: sync(now["version"], 50_000))
    waiting(hub, 1)
    given = hub.post("/v1/pools/p/freeze", {"for_ms": "10m", "text": "repairs"})
    thread.join(20)
    commands = found[0][1]["commands"]
    assert [(each["id"], each["kind"]) for each in commands] == [(given["command"], "freeze")]
    done = {"results": [{"command": given["command"], "ok": True, "text": "frozen"}]}
    hub.post("/v1/managers/m/publish", done, by="manager")
    assert hub.get(f"/v1/commands/{given['command']}")["state"] == "done"


def test_output_is_followed(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"))
    job = hub.submit("cat")
    assignment = worker.take()
    mine = {"job": job, "epoch": assignment["epoch"]}

    def follow(offset: int) -> requests.Response:
        reply: requests.Response = hub.call("GET", f"/v1/jobs/{job}/logs", params={"offset": offset, "wait_ms": 50_000})
        return reply

    thread, found = in_background(lambda: follow(0))
    waiting(hub, 1)
    worker.report(logs=[{**mine, "offset": 0, "text": "line 1\n"}])
    thread.join(20)
    assert found[0][1].content == b"line 1\n"
    assert found[0][1].headers["X-Complete"] == "false"
    thread, found = in_background(lambda: follow(7))
    waiting(hub, 1)
    worker.finish(assignment, exit_code=0)
    thread.join(20)
    assert (found[0][1].content, found[0][1].headers["X-Complete"]) == (b"", "true")


def test_events_are_one_resumable_sequence(hub: Any) -> None:
    thread, found = in_background(lambda: hub.get("/v1/events", params={"after": "now", "wait_ms": 50_000}))
    waiting(hub, 1)
    hub.submit("true")
    thread.join(20)
    assert found[0][1]["events"]
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = hub.get("/v1/events", params={"limit": 1, **({"after": cursor} if cursor else {})})
        if not page["events"]:
            break
        seen += [each["seq"] for each in page["events"]]
        cursor = page["next"]
    assert seen == sorted(set(seen)) and seen


def test_a_hub_that_is_too_busy_says_when_to_come_back_but_hears_workers(start_hub: Any) -> None:
    live = start_hub(max_requests=0)
    reply = live.call("GET", "/v1/jobs")
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "1")
    assert live.call("POST", "/v1/workers/w/report", {"session": 1, "seq": 1}, by="made-up").status_code in (401, 410)
