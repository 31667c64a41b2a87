"""From the commit of a submit with no worker at all to the exec of the first job; the manager is warm."""

import statistics
import time

from tools.bench.report import Row
from tools.house import House, local_pool, wait_for

ROUNDS = 9


def run() -> list[Row]:
    times, committed = [], []
    with House(local_pool(0, 1, cpus=1, idle="0s")) as house:
        for _ in range(ROUNDS):
            wait_for(lambda: not house.client.get("/v1/workers")["workers"], 60, "the last worker to go")
            settle(house)
            mark = house.dir / "mark"
            mark.unlink(missing_ok=True)
            command = ["sh", "-c", f"date +%s%N > {mark}.new && mv {mark}.new {mark}"]
            before = time.time_ns()
            house.client.post("/v1/jobs", {"jobs": [{"command": command}]})
            after = time.time_ns()
            wait_for(mark.exists, 30, "the first job", every=0.01)
            times.append((int(mark.read_text()) - after) / 1e9)
            committed.append((after - before) / 1e6)
    return [
        Row(
            "latency/submit answered → first job runs, from zero workers",
            statistics.median(times),
            "s",
            0.47,
            statistics.median(times) / 0.47,
            f"aim ≤ 0.4; {min(times):.3f}–{max(times):.3f} over {ROUNDS} rounds; baseline: Dask adaptive, elsewhere",
        ),
        Row("latency/submit, one job", statistics.median(committed), "ms"),
    ]


def settle(house: House) -> None:
    """Wait until the manager has closed every launch: until it knows that the last worker has ended, a pool of at most
    one is full, and the next launch would not be one from zero."""

    def at_rest() -> bool:
        events = house.client.get("/v1/events", params={"kind": "decision", "limit": 1000})["events"]
        made = [event["data"]["decision"] for event in events]
        launched = sum(one["action"] == "launch" and one["outcome"] == "launched" for one in made)
        return launched == sum(one["action"] == "close" for one in made)

    wait_for(at_rest, 60, "the manager to be at rest")
