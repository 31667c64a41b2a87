"""Whether a GPU's memory is free again before the next job gets it.

What no process holds and is more than was ever the least on this GPU was left behind: the driver may need a moment to
take it back after a process was killed, and now and then it never does. Memory of processes that somebody else runs
there is not ours to judge. Where the library does not tell, a GPU counts as free.
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple

SLACK = 256 * 2**20  # the driver's own needs vary by less
PATIENCE_MS = 30_000
LOOK_MS = 500


class Memory:
    def __init__(self, nvml: Any, ids: Sequence[str]) -> None:
        self._nvml = nvml
        self._cannot = (nvml.NVMLError, AttributeError)
        self._least: Dict[str, int] = {}  # held by no process, at the best time
        self._waits: Dict[str, int] = {}  # GPU → when it is given up
        self.due: Optional[int] = None
        self.learn(ids)

    def learn(self, ids: Sequence[str]) -> None:
        """How little can be in use; to be called now and then. Who holds it is only asked when there is news in it."""
        for each in ids:
            used = self._used(each)
            if used is not None and used < self._least.get(each, used + 1):
                held = self._unowned(each)
                if held is not None:
                    self._least[each] = min(held, self._least.get(each, held))

    def begin(self, ids: Sequence[str], now: int) -> None:
        """A job has left these."""
        for each in ids:
            self._waits[each] = now + PATIENCE_MS
        self.due = now if ids else self.due

    def look(self, now: int) -> Tuple[List[str], List[Tuple[str, str]]]:
        """Those that are free now, and those that are given up, and why."""
        free, out = [], []
        for each, until in list(self._waits.items()):
            left = self._left_behind(each)
            if left <= SLACK:
                free.append(each)
            elif now >= until:
                text = "%d MiB of its memory are still in use %d s after its last job, and by no process"
                out.append((each, text % (left >> 20, PATIENCE_MS // 1000)))
            else:
                continue
            del self._waits[each]
        self.due = now + LOOK_MS if self._waits else None
        return free, out

    def _left_behind(self, each: str) -> int:
        held = self._unowned(each)
        if held is None:
            return 0
        self._least[each] = min(held, self._least.get(each, held))
        return held - self._least[each]

    def _unowned(self, each: str) -> Optional[int]:
        """Bytes in use that no listed process holds; None when that is not told."""
        used = self._used(each)
        if used is None:
            return None
        held = self._held_by_processes(each)
        return None if None in held else max(0, used - sum(part or 0 for part in held))

    def _used(self, each: str) -> Optional[int]:
        try:
            handle = self._nvml.nvmlDeviceGetHandleByUUID(each.encode())
            return int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used)
        except self._cannot:
            return None

    def _held_by_processes(self, each: str) -> List[Optional[int]]:
        """Of each that is listed; None for one of which it is not told."""
        processes: Dict[int, Optional[int]] = {}
        for list_of in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByUUID(each.encode())
                found = getattr(self._nvml, list_of)(handle)
            except self._cannot:
                continue  # a slice, for one of both
            processes.update({process.pid: process.usedGpuMemory for process in found})
        return list(processes.values())
