"""A worker that is stopped past its lease and wakes up: its jobs run elsewhere by then, its late results are refused,
and what it still runs is killed."""

import signal
from typing import Any

import pytest

from tests.faults.witness import Witness, agent_of, all_dead, keeper_of, pools, send
from tests.place import Place, alive, until


@pytest.mark.parametrize("sleeps", ["agent and keeper", "agent"])
def test_a_worker_that_wakes_up_too_late_changes_nothing(place: Place, sleeps: str) -> None:
    """Two jobs on it: one ends while it sleeps, so its result comes late; the other still runs when it wakes."""
    place.manage("run", "-c", pools(place, lease="2s", cpus=2))
    ends, runs = Witness.submitted(place, "ends"), Witness.submitted(place, "runs")
    first, second = ends.pids(1), runs.pids(1)
    worker = ends.shown()["worker"]
    assert runs.shown()["worker"] == worker
    agent = agent_of(place, worker)
    keeper = keeper_of(agent)
    asleep = [agent, keeper] if sleeps == "agent and keeper" else [agent]
    send(signal.SIGSTOP, *asleep)
    ends.let_go()
    others = {witness.succeeds(attempt=2)["worker"] for witness in (ends, runs)}
    assert worker not in others
    assert [event["data"]["jobs"] for event in place.events("worker.lost", worker)] == [2]
    assert place.events("worker.back", worker) == [], "that its poll still waits in the hub is no sign of life"
    if keeper in asleep:
        until(lambda: not alive(first[0]), "the one to have ended by itself")
        assert alive(second[0]), "nobody has ended the other"
    else:
        all_dead([*first, *second])  # the keeper minds the lease, without the agent
    send(signal.SIGCONT, *reversed(asleep))
    all_dead([*first, *second, keeper])
    until(lambda: not alive(agent), "an agent without a keeper to leave")
    until(lambda: place.ask(f"/v1/workers/{worker}")["state"] == "gone", "the hub to know it")
    for witness in (ends, runs):
        assert witness.outcomes() == ["lost", "succeeded"], "one result was accepted, and nothing counted twice"
        assert place.run("logs", "--attempt", "1", witness.job) == f"out of {witness.job}.1\n"
        witness.succeeds(attempt=2)


def test_a_late_result_is_refused_and_the_zombie_is_told_to_kill_its_job(start_hub: Any, wire_worker: Any) -> None:
    hub = start_hub(lease_ms=1000)
    zombie = wire_worker(hub, hub.token("worker"), "zombie")
    assert zombie.registered["heartbeat_ms"] == 250, "however short the lease, it is heard within it"
    job = hub.submit("true")
    assignment = zombie.take()
    until(lambda: hub.get("/v1/workers/zombie")["state"] == "lost", "its lease to end")
    other = wire_worker(hub, hub.token("worker"), "other")
    again = other.take()
    assert (again["job"], again["epoch"]) == (job, assignment["epoch"] + 1)
    mine = {"job": job, "epoch": assignment["epoch"]}
    answer = zombie.finish(assignment, exit_code=0)
    assert answer["stale"] == [[job, assignment["epoch"]]]
    cancelled = [(each["job"], each["epoch"]) for each in zombie.poll()["cancel"]]
    assert cancelled == [(job, assignment["epoch"])]
    zombie.report(logs=[{**mine, "offset": 0, "text": "late"}], started=[[job, assignment["epoch"], 1]])
    assert hub.get(f"/v1/jobs/{job}")["worker"] == "other"
    other.report(logs=[{"job": job, "epoch": again["epoch"], "offset": 0, "text": "right"}])
    other.finish(again, exit_code=0)
    shown = hub.get(f"/v1/jobs/{job}")
    assert (shown["state"], shown["attempt"]) == ("succeeded", again["epoch"])
    assert [each["outcome"] for each in shown["attempts"]] == ["lost", "succeeded"]
    assert hub.call("GET", f"/v1/jobs/{job}/logs").content == b"right"
    assert zombie.finish(assignment, "failed")["stale"] == [[job, assignment["epoch"]]]
    assert hub.get(f"/v1/jobs/{job}")["state"] == "succeeded"


def test_a_lease_shorter_than_can_be_kept_is_refused(start_hub: Any) -> None:
    with pytest.raises(Exception, match=r"lease: 10 ms is too short: at least 1000 ms"):
        start_hub(lease_ms=10)
