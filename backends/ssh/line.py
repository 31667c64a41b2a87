"""One call to one host by the system's own ssh: its argv, its deadline, and a connection that later calls share."""

import hashlib
import json
import math
import os
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

from backends import tools
from backends.base import BackendUnusable, RefusalKind
from backends.ssh import answers, far
from backends.ssh.answers import Trouble
from backends.ssh.hosts import Host
from backends.start import CANDIDATES

# Any login shell can read this line, csh and fish too: no quote within the quotes, no backslash, no exclamation mark.
# A Python that is too old says so (99) before it has read anything, so the next one can be tried; starting one only to
# ask for its version would double the cost of every call.
_FAR = (
    "exec /bin/sh -c 'for wm_try in {candidates}; do "
    'command -v "$wm_try" >/dev/null 2>&1 || continue; '
    '"$wm_try" -IS -c "import sys; sys.version_info < (3, 9) and sys.exit(99); '
    'import json; exec(json.loads(sys.stdin.readline()))"; '
    "wm_status=$?; case $wm_status in 99|126|127) ;; *) exit $wm_status;; esac; done; "
    'echo "' + answers.NO_PYTHON + " 3.9 or newer here (looked for: {candidates})\" >&2; exit 127'"
)
# Read by the line above: makes modules of ours out of the next line. The last one does what is asked.
_LOADER = """
import json, sys, types
for name, text in json.loads(sys.stdin.readline()):
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules[ANSWERING].main(module.run)
"""


@dataclass(frozen=True)
class Settings:
    """How ssh is called."""

    user: str = ""
    port: int | None = None
    identity_file: str | None = None
    ssh_config: str | None = None
    known_hosts: str | None = None
    host_keys: str = "strict"
    connect_s: float = 10.0
    persist_s: float = 60.0
    python: tuple[str, ...] = ()


_HOST_KEYS = {"strict": "yes", "accept-new": "accept-new", "off": "no"}


class Line:
    def __init__(self, settings: Settings, pool: str, sockets: Path) -> None:
        """`pool` is anything that tells this pool from others: a connection is shared by the calls of one pool."""
        self._settings = settings
        self._pool = pool
        self._sockets = sockets

    def argv(self, host: Host, deadline_s: float, log: str = "LOG") -> list[str]:
        settings = self._settings
        connect = max(1, min(math.ceil(settings.connect_s), int(deadline_s) - 1))
        words = ["ssh", "-T", "-E", log, *(("-F", settings.ssh_config) if settings.ssh_config else ())]
        for option in (
            "BatchMode=yes",
            f"ConnectTimeout={connect}",
            "ConnectionAttempts=1",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            f"StrictHostKeyChecking={_HOST_KEYS[settings.host_keys]}",
            *_known_hosts(settings),
            *self._shared(host),
            *("ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "PermitLocalCommand=no"),
            *("RequestTTY=no", "LogLevel=INFO"),
        ):
            words += ["-o", option]
        if settings.identity_file:
            words += ["-o", "IdentitiesOnly=yes", "-i", settings.identity_file]
        if port := host.port or settings.port:
            words += ["-p", str(port)]
        if user := host.user or settings.user:
            words += ["-l", user]
        return [*words, "--", host.name, far_command(settings.python)]

    def _shared(self, host: Host) -> tuple[str, ...]:
        if not self._settings.persist_s:
            return ("ControlMaster=no", "ControlPath=none")
        socket = str(self._socket(host)).replace("%", "%%")
        return ("ControlMaster=auto", f"ControlPath={socket}", f"ControlPersist={math.ceil(self._settings.persist_s)}")

    def _socket(self, host: Host) -> Path:
        """Short, because the kernel allows no more than 100 characters."""
        name = f"{self._pool}\n{host.key}\n{self._settings}"
        return self._sockets / hashlib.sha256(name.encode()).hexdigest()[:24]

    def call(self, host: Host, request: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """What the far side answers. Raises Trouble. `deadline` is of time.monotonic."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Trouble(RefusalKind.CAPACITY, "its turn did not come before the deadline", certain=True)
        mark = f"wm-{token_hex(8)}"
        with suppress(OSError):
            self._sockets.mkdir(mode=0o700, exist_ok=True)  # temporary folders are cleaned up now and then
        log = self._sockets / f"{mark}.log"
        try:
            ran = tools.run(self.argv(host, left, str(log)), left, input=spoken({**request, "mark": mark}))
            said = log.read_text(errors="replace") if log.exists() else ""
        except tools.TookTooLong:
            self.hang_up(host)
            text = f"no answer within {left:.0f} s"
            raise Trouble(RefusalKind.CAPACITY, text, certain=False) from None
        except tools.TooMuch as noise:
            self.hang_up(host)
            raise Trouble(RefusalKind.CONFIG, f"its answer makes no sense: {noise}", certain=False) from None
        except tools.NotInstalled:
            text = "ssh is not a program here: apt-get install openssh-client"
            raise Trouble(RefusalKind.CONFIG, text, certain=True) from None
        finally:
            with suppress(OSError):
                log.unlink(missing_ok=True)
        found = answers.answer(ran.out, mark)
        if found is None:
            raise answers.failure(host.name, ran.status, said, ran.err, ran.out)
        return answers.result(found)

    def hang_up(self, host: Host) -> None:
        """End the shared connection: one that hangs would make every later call hang as well."""
        socket = self._socket(host)
        if socket.exists():
            words = ["ssh", "-F", "none", "-o", f"ControlPath={str(socket).replace('%', '%%')}", "-O", "exit", "x"]
            with suppress(tools.TookTooLong, tools.NotInstalled, tools.TooMuch):
                tools.run(words, 2.0)
            with suppress(OSError):
                socket.unlink(missing_ok=True)


def far_command(python: Sequence[str] = ()) -> str:
    """What the far side's login shell is asked to run: it finds a Python, which reads the rest from stdin."""
    return _FAR.format(candidates=" ".join(dict.fromkeys((*python, *CANDIDATES))))


def spoken(request: Mapping[str, Any]) -> str:
    """Three lines: a loader, our modules, the request. Half of them does nothing."""
    return program(request["call"]) + json.dumps(request) + "\n"


@cache
def program(call: str) -> str:
    """The first two of them."""
    folder = Path(far.__file__).parent
    names = (*far.COMMON, far.CALLS[call])
    modules = [(f"{far.__name__}.{name}", (folder / f"{name}.py").read_text()) for name in names]
    loader = _LOADER.replace("ANSWERING", repr(f"{far.__name__}.answering"))
    return f"{json.dumps(loader)}\n{json.dumps(modules)}\n"


def _known_hosts(settings: Settings) -> tuple[str, ...]:
    if settings.host_keys == "off":
        return ("UserKnownHostsFile=/dev/null",)
    if settings.known_hosts:
        path = settings.known_hosts.replace("%", "%%")
        return (f'UserKnownHostsFile="{path}"', "GlobalKnownHostsFile=none")
    return ()


def own_sockets() -> Path:
    """A folder that nobody else can use. Raises BackendUnusable."""
    path = Path(tempfile.gettempdir()) / f"worker-manager-ssh-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as failed:
        raise BackendUnusable(f"{path} cannot be made: {failed.strerror}") from failed
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BackendUnusable(f"{path} is not ours alone: remove it, or set TMPDIR to another folder")
    for log in path.glob("wm-*.log"):  # of a manager that was killed in the middle of a call
        with suppress(OSError):
            if log.stat().st_mtime < time.time() - 3600:
                log.unlink()
    return path
