"""What hooks there are, what each is told by its environment, and how it is said that one has failed.

Nothing of the agent's environment or of the job's reaches a hook but what is named here: secrets stand in both.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

    from worker.keeper.attempt import Attempt

LIMIT_MS = 60_000
START, BEFORE, AFTER, STOP = "start", "before-job", "after-job", "stop"
FAILED = "hook-failed"  # reason of an attempt that goes back, and of a worker that goes
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "WM_WORKER_DIR")
OF_A_JOB = ("WM_JOB", "WM_EPOCH", "WM_ATTEMPT", "WM_ARRAY_INDEX", "WM_CPUS", "WM_MEMORY")
OUTPUT_END = 2000  # bytes of what it wrote, its last, for the agent's journal


class Hooks:
    """Lines for /bin/sh; "" for none."""

    __slots__ = ("after", "before", "limit_ms", "start", "stop")

    def __init__(
        self, start: str = "", before: str = "", after: str = "", stop: str = "", limit_ms: int = LIMIT_MS
    ) -> None:
        self.start = start
        self.before = before
        self.after = after
        self.stop = stop
        self.limit_ms = limit_ms  # each; then it is killed, and has failed

    def for_keeper(self, env: Mapping[str, str]) -> dict[str, Any] | None:
        """None: no hook comes with jobs."""
        if not self.before and not self.after:
            return None
        return {"before": self.before, "after": self.after, "limit_ms": self.limit_ms, "env": dict(env)}


def shell(line: str) -> list[str]:
    return ["/bin/sh", "-c", line]


def env_of_worker(env: Mapping[str, str], path: str, worker: str, pool: str, work_dir: str) -> dict[str, str]:
    """`path`: where there is no PATH."""
    found = {"PATH": path, **{name: env[name] for name in PASSED_ON if env.get(name)}}
    found.update(WM_WORKER=worker, WM_WORK_DIR=work_dir)
    if pool:
        found["WM_POOL"] = pool
    return found


def env_of_job(env: Mapping[str, str], attempt: Attempt, hook: str) -> dict[str, str]:
    """`env`: the worker's. What the job says of itself cannot change what the hook is told."""
    found = {**env, "WM_HOOK": hook, "WM_OWNER": attempt.owner}
    found.update({name: attempt.env[name] for name in OF_A_JOB if name in attempt.env})
    if attempt.slot is not None:
        found["WM_JOB_DIR"] = attempt.slot.path
    if attempt.gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(attempt.gpus)
    if hook == AFTER:
        found.update(_of_its_end(attempt))
    return found


def _of_its_end(attempt: Attempt) -> dict[str, str]:
    _, _, outcome, exit_code, number, reason = attempt.result()[:6]
    found = {"WM_OUTCOME": outcome, "WM_REASON": reason, "WM_RUN_MS": str(attempt.run_ms)}
    if exit_code is not None:
        found["WM_EXIT_CODE"] = str(exit_code)
    if number is not None:
        found["WM_SIGNAL"] = str(number)
    return found


def trouble(status: int, late_ms: int = 0) -> str:
    """Of a wait status; "" when all is well. `late_ms`: it was killed for having taken longer than that."""
    if late_ms:
        return "took longer than %g s" % (late_ms / 1000)
    if status & 0x7F:
        return "was ended by signal %d" % (status & 0x7F)
    return "ended with exit status %d" % (status >> 8) if status else ""


def last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
