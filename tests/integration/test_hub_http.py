"""The hub's HTTP service against a real process: open routes, who may, bad input, jobs."""

import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from worker_manager.hub.endpoint import Need
from worker_manager.hub.routes.table import ENDPOINTS

ONE_JOB = {"jobs": [{"command": ["true"]}]}


# ---------------------------------------------------------------- open routes


def test_open_routes_answer_without_a_token(shared_hub: Any) -> None:
    assert shared_hub.get("/healthz", by=None) == {"status": "ok"}
    document = shared_hub.get("/v1/openapi.json", by=None)
    assert document["openapi"] == "3.1.0"
    metrics = shared_hub.call("GET", "/metrics", by=None)
    assert metrics.status_code == 200 and "wm_hub_backlog_jobs " in metrics.text
    assert "wm_hub_commit_batch_count" in metrics.text
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


def test_many_jobs_are_cancelled_in_one_request(hub: Any) -> None:
    names = [hub.submit("true") for _ in range(20)]
    alice = hub.token("submit", owner="alice")
    answer = hub.call("POST", "/v1/jobs/cancel", {"jobs": [*names[:2], "j999999"]}, by=alice).json()["jobs"]
    assert [one.get("code") for one in answer] == ["forbidden", "forbidden", "not-found"]
    assert {hub.get(f"/v1/jobs/{name}")["state"] for name in names} == {"queued"}
    answer = hub.post("/v1/jobs/cancel", {"jobs": [*names, names[0]]})["jobs"]
    assert [one["state"] for one in answer] == ["cancelled"] * 21
    assert hub.get("/v1/backlog")["groups"] == []
    assert hub.call("POST", "/v1/jobs/cancel", {"jobs": ["../workers"]}).status_code == 422
