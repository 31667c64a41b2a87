"""An array of 100,000 jobs in one request, and what workers' heartbeats feel meanwhile."""

import asyncio
import statistics
import threading
import time

from tools.bench.fleet import Line, Talker, register
from tools.bench.report import Row
from tools.house import House, local_pool

COUNT = 100_000


def run() -> list[Row]:
    with House(local_pool(0, 1, cpus=1)) as house:
        talkers = register(house, 8, {"cpus": 1, "memory": 1})  # too small for any job: they only report
        calm = asyncio.run(heartbeats(house.client.url, talkers, 1, lambda _: None))
        times: list[float] = []
        loaded = asyncio.run(heartbeats(house.client.url, talkers, 9, lambda stop: submit(house, times, stop)))
    return [
        Row(
            "submit/array of 100,000, one request",
            statistics.median(times),
            "s",
            2.0,
            statistics.median(times) / 2.0,
            "aim ≤ 2",
        ),
        Row("submit/heartbeat p99, nothing else going on", percentile(calm, 99) * 1000, "ms"),
        Row("submit/heartbeat p99, while submitting", percentile(loaded, 99) * 1000, "ms"),
        Row("submit/heartbeat max, while submitting", max(loaded) * 1000, "ms"),
    ]


def submit(house: House, times: list[float], stop: threading.Event) -> None:
    try:
        for _ in range(5):
            began = time.perf_counter()
            spec = {"command": ["true"], "array": {"count": COUNT}, "resources": {"cpus": 64_000}}
            house.client.post("/v1/jobs", {"jobs": [spec]})
            times.append(time.perf_counter() - began)
    finally:
        stop.set()


async def heartbeats(url: str, talkers: list[Talker], first: int, meanwhile: object) -> list[float]:
    """Latency of reports, one every 10 ms for each talker: for two seconds, or as long as `meanwhile` runs."""
    stop = threading.Event()
    worker = threading.Thread(target=meanwhile, args=(stop,))  # type: ignore[arg-type]
    took: list[float] = []

    async def beat(talker: Talker) -> None:
        line = await Line.open(url)
        number = first
        until = time.perf_counter() + 2
        while time.perf_counter() < until or (worker.is_alive() and not stop.is_set()):
            began = time.perf_counter()
            body = {"session": talker.session, "seq": number, "running": 0}
            status, reply = await line.post(f"/v1/workers/{talker.id}/report", talker.credential, body)
            if status != 200:
                raise RuntimeError(f"a report answered {status}: {reply}")
            took.append(time.perf_counter() - began)
            number += 1
            await asyncio.sleep(0.01)
        line.close()

    worker.start()
    offset = 0 if first == 1 else 100_000  # sequence numbers only grow
    first += offset
    await asyncio.gather(*(beat(talker) for talker in talkers))
    worker.join()
    return took


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
