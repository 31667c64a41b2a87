"""The control group of one job: what the kernel counts there, and under which names in version 1 and 2."""

from __future__ import annotations

from worker.limits.places import read_file


class Group:
    """The folders of one job: the same one for all its limits under version 2, one for each under version 1."""

    __slots__ = ("memory", "pids", "version")

    def __init__(self, version: int, memory: str, pids: str) -> None:
        self.version = version
        self.memory = memory  # "" without this limit
        self.pids = pids

    @property
    def folders(self) -> list[str]:
        return sorted({folder for folder in (self.memory, self.pids) if folder})

    def oom_kills(self) -> int:
        if not self.memory:
            return 0
        return counter(read_file(self.memory + "/" + FILES[self.version]["kills"]), "oom_kill")

    def refused_processes(self) -> int:
        return counter(read_file(self.pids + "/pids.events"), "max") if self.pids else 0

    def usage(self) -> int | None:
        return number(read_file(self.memory + "/" + FILES[self.version]["usage"])) if self.memory else None

    def peak(self) -> int | None:
        """The most that it held; None where the kernel does not tell. Pages of files that it read are in it."""
        return number(read_file(self.memory + "/" + FILES[self.version]["peak"])) if self.memory else None

    def file_pages(self) -> int:
        """What of its memory is only kept copies of files, now."""
        stat = read_file(self.memory + "/memory.stat")
        pages = counter(stat, "total_cache") - counter(stat, "total_shmem") if self.version == 1 else 0
        return max(0, pages or counter(stat, "file") - counter(stat, "shmem"))


FILES = {
    1: {
        "limit": "memory.limit_in_bytes",
        "swap": "memory.memsw.limit_in_bytes",
        "kills": "memory.oom_control",
        "usage": "memory.usage_in_bytes",
        "peak": "memory.max_usage_in_bytes",
        "enter": "tasks",
    },
    2: {
        "limit": "memory.max",
        "swap": "memory.swap.max",
        "kills": "memory.events",
        "usage": "memory.current",
        "peak": "memory.peak",
        "enter": "cgroup.procs",
    },
}


def counter(text: str | None, name: str) -> int:
    for line in (text or "").splitlines():
        word, _, value = line.partition(" ")
        if word == name and value.strip().isdigit():
            return int(value)
    return 0


def number(text: str | None) -> int | None:
    word = (text or "").strip()
    return int(word) if word.isdigit() else None
