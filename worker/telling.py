"""What the keeper is told of an assignment."""

from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

from worker.happened import Amounts
from worker.protocol import Assignment, Misfit, Shape

DEFAULT_GRACE_MS = 10_000
# By this variable a local backend finds whatever belongs to a worker, also when agent and keeper died in one instant.
MARK = "WM_WORKER_DIR"

Message = Tuple[Any, ...]


class Asked(NamedTuple):
    """What an assignment's shape means here."""

    shape: Shape
    uses: Amounts
    misfits: Tuple[Misfit, ...]


def start_message(assignment: Assignment, asked: Asked, wrap: Sequence[str] = ()) -> Message:
    return (
        "start",
        assignment["job"],
        assignment["epoch"],
        assignment.get("owner", ""),
        [*wrap, *assignment["command"]],
        environment(assignment, asked.shape),
        asked.uses,
        assignment.get("time_limit_ms"),
        assignment.get("grace_ms", DEFAULT_GRACE_MS),
        assignment.get("output_limit"),
        limits(assignment, asked.shape),
    )


def limits(assignment: Assignment, asked: Shape) -> Optional[Tuple[int, int, int, int]]:
    """(memory, processes, open files, cores of its own), each 0 for none; None without any."""
    work = assignment.get("work")
    if not work:
        return (asked.memory, 0, 0, 0) if asked.memory else None
    cores = max(1, asked.cpus // 1000) if work.get("cpu_affinity") else 0
    found = (asked.memory, work.get("max_processes") or 0, work.get("max_files") or 0, cores)
    return found if any(found) else None


def environment(assignment: Assignment, asked: Shape) -> Dict[str, str]:
    """What the job asked for, and what it may want to know about itself; the latter cannot be overridden."""
    env = dict(assignment.get("env") or {})
    for marked in ("WM_KEEPER", MARK):
        env.pop(marked, None)
    env.update(
        WM_JOB=assignment["job"],
        WM_EPOCH=str(assignment["epoch"]),
        WM_ATTEMPT="%s.%d" % (assignment["job"], assignment["epoch"]),
        WM_CPUS=str(max(1, -(-asked.cpus // 1000))),
    )
    if asked.memory:
        env["WM_MEMORY"] = str(asked.memory)
    if assignment.get("array_index") is not None:
        env["WM_ARRAY_INDEX"] = str(assignment["array_index"])
    return env
