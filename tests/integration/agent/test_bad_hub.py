"""A hub, or what stands in its place, that answers nonsense, halves of answers, nothing, or errors for long: the job
that runs meanwhile goes on, and everything about it arrives once."""

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker.link.connection import Unreachable, exchange

Answer = bytes | Callable[[bytes], bytes]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


def told(body: bytes, length: int | None = None) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body) if length is None else length, body)


# What comes where an answer should: as it is, or made of the right one, which the hub has counted on by then.
NONSENSE: dict[str, Answer] = {
    "random bytes": random.Random(1).randbytes(3000),  # noqa: S311
    "zeros": b"\0" * 3000,
    "a page with status 200": told(PAGE).replace(b"application/json", b"text/html"),
    "a page with status 404": b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE),
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: https://login.invalid/\r\nContent-Length: 0\r\n\r\n",
    "a request to log in": b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno",
    "nothing": b"",
    "only a status": b"HTTP/1.1 200 OK\r\n",
    "only headers": told(b"", 100),
    "half of the answer": lambda right: told(right[: len(right) // 2], len(right)),
    "half of the answer, said to be all": lambda right: told(right[: len(right) // 2]),
    "more than was announced": lambda right: told(right + b"}", len(right)),
    "less than was announced": lambda right: told(right, len(right) + 7),
    "a length that is none": lambda right: HEAD + b"Content-Length: -5\r\n\r\n" + right,
    "no length": lambda right: HEAD + b"\r\n" + right,
    "a huge length": lambda right: told(right, 2**62),
    "headers without end": HEAD + b"X: " + b"x" * 200_000,
    "headers that are none": HEAD + b"\xff\xfe\r\n: \r\n\r\n",
    "chunks without sizes": lambda right: HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + right,
    "chunks of negative size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-8\r\n12345678\r\n0\r\n\r\n",
    "a chunk that is longer than it says": lambda right: (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n" + right + b"\r\n0\r\n\r\n"
    ),
    "chunks without end": lambda right: HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(right), right),
    "JSON that is no object": told(b"[1, 2, 3]"),
    "JSON a thousand deep": told(b"[" * 100_000),
    "an object without what is needed": told(b'{"lease_ms": 30000}'),
    "amounts that are none": told(json.dumps({"lease_ms": "long", "ack": -1, "seq": None, "assign": {}}).encode()),
    "a problem that is no object": (
        b"HTTP/1.1 410 Gone\r\nContent-Type: application/problem+json\r\nContent-Length: 4\r\n\r\nnull"
    ),
}


def gated(hub: Any, name: str, go: Path, script: str = "true") -> dict[str, Any]:
    """A job that ends when the file is there, and then runs the script."""
    line = f"echo begins; while ! test -e {go}; do sleep 0.02; done; {script}"
    made: dict[str, Any] = hub.job(name, "sh", "-c", line, shape={"cpus": 100})
    return made


def speaks_nonsense(hub: Any, answers: list[Answer], eventually: Any, go: Path) -> list[str]:
    """Each of them in the place of an answer to a poll and to a report; in between the right ones. While that goes on
    jobs are given, and end."""
    names = [f"n{number}" for number in range(len(answers))]
    hub.faults["poll"] = [each for answer in answers for each in (answer, None)]
    hub.faults["report"] = [each for answer in answers for each in (answer, None)]
    for name in names:
        hub.assign(hub.job(name, "echo", name, shape={"cpus": 100}))
    eventually(lambda: not hub.faults["poll"] and not hub.faults["report"], "all of it to be said", 60)
    go.touch()
    return names


def all_arrived_once(hub: Any, agent: Any, names: list[str]) -> None:
    assert hub.result("long")["outcome"] == "succeeded"
    assert hub.logs["long", 1] == b"begins\nends\n"
    for name in names:
        assert hub.result(name)["outcome"] == "succeeded"
        assert hub.logs[name, 1] == f"{name}\n".encode()
    assert sorted(hub.started) == sorted((name, 1) for name in [*names, "long"])
    assert not agent.said("fenced")
    assert not agent.said("error")
    assert agent.process.poll() is None


@pytest.fixture
def busy(fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path) -> tuple[Any, Path]:
    """An agent that runs a long job, which ends once the file is there. The hub hears from it often."""
    fake_hub.heartbeat_ms, fake_hub.poll_ms = 50, 50
    agent, go = start_agent(), tmp_path / "go"
    fake_hub.assign(gated(fake_hub, "long", go, "echo ends"))
    eventually(lambda: ("long", 1) in fake_hub.started, "it to run")
    return agent, go


def test_nonsense_of_every_kind_is_no_answer(fake_hub: Any, busy: Any, eventually: Any) -> None:
    agent, go = busy
    names = speaks_nonsense(fake_hub, list(NONSENSE.values()), eventually, go)
    all_arrived_once(fake_hub, agent, names)
    assert agent.said("hub-unreachable")


def broken(right: bytes, chance: random.Random) -> bytes:
    """The right answer, cut, or framed wrongly, or with something else in it."""
    whole = told(right)
    how = chance.randrange(4)
    if how == 0:
        return whole[: chance.randrange(len(whole))]
    if how == 1:
        return told(right, chance.choice([chance.randrange(len(right)), len(right) + chance.randrange(1, 10**6)]))
    if how == 2:
        size = b"%x" % chance.choice([chance.randrange(len(right)), chance.randrange(10**9), 0])
        return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + right
    return chance.randbytes(chance.randrange(5000))


def random_nonsense(hub: Any, busy: Any, eventually: Any, seed: int, count: int) -> None:
    agent, go = busy
    chance = random.Random(seed)  # noqa: S311
    answers: list[Answer] = [lambda right: broken(right, chance)] * count
    all_arrived_once(hub, agent, speaks_nonsense(hub, answers, eventually, go))


def test_random_nonsense_is_no_answer(fake_hub: Any, busy: Any, eventually: Any) -> None:
    random_nonsense(fake_hub, busy, eventually, seed=7, count=8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
def test_much_random_nonsense(fake_hub: Any, busy: Any, eventually: Any, seed: int) -> None:
    random_nonsense(fake_hub, busy, eventually, seed, count=60)


# ---------------------------------------------------------------- slow, and out of order for long


def test_an_answer_that_stalls_costs_no_lease(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path, stall: Any
) -> None:
    """However short that is, there is time to ask again on another connection. The hub had heard everything once."""
    fake_hub.lease_ms, fake_hub.heartbeat_ms, fake_hub.poll_ms = 6_000, 200, 200
    agent, go = start_agent(), tmp_path / "go"
    fake_hub.assign(gated(fake_hub, "long", go, "echo ends"))
    eventually(lambda: ("long", 1) in fake_hub.started, "it to run")
    fake_hub.faults["poll"], fake_hub.faults["report"] = [stall(b"")], [stall(told(b'{"lease_ms": 6', 100))]
    fake_hub.assign(fake_hub.job("n0", "echo", "n0", shape={"cpus": 100}))
    go.touch()
    all_arrived_once(fake_hub, agent, ["n0"])
    assert any("no answer came in time" in each["text"] for each in agent.said("hub-unreachable"))


def test_an_answer_that_trickles_is_not_waited_for() -> None:
    """A byte now and then is not an answer that is on its way."""
    ours, theirs = socket.socketpair()

    def trickle() -> None:
        with contextlib.suppress(OSError):
            for byte in HEAD + b"X: " + b"x" * 2000:
                theirs.send(bytes([byte]))
                time.sleep(0.05)

    threading.Thread(target=trickle, daemon=True).start()
    began = time.monotonic()
    with ours, pytest.raises(Unreachable):
        exchange(ours, b"?", timeout_s=0.5)
    assert time.monotonic() - began < 30, "not as long as it pleases"
    theirs.close()


def test_errors_for_long_are_outlived_with_patience(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    """Tries come further and further apart. A wish to be left alone for an hour is heard as far as the lease allows."""
    fake_hub.lease_ms, fake_hub.heartbeat_ms, fake_hub.poll_ms = 9_000, 200, 200
    agent, go = start_agent(), tmp_path / "go"
    fake_hub.assign(gated(fake_hub, "long", go, "echo ends"))
    eventually(lambda: ("long", 1) in fake_hub.started, "it to run")
    asked = 400
    fake_hub.faults["poll"] = [(500, "internal")] * asked
    fake_hub.faults["report"] = [(500, "internal")] * asked
    go.touch()
    eventually(lambda: len(fake_hub.faults["report"]) <= asked - 3, "some tries")
    assert len(fake_hub.faults["report"]) > asked - 20
    fake_hub.faults["poll"] = []
    fake_hub.faults["report"] = [(503, "overloaded", {"Retry-After": "3600"})]
    all_arrived_once(fake_hub, agent, [])
    assert not fake_hub.faults["report"], "it was said"
