"""A claim against a drain, raced many times: whoever has a job is never ended, and no job pays for a drain."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.faults.witness import pools
from tests.place import DEADLINE_S, Place

ROUNDS = 150
DRAINS = 8  # so many have to happen while jobs come
AT_MOST_S = 25.0


def decisions(place: Place) -> "Counter[str]":
    """`drained`, `not drained`, …: how often."""
    made = (event["data"]["decision"] for event in place.events("decision"))
    return Counter(one["outcome"] for one in made if one["action"] in ("drain", "end"))


def test_workers_that_go_the_moment_they_are_idle_never_take_a_job_with_them(place: Place) -> None:
    """Pools that let a worker go after a tenth of a second, and jobs that come just then."""
    place.manage("run", "-c", pools(place, idle="100ms"))
    client, luck = place.client(), random.Random(14)  # noqa: S311 - only to vary the moments
    submitted: list[str] = []
    until_then = time.monotonic() + AT_MOST_S
    while time.monotonic() < until_then:
        jobs = [{"command": ["sleep", str(luck.choice((0, 0.05)))]} for _ in range(luck.randint(1, 3))]
        submitted += [made["id"] for made in client.post("/v1/jobs", {"jobs": jobs})["jobs"]]
        time.sleep(luck.uniform(0.05, 0.5))
        if len(place.events("worker.draining")) >= DRAINS:
            break
    done = [place.reaches(job, "succeeded", "failed", "cancelled") for job in submitted]
    drained = place.events("worker.draining")
    assert len(drained) >= DRAINS, f"only {len(drained)} drains: that is no race; {decisions(place)}"
    assert {job["state"] for job in done} == {"succeeded"}
    assert not lost_to_a_drain(done, drained)
    assert {event["data"]["jobs"] for event in place.events("worker.gone")} == {0}
    assert not place.events("worker.lost")


def lost_to_a_drain(jobs: list[dict[str, Any]], drained: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Attempts that did not come to their own end. One that waited on a busy worker may be called back for an idle one,
    but not from a worker that drains: that had nothing."""
    drains_since = {event["subject"]: event["at_ms"] for event in drained}
    early = [one for job in jobs for one in job["attempts"] if one["outcome"] != "succeeded"]
    return [
        one
        for one in early
        if (one["outcome"], one["reason"]) != ("returned", "recalled")
        or one["ended_ms"] >= drains_since.get(one["worker"], one["ended_ms"] + 1)
    ]


def together(*calls: Callable[[], None]) -> None:
    """All at one moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], None]) -> None:
        barrier.wait()
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)


def test_a_cordon_and_a_claim_at_one_moment_never_both_win(hub: Any, wire_worker: Any) -> None:
    """The hub's own promise, without any process between: cordoned while idle, or given a job, and never both."""
    token = hub.token("worker")
    seen: Counter[str] = Counter()
    for number in range(ROUNDS):
        name = f"w-{number}"
        worker = wire_worker(hub, token, name)
        order = {"worker": name, "only_if_idle": True, "reason": {"code": "idle"}, "deadline_ms": 2**50}
        found: dict[str, Any] = {}

        def drain(order: Any = order, found: Any = found) -> None:
            answer = hub.post("/v1/managers/m/cordon", {"cordons": [order]}, by="manager")
            found["generation"] = answer["cordoned"][order["worker"]]

        def claim(found: Any = found) -> None:
            found["job"] = hub.submit("true")

        together(*random.Random(number).sample([drain, claim], 2))  # noqa: S311 - only to vary the order
        shown = hub.get(f"/v1/workers/{name}")
        if found["generation"] is None:
            assert (shown["state"], shown["assigned"]) == ("ready", 1)
            worker.finish(worker.take())
            seen["claimed"] += 1
        else:
            assert (shown["state"], shown["assigned"], shown["running"]) == ("draining", 0, 0)
            assert worker.poll()["assign"] == []
            hub.post(f"/v1/jobs/{found['job']}/cancel")
            seen["drained"] += 1
        worker.report(leaving="done")
    assert sum(seen.values()) == ROUNDS
    jobs = hub.get("/v1/jobs", params={"limit": 1000})["jobs"]
    assert {job["attempt"] for job in jobs if job["state"] == "succeeded"} <= {1}
