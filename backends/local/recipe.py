"""A submission → what is run for one of its workers: argv, environment, and the same as text. Starts nothing."""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from backends.base import Submission
from backends.local.records import WorkerFolder
from backends.local.shell import around
from backends.sound import problem_of

MARK = "WM_WORKER_DIR"  # by this variable a worker is found that is on no record

# What a worker gets of the manager's environment. Everything else may be a secret of the manager.
INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY", "no_proxy"),
)


def problem(submission: Submission, max_batch: int) -> str:
    """Why this submission can never be started, or nothing."""
    return problem_of(submission, max_batch) or _problem_of_the_program(submission)


def _problem_of_the_program(submission: Submission) -> str:
    """Set-up lines may bring a program to the PATH, so with them only the run can tell."""
    program = submission.filled(submission.command[0], 0)
    if "/" in program and not Path(program).is_absolute():
        return f"{program!r} is a relative path, and every worker runs in a folder of its own"
    if not submission.setup and not shutil.which(program, path=submission.environment.get("PATH")):
        return f"{program!r} is not a program on this machine"
    return ""


def argv(submission: Submission, folder: WorkerFolder) -> list[str]:
    command = [submission.filled(word, folder.index) for word in submission.command]
    return around(command, str(folder.path), submission.setup)


def environment(submission: Submission, folder: WorkerFolder, inherited: Sequence[str]) -> dict[str, str]:
    return _of_the_manager(inherited) | _own(submission, folder)


def rendered(submission: Submission, folder: WorkerFolder, inherited: Sequence[str]) -> str:
    """As lines of a shell. What comes from the manager's environment is named, not shown."""
    lines = [f"# {folder.handle}: in a session of its own, in {folder.path}"]
    lines += [f"# {folder.token}, mode 0600: ***"] if submission.join_tokens else []
    lines += [f"# from here: {' '.join(_of_the_manager(inherited))}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in _own(submission, folder).items()]
    lines += submission.setup
    lines += [shlex.join(submission.filled(word, folder.index) for word in submission.command)]
    return "\n".join(lines) + "\n"


def _of_the_manager(inherited: Sequence[str]) -> dict[str, str]:
    found = {name: os.environ[name] for name in inherited if name in os.environ}
    if "PYTHONPATH" in found:  # relative to a folder in which the worker will not be
        found["PYTHONPATH"] = os.pathsep.join(str(Path(part).absolute()) for part in found["PYTHONPATH"].split(":"))
    return found


def _own(submission: Submission, folder: WorkerFolder) -> dict[str, str]:
    given = {name: submission.filled(value, folder.index) for name, value in submission.environment.items()}
    token = {"WM_JOIN_TOKEN_FILE": str(folder.token)} if submission.join_tokens else {}
    return given | token | {"WM_WORKER": folder.handle, "WM_MANAGER": submission.manager, MARK: str(folder.path)}
