"""`apptainer`: the job's command in an image, as the user who starts it; common where there is no docker.

The image is a file, or a reference such as docker://…, which apptainer fetches into its own cache. The environment goes
by a private file, as shell text.
"""

from __future__ import annotations

import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, Sequence


def run(
    program: str,
    image: str,
    argv: Sequence[str],
    directory: str,
    env_file: str,
    gpus: bool,
    network: bool,
    readable: Sequence[str] = (),
    writable: Sequence[str] = (),
) -> list[str]:
    """What is started. `--containall`: no home, no /tmp, no environment and no processes of the machine."""
    words = [program, "--silent", "exec", "--containall", "--no-home", "--no-privs", "--env-file", env_file]
    words += ["--bind", bind(directory, "rw"), "--pwd", directory]
    for path in readable:
        words += ["--bind", bind(path, "ro")]
    for path in writable:
        words += ["--bind", bind(path, "rw")]
    words += ["--nv"] if gpus else []
    words += [] if network else ["--net", "--network", "none"]
    return [*words, image, *argv]


def bind(path: str, mode: str) -> str:
    """Raises ValueError for what its syntax cannot say."""
    if set(path) & set(":,"):
        raise ValueError("apptainer cannot be given a directory with a colon or a comma: %s" % path)
    return "%s:%s:%s" % (path, path, mode)


def env_text(env: Mapping[str, str]) -> str:
    return "".join("%s=%s\n" % (name, shlex.quote(value)) for name, value in env.items())
