"""A whole tick (backlog query, observe, derive, plan) against a large backlog, and against a small one."""

import statistics
import time
from collections.abc import Mapping

from tools.bench.fleet import register
from tools.bench.report import Row
from tools.house import House, local_pool
from worker.protocol import Shape
from worker_manager.policy.derive import derive
from worker_manager.policy.facts import IntentFact, Memory, PoolSettings, Sight, Sights
from worker_manager.policy.model import Limits
from worker_manager.policy.plan import plan
from worker_manager.sources.hub import HubSource

WORKERS = 1000
ROUNDS = 7
TAGS = tuple(sorted(f"t{number}" for number in range(20)))
SHAPE = Shape(cpus=4000, memory=2**33, tags=TAGS)
CASES = (  # jobs, groups, aim in ms
    (1_000, 50, 100),
    (1_000_000, 50, 100),
    (10_000, 10_000, 500),
    (1_000_000, 10_000, 500),
)


def run() -> list[Row]:
    return [row for jobs, groups, aim in CASES for row in case(jobs, groups, aim)]


def case(jobs: int, groups: int, aim: float) -> list[Row]:
    with House(local_pool(0, 0, cpus=1)) as house:
        fill(house, jobs, groups)
        talkers = register(house, WORKERS, SHAPE.to_wire(), pool="bench")
        ids = [talker.id for talker in talkers]
        settings = PoolSettings("bench", "memory", SHAPE, Limits(max_workers=WORKERS + 500))
        source = HubSource(house.client, "bench", ["bench"], lambda: time.time_ns() // 1_000_000)
        query, whole = [], []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            observation = source.observe(None, 0)
            query.append((time.perf_counter() - began) * 1000)
            now = time.time_ns() // 1_000_000
            sights, memory = listed(ids, now), remembered(ids, now)
            began = time.perf_counter()
            plan(derive(now, [settings], memory, sights, observation.backlog))
            whole.append(query[-1] + (time.perf_counter() - began) * 1000)
        waiting = sum(group.count for group in observation.backlog.groups)
        if waiting != jobs or len(observation.backlog.groups) != groups:
            raise RuntimeError(
                f"{waiting} of {jobs} jobs were seen, in {len(observation.backlog.groups)} of {groups} groups"
            )
    name = f"tick/{jobs:,} jobs in {len(observation.backlog.groups):,} groups, {WORKERS:,} workers"
    middle = statistics.median(whole)
    return [
        Row(name, middle, "ms", aim, middle / aim, f"aim ≤ {aim}; {min(whole):.0f}–{max(whole):.0f}"),
        Row(f"{name}: the query's part", statistics.median(query), "ms"),
    ]


def fill(house: House, jobs: int, groups: int) -> None:
    """Arrays: one for each group, of different shapes, tags and queues."""
    specs = [
        {
            "command": ["true"],
            "queue": f"queue-{number // len(TAGS)}",
            "tags": [TAGS[number % len(TAGS)]],
            "resources": {"cpus": 500 * (1 + number % 8), "memory": 2**27 * (1 + number % 50)},
            "array": {"count": jobs // groups},
        }
        for number in range(groups)
    ]
    for start in range(0, groups, 1000):
        house.client.post("/v1/jobs", {"jobs": specs[start : start + 1000]}, timeout=120)


def listed(ids: list[str], now: int) -> Mapping[str, Sights]:
    return {"bench": Sights(now, tuple(Sight(id, "running", id, started_at=now - 60_000) for id in ids))}


def remembered(ids: list[str], now: int) -> Memory:
    return Memory(tuple(IntentFact(id, "bench", "submitted", SHAPE, now - 60_000, now - 30_000) for id in ids))
