"""What the processes of a job hold together, where the kernel does not add it up for us: from /proc."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable

PAGE = os.sysconf("SC_PAGE_SIZE")


def family(roots: Iterable[int], proc: str = "/proc") -> list[int]:
    """These processes and all that descend from them. A process that comes or goes meanwhile may be missed."""
    found: dict[int, None] = dict.fromkeys(roots)
    new = list(found)
    while new:
        children = [child for pid in new for child in children_of(pid, proc) if child not in found]
        found.update(dict.fromkeys(children))
        new = children
    return list(found)


def children_of(pid: int, proc: str = "/proc") -> list[int]:
    """Each of its threads has its own."""
    folder = "%s/%d/task" % (proc, pid)
    try:
        threads = os.listdir(folder)
    except OSError:
        return []
    return [int(word) for thread in threads for word in _words("%s/%s/children" % (folder, thread))]


def resident(pids: Iterable[int], proc: str = "/proc") -> int:
    """Bytes; memory that they share counts for each of them."""
    words = (_words("%s/%d/statm" % (proc, pid)) for pid in pids)
    return sum(int(each[1]) * PAGE for each in words if len(each) > 1)


def proportional(pids: Iterable[int], proc: str = "/proc") -> int | None:
    """Bytes; what several share counts once in all. Dear, so asked only when it matters. None: not told here."""
    total, told = 0, False
    for pid in pids:
        words = _words("%s/%d/smaps_rollup" % (proc, pid))
        if b"Pss:" in words:
            told = True
            total += int(words[words.index(b"Pss:") + 1]) * 1024
    return total if told else None


def cpu_ms(pids: Iterable[int], proc: str = "/proc") -> int:
    """User and system time of those that live, and of their children that were waited for."""
    ticks = 0
    for pid in pids:
        try:
            with open("%s/%d/stat" % (proc, pid), "rb", buffering=0) as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks * 1000 // os.sysconf("SC_CLK_TCK")


def _words(path: str) -> list[bytes]:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().split()
    except OSError:
        return []
