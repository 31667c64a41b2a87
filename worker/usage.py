"""How much the worker and its jobs use, measured once for each heartbeat and never for a job of its own.

Rates come from two measurements; the first of a job has none.
"""

import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

Row = Tuple[str, int, int, int, List[str]]  # job, epoch, cpu ms so far, bytes now, its GPUs

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
LONGEST = 500  # jobs in one message; more run on no worker that anybody watches


class Rates:
    """Pure: what came before is kept here."""

    def __init__(self) -> None:
        self._before: Dict[Tuple[str, int], Tuple[int, int]] = {}  # attempt → (when, cpu ms)
        self._most: Dict[Tuple[str, int], int] = {}  # attempt → the most bytes that were seen
        self.own: Dict[str, Any] = {}  # what the agent measured of itself

    def of_jobs(self, rows: Sequence[Row], now: int) -> Dict[str, Any]:
        """The wire's `Usage`."""
        jobs: List[List[Any]] = []
        before, self._before = self._before, {}
        most, self._most = self._most, {}
        for job, epoch, cpu_ms, memory, gpus in rows[:LONGEST]:
            key = (job, epoch)
            self._before[key] = (now, cpu_ms)
            self._most[key] = max(memory, most.get(key, 0))
            jobs.append([job, epoch, cpu_ms, rate(before.get(key), (now, cpu_ms)), memory, self._most[key], gpus])
        return {**self.own, "jobs": jobs}


def rate(before: Optional[Tuple[int, int]], now: Tuple[int, int]) -> Optional[int]:
    """Milli-CPUs between two (time, cpu) in ms; None without a time between them."""
    if before is None or now[0] <= before[0]:
        return None
    return max(0, (now[1] - before[1]) * 1000 // (now[0] - before[0]))


class Own:
    """The agent and its keeper, and what is left of the disk."""

    def __init__(self, work_dir: str) -> None:
        self._work_dir = work_dir
        self._before: Optional[Tuple[int, int]] = None

    def now(self, pids: Sequence[int], now: int) -> Dict[str, Any]:
        spent, memory = 0, 0
        for pid in pids:
            cpu_ms, held = of_process(pid)
            spent, memory = spent + cpu_ms, memory + held
        found: Dict[str, Any] = {"memory": memory} if memory else {}
        used = rate(self._before, (now, spent))
        self._before = (now, spent)
        if used is not None:
            found["cpus"] = used
        try:
            disk = os.statvfs(self._work_dir)
            found["disk"] = disk.f_bavail * disk.f_frsize
            found["load"] = int(os.getloadavg()[0] * 1000)
        except OSError:
            pass
        return found


def of_process(pid: int) -> Tuple[int, int]:
    """(cpu ms, bytes) of one process without its children; zeros when it is gone."""
    try:
        with open("/proc/%d/stat" % pid, "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
        return int((int(fields[11]) + int(fields[12])) * TICK_MS), int(fields[21]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0, 0
