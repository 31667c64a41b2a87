"""`sandbox`: bubblewrap. Needs no root where the kernel lets users make namespaces.

What a job sees: the machine's files, read-only; its own directory, the only place that it can write to beside a private
/tmp; its own processes alone; no devices but the harmless ones (and the GPUs, when it has some); of the places where
secrets lie, nothing. No capability, no way to get one, and never root: under a root agent it runs as a user of its own.

TERM goes to the whole group, and bubblewrap would die of it and take the job along before its grace is over. So it
starts with TERM ignored, as its keeper has it, and `env` gives the job the default back.

The job's variables reach nothing but the job: LD_PRELOAD in bubblewrap, or in what changes the user, would be its code
outside. They come by a descriptor, so that nobody reads them in `ps` either.
"""

from __future__ import annotations

import os
import shlex
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Mapping, Sequence

# Kept ignored by bubblewrap and its init, and given back to the job.
DEAF_TO = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
RESTORE = "--default-signal=" + ",".join(each.name[3:] for each in DEAF_TO)
PRIVATE = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (mount points of the job's own)
NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
# To change the user inside; given up with that.
TO_CHANGE = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP")
SHOWN_OF_RUN = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager/resolv.conf")  # names are looked up
ARGS_FD, ENV_FD = 3, 4
ENV_FILE = "/run/job-env"
TAKE_ENV = '. "$1"; shift; exec "$@"'


class View:
    """What of the machine the jobs of this worker see."""

    __slots__ = ("hidden", "masked", "shown")

    def __init__(self, hidden: Sequence[str] = (), masked: Sequence[str] = (), shown: Sequence[str] = ()) -> None:
        self.hidden = hidden  # folders: empty for the job
        self.masked = masked  # files: empty, too
        self.shown = shown  # folders within hidden ones that are visible all the same, read-only


class Programs:
    """Their paths. `setpriv` (of util-linux) only for root."""

    __slots__ = ("bwrap", "env", "setpriv", "shell")

    def __init__(self, bwrap: str, env: str, setpriv: str = "", shell: str = "/bin/sh") -> None:
        self.bwrap = bwrap
        self.env = env
        self.setpriv = setpriv
        self.shell = shell


def command(programs: Programs, user: tuple[int, int] | None, argv: Sequence[str]) -> list[str]:
    """What is started, with `arguments` and `env_text` to read as descriptors 3 and 4. `user`: whom root becomes."""
    words = [programs.bwrap, "--args", str(ARGS_FD), "--"]
    if user is not None:
        words += [programs.setpriv, "--reuid=%d" % user[0], "--regid=%d" % user[1], "--clear-groups"]
        words += ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]
    words += [programs.shell, "-c", TAKE_ENV, "job", ENV_FILE]
    return [*words, programs.env, RESTORE, "--", *argv]


def env_text(env: Mapping[str, str]) -> bytes:
    """For the shell between; what it sets by itself goes first."""
    lines = ["unset PWD OLDPWD SHLVL"]
    lines += ["export %s=%s" % (name, shlex.quote(value)) for name, value in env.items()]
    return os.fsencode("\n".join(lines) + "\n")


def arguments(
    view: View,
    directory: str,
    user: tuple[int, int] | None,
    network: bool,
    devices: Iterable[str] = (),
    readable: Iterable[str] = (),
    writable: Iterable[str] = (),
) -> bytes:
    """For `--args`; later mounts lie over earlier ones. `devices`: of its GPUs; `readable`: cache entries that it
    uses; `writable`: further folders of its own."""
    words = ["--die-with-parent", *NAMESPACES, *(("--unshare-user",) if user is None else TO_CHANGE)]
    if not network:
        words.append("--unshare-net")
    words += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for path in PRIVATE:
        words += ["--perms", "1777", "--tmpfs", path]
    for path in sorted({*view.hidden, "/run"}):
        words += ["--tmpfs", path]
    for path in SHOWN_OF_RUN:
        words += ["--ro-bind-try", path, path]
    for path in view.shown:
        words += ["--ro-bind", path, path]
    for path in view.masked:
        words += ["--ro-bind-try", os.devnull, path]
    for path in devices:
        words += ["--dev-bind", path, path]
    covered = (*view.hidden, *PRIVATE)
    inputs = list(readable)
    for path in sorted({folder for each in inputs for folder in _above(each, covered)}):
        words += ["--perms", "0755", "--dir", path]
    for path in inputs:
        words += ["--ro-bind", path, path]
    words += ["--perms", "0444", "--ro-bind-data", str(ENV_FD), ENV_FILE]
    for own in (directory, *writable):
        for path in _above(own, covered):
            words += ["--perms", "0755", "--dir", path]  # else it is as closed as what lies outside
        words += ["--bind", own, own]
    words += ["--chdir", directory]
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def view(folders: Iterable[str], files: Iterable[str], shown: Iterable[str]) -> View:
    """Folders that do not exist cannot be mounted over, and need not; a link is hidden where it leads. What lies in a
    hidden folder is hidden with it."""
    real = sorted({os.path.realpath(path) for path in folders if os.path.isdir(path)})
    top = [path for path in real if not any(_within(path, other) for other in real)]
    hidden = [path for path in top if path != "/"]
    masked = sorted({os.path.realpath(path) for path in files if os.path.isfile(path)})
    kept = [path for path in masked if not any(_within(path, folder) for folder in (*hidden, *PRIVATE, "/run"))]
    return View(hidden, kept, [os.path.realpath(path) for path in shown])


def _above(path: str, hidden: Iterable[str]) -> list[str]:
    """The folders on the way to it that lie in a hidden one, the outermost first."""
    found = []
    folder = os.path.dirname(path)
    while any(_within(folder, each) for each in hidden):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found[::-1]


def _within(path: str, folder: str) -> bool:
    return path != folder and path.startswith(folder.rstrip("/") + "/")


def first_closed(path: str) -> str:
    """The uppermost folder on the way to `path`, itself included, that others cannot enter; "" when there is none."""
    parts = os.path.realpath(path).split("/")[1:]
    for end in range(1, len(parts) + 1):
        folder = "/" + "/".join(parts[:end])
        if not os.stat(folder).st_mode & 0o001:
            return folder
    return ""
