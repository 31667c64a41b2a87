"""`true` as a job with two slots on one machine: ours (durable, output kept, a session each), xargs -P2, HyperQueue.

The three take turns, so that a noisy machine is noisy for all; the ratio of medians is what counts. Beside the rates
stands the processor time for one job, part by part: on a busy machine it scatters far less, and two cores do at most
two seconds of it in a second.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from tools.bench import isolation
from tools.bench.cpu import PARTS, Meter
from tools.bench.report import Row, against
from tools.house import House, local_pool, wait_for

JOBS = 3000
ROUNDS = 5


def run() -> list[Row]:
    ours, xargs, peer = [], [], []
    our_cpu, xargs_cpu = [], []
    with House(local_pool(1, 1, cpus=2)) as house:
        wait_for(lambda: ready_workers(house) == 1, 30, "a worker")
        our_round(house, 200)  # run times become known, so that jobs are assigned ahead
        meter = Meter.of(house)
        for _ in range(ROUNDS):
            before = meter.read()
            ours.append(our_round(house, JOBS))
            our_cpu.append({part: (used - before[part]) / JOBS for part, used in meter.read().items()})
            xargs_cpu.append(children_cpu(lambda: xargs.append(xargs_round(JOBS))) / JOBS)
            peer.append(hyperqueue_round(JOBS // 3))
    base = statistics.median(xargs)
    return [
        Row("throughput/xargs -P2", base, "jobs/s"),
        against("throughput/worker-manager, array", statistics.median(ours), "jobs/s", base, spread(ours)),
        against("throughput/HyperQueue, array", statistics.median(peer), "jobs/s", base, spread(peer)),
        *cpu_rows(our_cpu, statistics.median(xargs_cpu)),
        *isolation.rows(),
    ]


def cpu_rows(rounds: list[dict[str, float]], of_xargs: float) -> list[Row]:
    medians = {part: statistics.median(each[part] for each in rounds) for part in PARTS}
    whole = statistics.median(sum(each.values()) for each in rounds)
    return [
        Row("throughput/cpu of a job, xargs and its children", of_xargs, "us"),
        against("throughput/cpu of a job, all parts", whole, "us", of_xargs),
        *(against(f"throughput/cpu of a job, {part}", used, "us", of_xargs) for part, used in medians.items()),
    ]


def spread(values: list[float]) -> str:
    return f"{min(values):,.0f}–{max(values):,.0f} over {len(values)} rounds"


def ready_workers(house: House) -> int:
    return sum(worker["state"] == "ready" for worker in house.client.get("/v1/workers")["workers"])


def our_round(house: House, count: int) -> float:
    """From the submission to the end as the hub has it on record; asking often for it would cost what is measured."""
    spec = {"command": ["true"], "array": {"count": count}, "resources": {"cpus": 1000}}
    began = time.time()
    job = house.client.post("/v1/jobs", {"jobs": [spec]})["jobs"][0]["id"]
    path = f"/v1/jobs/{job}"
    wait_for(lambda: house.client.get(path)["ended_ms"], 120, f"{count} jobs", every=0.2)
    ended = house.client.get(path)
    if ended["array"]["succeeded"] != count:
        raise RuntimeError(f"not all of {count} jobs succeeded: {ended['array']}")
    return count / (ended["ended_ms"] / 1000 - began)


def xargs_round(count: int) -> float:
    numbers = "\n".join(map(str, range(count))).encode()
    began = time.perf_counter()
    subprocess.run(["xargs", "-P2", "-n1", "true"], input=numbers, check=True)
    return count / (time.perf_counter() - began)


def children_cpu(act: Callable[[], object]) -> float:
    """Microseconds that the processes used which `act` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    act()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1_000_000


def hyperqueue_round(count: int) -> float:
    """In a process of its own, whose chatter is thrown away."""
    command = [sys.executable, "-m", "tools.bench.hyperqueue_peer", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
