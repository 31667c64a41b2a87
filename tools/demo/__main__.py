"""Submits a mixed batch to a fresh worker-manager, shows how backlog and workers move, and judges the end.

Exits 0 only when every job ended as it must, the workers went away and no process is left.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.demo import picture
from tools.demo.batch import batch, expected
from tools.demo.screen import Screen, why
from tools.house import House, local_pool

PATIENCE_S = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    parser.add_argument("--picture", type=Path, help="also draw the run into this SVG file")
    wanted = parser.parse_args().picture
    began = time.monotonic()
    samples: list[picture.Sample] = []
    house = House(local_pool(0, 4, cpus=1, memory="256MiB", idle="1s"))
    with house, Screen() as screen:
        jobs = house.client.post("/v1/jobs", {"jobs": batch()})["jobs"]
        screen.say(f"submitted {sum(job['count'] for job in jobs)} jobs to a manager that has no worker")
        watch(house, screen, samples, until=lambda: waiting(house) <= {"too-big"})
        (too_big,) = [job["id"] for job in house.jobs() if job["name"] == "too-big"]
        explained = house.client.get(f"/v1/jobs/{too_big}/explain")
        screen.say(f"\nworker-manager explain job {too_big}:\n  {explained['text']}")
        house.client.post(f"/v1/jobs/{too_big}/cancel", {})
        watch(house, screen, samples, until=lambda: no_workers(house))
        wrong = judge(house)
        summary = house.client.get("/v1/summary")
        steps = scaling_steps(house)
    if wanted:
        picture.save(samples, wanted)
    print_summary(summary, steps, time.monotonic() - began)
    wrong += [f"still running after the end: {process}" for process in house.leftovers]
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    print("nothing was lost" if not wrong else f"{len(wrong)} things went wrong")
    return 1 if wrong else 0


def watch(house: House, screen: Screen, samples: list[picture.Sample], until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (pool,) = house.client.get("/v1/pools")["pools"]
        counts = house.client.get("/v1/info")["jobs"]
        workers = house.client.get("/v1/workers")["workers"]
        screen.show(counts, pool, workers)
        waiting_now = sum(counts.get(state, 0) for state in ("blocked", "queued", "assigned"))
        at_s = time.monotonic() - screen.began
        samples.append(picture.Sample(at_s, waiting_now, counts.get("running", 0), len(workers)))
        if until():
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"not done after {PATIENCE_S:g} s; the pool says: {why(pool)}\n{house.log()}")
        time.sleep(0.1)


def waiting(house: House) -> set[str]:
    """Names of the jobs that have not ended."""
    return {job["name"] for job in house.jobs() if job["state"] not in ("succeeded", "failed", "cancelled")}


def no_workers(house: House) -> bool:
    (pool,) = house.client.get("/v1/pools")["pools"]
    return pool["observed"] == 0 and pool["requested"] == 0 and not house.client.get("/v1/workers")["workers"]


def judge(house: House) -> list[str]:
    """What is not as it must be."""
    wrong = []
    submitted = {spec["name"]: spec for spec in batch()}
    ended = {job["name"]: job for job in house.jobs()}
    for name in submitted.keys() - ended.keys():
        wrong.append(f"{name} was lost")
    for name, job in ended.items():
        if job["state"] != expected(name):
            wrong.append(f"{name} is {job['state']}, not {expected(name)}: {job.get('text') or job.get('reason')}")
        if job["array"] and job["array"]["succeeded"] != submitted[name]["array"]["count"]:
            wrong.append(f"{name}: {job['array']['succeeded']} of {submitted[name]['array']['count']} tasks succeeded")
    return wrong


def scaling_steps(house: House) -> list[str]:
    """Every launch and every worker that went, each with its reason."""
    steps: list[str] = []
    after: str | None = None
    while True:
        query = {"kind": "decision", "limit": 1000, **({"after": after} if after else {})}
        page = house.client.get("/v1/events", params=query)
        steps += [step(event["data"]["decision"]) for event in page["events"]]
        if not page["events"] or page["next"] == after:
            return steps
        after = page["next"]


def step(decision: dict[str, Any]) -> str:
    limits = (limit["text"] for limit in decision["limited"])
    why = "; ".join(filter(None, (decision["reason"]["text"], decision["text"], *limits)))
    return f"{decision['action']:<7} {decision['subject']}: {why} → {decision['outcome']}"


def print_summary(summary: dict[str, Any], steps: list[str], took_s: float) -> None:
    print("\nwhy the number of workers changed")
    for line in steps:
        print(f"  {line}")
    wait, workers = summary["wait_ms"], summary["workers"]
    states = ", ".join(f"{count} {state}" for state, count in summary["jobs"].items() if count)
    print("\nsummary")
    print(f"  jobs                        {states}")
    print(f"  wait p50 / p95              {seconds(wait['p50'])} / {seconds(wait['p95'])}")
    print(f"  first submit → first start  {seconds(summary['first_started_ms'] - summary['first_submitted_ms'])}")
    print(f"  worker-seconds              {seconds(workers['used_ms'])} used, {seconds(workers['wasted_ms'])} wasted")
    print(f"  all in all                  {took_s:.1f} s")


def seconds(ms: int | None) -> str:
    return "unknown" if ms is None else f"{ms / 1000:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
