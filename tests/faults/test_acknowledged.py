"""kill -9 of the hub, again and again, under a stream of submissions and reports: what was acknowledged is there, and
nothing was taken twice.

Clients do what ours do: a request that was not answered is sent again as it was, until it is."""

import hashlib
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import needs
from tests.faults.hubs import MortalHub
from tests.place import DEADLINE_S, until

SUBMITTERS, REQUESTS = 3, 30
WORKERS, CPUS = 2, 8


class Insistent:
    """One client with a connection of its own."""

    def __init__(self, hub: MortalHub, token: str) -> None:
        self._hub = hub
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """The answer of the hub that answers at last."""
        deadline = time.monotonic() + DEADLINE_S
        why: object = None
        while True:
            try:
                reply = self._session.post(self._hub.url + path, json=body, headers=headers, timeout=20)
                if reply.status_code < 300:
                    return reply.json()
                assert reply.status_code in (429, 503), reply.text
                why = reply.text
            except requests.RequestException as error:
                why = error
            assert time.monotonic() < deadline, f"no answer to {path}: {why}; {self._hub.described()}"
            time.sleep(0.02)


@dataclass
class Record:
    """What the hub acknowledged to anybody."""

    jobs: dict[str, str] = field(default_factory=dict)  # id → the command's last word
    results: dict[str, str] = field(default_factory=dict)  # job → outcome
    runs: Counter[str] = field(default_factory=Counter)  # how often it was given to a worker
    count: int = 0  # of acknowledgements
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, **news: dict[str, str]) -> None:
        with self.lock:
            for name, found in news.items():
                mine = getattr(self, name)
                assert not mine.keys() & found.keys(), f"twice in {name}: {mine.keys() & found.keys()}"
                mine.update(found)
            self.count += 1


def submit(client: Insistent, record: Record, name: int, seed: int) -> None:
    chance = random.Random(f"{seed} submitter {name}")  # noqa: S311  # makes a test repeatable, guards nothing
    for number in range(REQUESTS):
        words = [f"{name}-{number}-{place}" for place in range(chance.randint(1, 5))]
        body = {"jobs": [{"command": ["true", word], "resources": {"cpus": 1000}} for word in words]}
        made = client.post("/v1/jobs", body, **{"Idempotency-Key": f"{seed}-{name}-{number}"})["jobs"]
        record.note(jobs={job["id"]: word for job, word in zip(made, words, strict=True)})


def work(client: Insistent, record: Record, name: str, session: int, over: threading.Event) -> None:
    """Each assignment once: started, its output and its result."""
    ack, seq = 0, 0
    while not over.is_set():
        polled = client.post(f"/v1/workers/{name}/poll", {"session": session, "ack": ack})
        ack = polled["seq"]
        for taken in polled["assign"]:
            job, epoch = taken["job"], taken["epoch"]
            record.runs[job] += 1
            seq += 1
            started = {"session": session, "seq": seq, "started": [[job, epoch, 1]], "running": 1}
            assert client.post(f"/v1/workers/{name}/report", started)["stale"] == []
            outcome = "failed" if int(job[1:]) % 7 == 0 else "succeeded"
            result = {"job": job, "epoch": epoch, "outcome": outcome, "exit_code": 0, "run_ms": 5, "output": 20}
            output = {"job": job, "epoch": epoch, "offset": 0, "text": f"{job:>20}"}
            seq += 1
            ended = {"session": session, "seq": seq, "results": [result], "logs": [output], "running": 0}
            assert client.post(f"/v1/workers/{name}/report", ended)["ack"] == seq
            record.note(results={job: outcome})


def register(hub: MortalHub, name: str) -> tuple[Insistent, int]:
    message = {
        "protocol": 1,
        "worker": name,
        "nonce": name,
        "credential_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "pool": "p",
        "shape": {"cpus": CPUS * 1000, "memory": 2**33},
        "host": {},
    }
    session = Insistent(hub, hub.token("worker")).post("/v1/workers", message)["session"]
    return Insistent(hub, name), session


