"""What waiting costs: an idle agent, an idle hub, and a hub on which 5,000 workers wait."""

import asyncio
import json
import os
import resource
import time
from pathlib import Path

from tools.bench.fleet import Line, Talker, register
from tools.bench.report import Row
from tools.bench.throughput import ready_workers
from tools.house import House, local_pool, wait_for

WAITING = 5000
WINDOW_S = 10.0
MIB = 2**20


def run() -> list[Row]:
    raise_file_limit()
    with House(local_pool(1, 1, cpus=1)) as house:
        wait_for(lambda: ready_workers(house) == 1, 30, "a worker")
        time.sleep(1)
        agent = [pid for pid, line in house.processes() if "worker_manager" not in line]
        hub = json.loads((house.state_dir / "hub.json").read_text())["pid"]
        rows = [
            aim("idle/agent and keeper, memory (PSS)", sum(pss(pid) for pid in agent) / MIB, 40),
            aim("idle/hub, memory (PSS)", pss(hub) / MIB, 120),
        ]
    with House(local_pool(0, 1, cpus=1)) as house:
        hub = json.loads((house.state_dir / "hub.json").read_text())["pid"]
        before = pss(hub)
        talkers = register(house, WAITING, {"cpus": 4000, "memory": 2**33})
        cpu = asyncio.run(wait_together(house.client.url, talkers, hub))
        rows += [
            Row(f"idle/hub with {WAITING:,} waiting workers, memory (PSS)", pss(hub) / MIB, "MiB", before / MIB),
            Row(f"idle/hub with {WAITING:,} waiting workers, cpu", cpu * 100, "% of core", note=f"over {WINDOW_S:g} s"),
        ]
    return rows


async def wait_together(url: str, talkers: list[Talker], hub: int) -> float:
    """Everyone polls; the share of a core that the hub uses while all of them wait."""
    lines = []
    for talker in talkers:
        line = await Line.open(url)
        await line.send(f"/v1/workers/{talker.id}/poll", talker.credential, {"session": talker.session, "ack": 0})
        lines.append(line)
    await asyncio.sleep(3)
    began, used = time.monotonic(), cpu_seconds(hub)
    await asyncio.sleep(WINDOW_S)
    share = (cpu_seconds(hub) - used) / (time.monotonic() - began)
    for line in lines:
        line.close()
    return share


def aim(name: str, value: float, most: float) -> Row:
    return Row(name, value, "MiB", most, value / most, f"aim ≤ {most:g}")


def pss(pid: int) -> int:
    """Proportional memory: pages shared with others count in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no memory figure for process {pid}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def raise_file_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
