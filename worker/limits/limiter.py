"""The keeper's side of a job's limits: set before its first instruction, watched while it runs, judged at its end.

| limit | with a control group | without |
|---|---|---|
| memory | the kernel's, on the group; one process of it that goes over ends the job | looked at in /proc |
| processes | the kernel's: a fork fails | not offered (`can` of the worker says so) |
| open files | RLIMIT_NOFILE, soft and hard | the same |
| cores | affinity, inherited | the same |
"""

from __future__ import annotations

import os
import resource

from worker.keeper.attempt import RUNNING, Ending, WorkerProblem
from worker.limits import watch
from worker.limits.cores import Cores
from worker.limits.groups import LEAST_MEMORY, Groups
from worker.limits.places import Place
from worker.processes import boot_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterable

    from worker.keeper.attempt import Attempt
    from worker.keeper.roster import Roster
    from worker.limits.group import Group

    Told = tuple[str, int, str, str]  # controller, and its Place

GROUP_LOOK_MS = (
    1000  # the kernel guards the limit; we look whether it had to, because it may end only a part of the job
)
FAR_LOOK_MS, NEAR_LOOK_MS = 250, 50  # without a group: far from the limit, and near it
NEAR = 0.5  # of the limit
FULL = 0.98  # of the limit
NONE = (0, 0, 0, 0)
FILE_PAGES_MATTER = 8 * 2**20  # bytes by which a group's peak must exceed its largest process to be looked into


