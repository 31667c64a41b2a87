"""Why an attempt could not be started, and whose fault that is."""

from __future__ import annotations

import errno

from worker.attempt import Ending

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # the exit codes a shell gives

# The machine is out of something, which is not the job's fault.
SHORTAGE = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)

SENTENCES = {
    errno.ENOENT: "command not found: %s (or the interpreter its first line names)",
    errno.ENOTDIR: "command not found: %s",
    errno.EACCES: "not executable: %s",
    errno.EISDIR: "not executable: %s",
    errno.ENOEXEC: "neither a program for this machine nor a script with a #! line: %s",
    errno.E2BIG: "the command line and environment are too long for: %s",
}


class WorkerProblem(OSError):
    """The worker could not prepare what every job needs: a directory, a pipe."""


def is_shortage(problem: Exception) -> bool:
    return isinstance(problem, OSError) and problem.errno in SHORTAGE


def why_not_started(argv: list[str], problem: Exception) -> tuple[Ending, int | None]:
    """How the attempt ends, and its wait status. The worker's fault hands it back, the job's own fails it."""
    if isinstance(problem, WorkerProblem) or is_shortage(problem):
        return Ending("returned", "start-failed", "the worker could not start it: %s" % problem), None
    number = problem.errno if isinstance(problem, OSError) else None
    sentence = SENTENCES.get(number or 0)
    text = sentence % argv[0] if sentence else "could not be started: %s" % problem
    code = NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
    return Ending("failed", "start-failed", text), code << 8
