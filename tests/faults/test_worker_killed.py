"""kill -9 of a worker in the middle of a job: its processes die with it, the job goes back at once and succeeds
elsewhere, and who was killed may say nothing more."""

import hashlib
import signal
import time
from typing import Any

import pytest

from tests.faults.witness import Witness, agent_of, all_dead, keeper_of, pools, send, shell_of
from tests.place import Place, until

LEASE_S = 60


def killed(place: Place, victims: list[str], **limits: str) -> float:
    """How long it took until the next attempt had succeeded."""
    place.manage("run", "-c", pools(place, **limits))
    witness = Witness.submitted(place)
    pids = witness.pids(1)
    worker = witness.shown()["worker"]
    agent = agent_of(place, worker)
    found = {"agent": agent, "keeper": keeper_of(agent), "shell": shell_of(agent)}
    began = time.monotonic()
    send(signal.SIGSTOP, *(found[name] for name in victims))  # so that all of them die at one moment
    send(signal.SIGKILL, *(found[name] for name in victims))
    shown = witness.succeeds(attempt=2)
    took = time.monotonic() - began
    assert shown["worker"] != worker
    assert witness.outcomes() == ["lost", "succeeded"]
    all_dead([*pids, *found.values()])
    until(lambda: place.ask(f"/v1/workers/{worker}")["state"] == "gone", "the worker to be known as gone")
    lost = [*place.events("worker.lost", worker), *place.events("worker.gone", worker)]
    assert sorted(event["data"]["jobs"] for event in lost)[-1] == 1
    assert sum(event["data"]["jobs"] for event in lost) == 1, "requeued once"
    return took


@pytest.mark.parametrize("victims", [["agent"], ["shell", "agent"]])
def test_its_keeper_ends_the_jobs_and_its_backend_confirms_the_death(place: Place, victims: list[str]) -> None:
    took = killed(place, victims, lease=f"{LEASE_S}s")
    assert took < LEASE_S / 2, "it waited for the end of the lease"


@pytest.mark.parametrize("victims", [["agent", "keeper"], ["shell", "agent", "keeper"]])
def test_nothing_of_it_stays_even_when_nobody_is_left_to_end_it(place: Place, victims: list[str]) -> None:
    """The lease sends the job elsewhere; the backend finds what still runs by its mark, and is told to end it."""
    killed(place, victims, lease="3s", lost="1s")


def test_the_keeper_alone(place: Place) -> None:
    """Then the agent gives the job back and leaves."""
    place.manage("run", "-c", pools(place))
    witness = Witness.submitted(place)
    pids = witness.pids(1)
    worker = witness.shown()["worker"]
    send(signal.SIGKILL, keeper_of(agent_of(place, worker)))
    all_dead(pids)
    assert witness.succeeds(attempt=2)["worker"] != worker
    assert witness.outcomes() == ["returned", "succeeded"]
    until(lambda: place.ask(f"/v1/workers/{worker}")["state"] == "gone", "the worker to leave")


def test_a_job_whose_workers_die_again_and_again_is_given_up(place: Place) -> None:
    """It may well be the job that kills them."""
    place.manage("run", "-c", pools(place, most=1))
    job = place.submit("--shell", "kill -9 $(ps -o ppid= -p $PPID) $PPID")
    shown = place.reaches(job, "failed")
    assert (shown["reason"], shown["attempt"]) == ("lost-too-often", 5)
    assert len(place.events("worker.ready")) == 5
    assert place.reaches(place.submit("--", "true"), "succeeded")["attempt"] == 1


@pytest.mark.parametrize("forget", [False, True])
def test_who_was_confirmed_dead_may_say_nothing_more(hub: Any, wire_worker: Any, forget: bool) -> None:
    secret = "join"
    claim = {
        "submission": "m-a",
        "pool": "p",
        "workers": ["m-a-0"],
        "token_hashes": [hashlib.sha256(secret.encode()).hexdigest()],
        "call_deadline": 2**50,
    }
    hub.post("/v1/managers/m/launches", claim, by="manager")
    first = wire_worker(hub, secret, "m-a-0")
    job = hub.submit("true")
    assignment = first.take()
    assert assignment["epoch"] == 1
    hub.post("/v1/managers/m/gone", {"workers": ["m-a-0"], "reason": "ended"}, by="manager")
    assert hub.get(f"/v1/jobs/{job}")["state"] == "queued"
    second = wire_worker(hub, hub.token("worker"), "other")
    again = second.take()
    assert (again["job"], again["epoch"]) == (job, 2)
    if forget:
        hub.restart()
    result = {"job": job, "epoch": 1, "outcome": "failed", "exit_code": 1}
    late = first.call("report", {"session": first.session, "seq": first.seq + 1, "results": [result]})
    assert (late.status_code, late.json()["code"]) == (410, "worker-gone")
    assert first.call("poll", {"session": first.session, "ack": first.ack}).status_code == 410
    register = hub.call("POST", "/v1/workers", first.message, by=secret)
    assert register.status_code in (409, 410), "nor come back under its name"
    for credential in (first.credential, "made-up"):
        other = hub.call("POST", "/v1/workers/other/report", {"session": 1, "seq": 99}, by=credential)
        assert other.status_code == 401, "nor speak for another"
    second.finish(again, exit_code=0)
    shown = hub.get(f"/v1/jobs/{job}")
    assert (shown["state"], [each["outcome"] for each in shown["attempts"]]) == ("succeeded", ["lost", "succeeded"])