def storm(hub: MortalHub, seed: int, kill: Callable[[Record, threading.Event], None]) -> Record:
    """Clients at work, and `kill` beside them until everything is done."""
    record, over = Record(), threading.Event()
    workers = {name: register(hub, name) for name in (f"w-{number}" for number in range(WORKERS))}
    operator = hub.operator
    with ThreadPoolExecutor(SUBMITTERS + WORKERS + 1) as pool:
        submitting = [pool.submit(submit, Insistent(hub, operator), record, n, seed) for n in range(SUBMITTERS)]
        working = [pool.submit(work, client, record, name, at, over) for name, (client, at) in workers.items()]
        killing = pool.submit(kill, record, over)
        try:
            until(
                lambda: (
                    any(each.done() and each.exception() for each in [*submitting, *working, killing])
                    or (all(each.done() for each in submitting) and len(record.results) == len(record.jobs))
                ),
                lambda: f"all to be done: {len(record.results)} results of {len(record.jobs)} jobs",
                seconds=10 * DEADLINE_S,
            )
        finally:
            over.set()
        for each in [*submitting, killing, *working]:
            each.result()
    return record


def check(hub: MortalHub, record: Record) -> None:
    jobs = {job["id"]: job for job in hub.jobs()}
    assert jobs.keys() == record.jobs.keys() == record.results.keys()
    assert {id: job["command"][-1] for id, job in jobs.items()} == record.jobs
    assert {id: job["state"] for id, job in jobs.items()} == record.results
    assert set(record.runs.values()) == {1} == {job["attempt"] for job in jobs.values()}
    ended = Counter(event["subject"] for event in events(hub, "job.ended"))
    assert ended.keys() == jobs.keys() and set(ended.values()) == {1}
    for id in random.Random(len(jobs)).sample(sorted(jobs), 20):  # noqa: S311
        assert hub.call("GET", f"/v1/jobs/{id}/logs").content == f"{id:>20}".encode()
    hub.process.terminate()
    hub.ended()
    with closing(sqlite3.connect(hub.state_dir / "hub.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def events(hub: MortalHub, kind: str) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        page = hub.get("/v1/events", params={"kind": kind, "limit": 1000, "after": after})
        yield from page["events"]
        if len(page["events"]) < 1000:
            return
        after = page["next"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[MortalHub]:
    made = MortalHub(tmp_path / "hub", poll_ms=500)
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 22))])
def test_killed_at_any_moment_it_keeps_what_it_acknowledged(hub: MortalHub, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    deaths = 0

    def kill(record: Record, over: threading.Event) -> None:
        """After some more acknowledgements, in the midst of whatever goes on then."""
        nonlocal deaths
        while not over.is_set():
            target = record.count + chance.randint(5, 80)
            while record.count < target and not over.is_set():
                over.wait(0.001)
            if not over.is_set():
                hub.kill()
                hub.start()
                deaths += 1

    record = storm(hub, seed, kill)
    print(f"{deaths} deaths, {record.count} acknowledgements")
    assert deaths > 3, "so few mean little"
    check(hub, record)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 22))])
def test_killed_at_a_write_of_its_database_it_keeps_what_it_acknowledged(hub: MortalHub, seed: int) -> None:
    """By number: between the frames of a commit, before its sync, and before the sync of output."""
    strace = needs.strace()
    chance = random.Random(seed)  # noqa: S311
    deaths = 0

    def begin() -> None:
        call, number = chance.choice([("pwrite64", chance.randint(50, 2000)), ("fdatasync", chance.randint(5, 120))])
        inject = f"inject={call}:signal=SIGKILL:when={number}"
        hub.begin(strace, "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", inject)

    def kill(record: Record, over: threading.Event) -> None:
        nonlocal deaths
        hub.kill()
        begin()
        while not over.is_set():
            hub.is_ready()
            if hub.process.poll() is not None:
                deaths += 1
                begin()
            over.wait(0.01)

    record = storm(hub, seed, kill)
    print(f"{deaths} deaths, {record.count} acknowledgements")
    assert deaths > 3, "so few mean little"
    hub.kill()
    hub.start()
    check(hub, record)