class Limiter:
    def __init__(self, places: Iterable[Told], roster: Roster) -> None:
        self._groups = Groups({name: Place(version, parent, home) for name, version, parent, home in places})
        self._roster = roster
        self._cores = Cores(os.sched_getaffinity(0))
        self._ours = os.sched_getaffinity(0)
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._group_of: dict[Attempt, Group] = {}
        self._most: dict[Attempt, int] = {}  # bytes that we saw it hold
        self._watched: dict[Attempt, int] = {}  # → when to look

    # ------------------------------------------------------------ its start

    def spawn(self, attempt: Attempt, spawn: Callable[[Attempt], None]) -> None:
        """What `spawn` starts is born with its limits. Raises what `spawn` does, and WorkerProblem."""
        memory, processes, files, cores = attempt.limits or NONE
        files = min(files, self._files[1]) if self._files[1] >= 0 else files
        inherited = files if attempt.way is None else 0  # else its wrapper is given it, for which more has to be opened
        try:
            self._enter(attempt, memory, processes, inherited, cores)
        except OSError as problem:
            raise WorkerProblem(problem.errno, problem.strerror, problem.filename) from problem
        else:
            spawn(attempt)
        finally:
            self._leave(attempt, processes, inherited, cores)
        if files:
            self._harden(attempt.pid, files)
        if memory:
            inside = attempt in self._group_of
            self._watched[attempt] = boot_ms() + (GROUP_LOOK_MS if inside else NEAR_LOOK_MS)

    def _enter(self, attempt: Attempt, memory: int, processes: int, files: int, cores: int) -> None:
        if cores:
            attempt.cores = self._cores.take(cores)
            os.sched_setaffinity(0, attempt.cores)
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, self._files[1]))
        if (memory and self._groups.limits_memory) or (processes and self._groups.limits_processes):
            self._group_of[attempt] = self._groups.enter_new(memory, processes)

    def _leave(self, attempt: Attempt, processes: int, files: int, cores: int) -> None:
        group = self._group_of.get(attempt)
        if group is not None:
            self._groups.leave()
            self._groups.settle(group, processes)
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._files)
        if cores:
            os.sched_setaffinity(0, self._ours)

    def _harden(self, pid: int, files: int) -> None:
        """It was born with the lower limit, and shall not lift it."""
        try:  # noqa: SIM105  # contextlib costs the keeper a millisecond to import
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, files))
        except OSError:
            pass  # it has ended already

    # ------------------------------------------------------------ its life

    @property
    def look_at(self) -> int | None:
        return min(self._watched.values()) if self._watched else None

    def look(self, now: int) -> list[tuple[Attempt, Ending]]:
        """Those that went over a limit since the last look."""
        over = []
        for attempt in [attempt for attempt, when in self._watched.items() if when <= now]:
            ending = self._look_at(attempt, now)
            if ending is not None:
                del self._watched[attempt]
                over.append((attempt, ending))
        return over

    def _look_at(self, attempt: Attempt, now: int) -> Ending | None:
        group, limit = self._group_of.get(attempt), memory_limit(attempt)
        if group is not None and group.memory:
            self._watched[attempt] = now + GROUP_LOOK_MS
            held = (group.usage() or 0) - group.file_pages()
            self._most[attempt] = max(held, self._most.get(attempt, 0))
            return over_memory(limit, limit) if group.oom_kills() else None
        held = self.held_by(attempt)
        self._most[attempt] = max(held, self._most.get(attempt, 0))
        self._watched[attempt] = now + (NEAR_LOOK_MS if held > NEAR * limit else FAR_LOOK_MS)
        return over_memory(held, limit) if held > limit else None

    def held_by(self, attempt: Attempt) -> int:
        """Bytes. Shared pages count once, where the sum of all would be too much."""
        pids = self.family_of(attempt)
        held = watch.resident(pids)
        if held > memory_limit(attempt):
            shared_once = watch.proportional(pids)
            held = held if shared_once is None else shared_once
        return held

    def family_of(self, attempt: Attempt) -> list[int]:
        strays = [pid for pid in self._roster.others() if self._roster.whose(pid) is attempt]
        return watch.family([attempt.pid, *strays] if attempt.state == RUNNING else strays)

    def usage(self, attempt: Attempt) -> tuple[int, int]:
        """(cpu ms, bytes held now) of a running attempt."""
        group = self._group_of.get(attempt)
        pids = self.family_of(attempt)
        held = group.usage() if group is not None and group.memory else None
        if group is not None and held is not None:
            return watch.cpu_ms(pids), max(0, held - group.file_pages())
        return watch.cpu_ms(pids), watch.resident(pids)

    # ------------------------------------------------------------ its end

    def has_ended(self, attempt: Attempt) -> None:
        """Every process of it is gone: whether it broke a limit, and the most that it held."""
        group = self._group_of.get(attempt)
        if group is not None:
            self._judge(attempt, group)
        if attempt.max_rss is not None:
            attempt.max_rss = max(attempt.max_rss, self._most.get(attempt, 0))

    def _judge(self, attempt: Attempt, group: Group) -> None:
        if attempt.limits is None:
            return
        if attempt.ending is None and group.oom_kills():
            attempt.ending = over_memory(memory_limit(attempt), memory_limit(attempt))
        elif attempt.ending is None and attempt.status and group.refused_processes():
            attempt.ending = Ending(
                "failed", "process-limit", "it wanted more than its %d processes" % attempt.limits[1]
            )
        self._most[attempt] = max(self._peak(attempt, group), self._most.get(attempt, 0))

    def _peak(self, attempt: Attempt, group: Group) -> int:
        """The most that its processes held together, as far as it is known. The kernel counts copies of files too; they
        grow until the limit is reached, so a peak there says only how large the limit was."""
        peak, largest, limit = group.peak(), attempt.max_rss or 0, memory_limit(attempt)
        if peak is None or peak <= largest + FILE_PAGES_MATTER:
            return largest
        if group.oom_kills():
            return limit
        return peak - group.file_pages() if peak < FULL * limit else largest

    def release(self, attempt: Attempt) -> None:
        self._watched.pop(attempt, None)
        self._most.pop(attempt, None)
        self._cores.give_back(attempt.cores)
        attempt.cores = []
        self._groups.remove_the_rest()
        group = self._group_of.pop(attempt, None)
        if group is not None:
            self._groups.remove(group)

    def close(self) -> None:
        self._groups.close()


def memory_limit(attempt: Attempt) -> int:
    return max(attempt.limits[0], LEAST_MEMORY) if attempt.limits else 0


def over_memory(held: int, limit: int) -> Ending:
    from worker.protocol import format_bytes  # dear to import, and rarely needed

    return Ending("failed", "memory-limit", "used %s of %s of memory" % (format_bytes(held), format_bytes(limit)))
