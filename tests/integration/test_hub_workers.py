"""Workers, managers and followers of a real hub: what they send, and how they wait."""

import threading
import time
from typing import Any

import pytest
import requests

from worker_manager.hub import discovery


def deadline(seconds: float = 20) -> float:
    return time.monotonic() + seconds


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
