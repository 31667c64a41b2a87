"""Processor time of a house's processes, by what they are: how much each part costs is told apart from how busy the
machine is with others."""

import os
from dataclasses import dataclass
from pathlib import Path

from tools.house import House

US_PER_TICK = 1_000_000 // os.sysconf("SC_CLK_TCK")
MANAGER, HUB, AGENT, KEEPER, JOBS = "manager", "hub", "agent", "keeper", "jobs' own"
PARTS = (HUB, AGENT, KEEPER, MANAGER, JOBS)


@dataclass(frozen=True)
class Meter:
    """Who is who in a house, and what they have used."""

    parts: dict[int, str]

    @classmethod
    def of(cls, house: House) -> "Meter":
        return cls({pid: _part(line) for pid, line in house.processes()})

    def read(self) -> dict[str, int]:
        """Microseconds so far. What the keeper's children used counts for the jobs, once they are reaped."""
        used = dict.fromkeys(PARTS, 0)
        for pid, part in self.parts.items():
            own, children = _used(pid)
            used[part] += own
            if part == KEEPER:
                used[JOBS] += children
        return used


def _part(line: str) -> str:
    if "worker.keeper.main" in line:
        return KEEPER
    if "worker_manager" not in line:
        return AGENT
    return HUB if "worker_manager.hub" in line else MANAGER


def _used(pid: int) -> tuple[int, int]:
    """Of itself and of its reaped children, in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) * US_PER_TICK for field in fields[11:15])
    return user + system, children_user + children_system
