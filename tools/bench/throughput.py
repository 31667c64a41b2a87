"""`true` as a job with two slots on one machine: ours (durable, output kept, a session each), xargs -P2, HyperQueue.

The three take turns, so that a noisy machine is noisy for all; the ratio of medians is what counts.
"""

import statistics
import subprocess
import sys
import time

from tools.bench.report import Row, against
from tools.house import House, local_pool, wait_for

JOBS = 3000
ROUNDS = 5


def run() -> list[Row]:
    ours, xargs, peer = [], [], []
    with House(local_pool(1, 1, cpus=2)) as house:
        wait_for(lambda: ready_workers(house) == 1, 30, "a worker")
        our_round(house, 200)  # run times become known, so that jobs are assigned ahead
        for _ in range(ROUNDS):
            ours.append(our_round(house, JOBS))
            xargs.append(xargs_round(JOBS))
            peer.append(hyperqueue_round(JOBS // 3))
    base = statistics.median(xargs)
    return [
        Row("throughput/xargs -P2", base, "jobs/s"),
        against("throughput/worker-manager, array", statistics.median(ours), "jobs/s", base, spread(ours)),
        against("throughput/HyperQueue, array", statistics.median(peer), "jobs/s", base, spread(peer)),
    ]


def spread(values: list[float]) -> str:
    return f"{min(values):,.0f}–{max(values):,.0f} over {len(values)} rounds"


def ready_workers(house: House) -> int:
    return sum(worker["state"] == "ready" for worker in house.client.get("/v1/workers")["workers"])


def our_round(house: House, count: int) -> float:
    spec = {"command": ["true"], "array": {"count": count}, "resources": {"cpus": 1000}}
    began = time.perf_counter()
    job = house.client.post("/v1/jobs", {"jobs": [spec]})["jobs"][0]["id"]
    path = f"/v1/jobs/{job}"
    wait_for(lambda: house.client.get(path)["array"]["succeeded"] == count, 120, f"{count} jobs", every=0.05)
    return count / (time.perf_counter() - began)


def xargs_round(count: int) -> float:
    numbers = "\n".join(map(str, range(count))).encode()
    began = time.perf_counter()
    subprocess.run(["xargs", "-P2", "-n1", "true"], input=numbers, check=True)
    return count / (time.perf_counter() - began)


def hyperqueue_round(count: int) -> float:
    """In a process of its own, whose chatter is thrown away."""
    command = [sys.executable, "-m", "tools.bench.hyperqueue_peer", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
