"""Finding, starting and stopping the hub of a state directory. Stdlib only: the command line pays for this import.

A hub writes `<state_dir>/hub.json` when it accepts requests and removes it when it ends. The file is believed only
while the process that it names lives (pid and start time: pids are reused) and answers. A started hub is a process of
its own: it outlives whoever started it, and the next one finds it.
"""

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from worker_manager.errors import StoreError, UsageError, WorkerManagerError
from worker_manager.hub.settings import HubSettings

FILE = "hub.json"
LOG = "hub.log"
SETTINGS = "settings.json"
LOCK = "hub.lock"
TAIL_BYTES = 4000
MEANINGFUL = (2, 74, 75)  # exit codes: asked wrongly, the store cannot be used, another one serves


class HubDidNotStart(WorkerManagerError):
    """Its own exit code is the hub's, where that means something (errors.py)."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = code if code in MEANINGFUL else 1


@dataclass(frozen=True)
class RunningHub:
    """The content of the discovery file."""

    url: str  # as workers and clients elsewhere are told
    pid: int
    start_time: int  # of the process, in clock ticks since boot, from /proc
    version: str
    protocol: int
    fingerprint: str | None = None  # SHA-256 of its certificate, hex; None without TLS
    ca: str | None = None  # file of the authority that signed it
    local_url: str = ""  # as it is reached from this machine
    advertised: bool = False  # a person said that `url` leads to it

    @property
    def here(self) -> str:
        return self.local_url or self.url  # a hub of the version before says one thing only

    def write(self, state_dir: Path) -> None:
        """Atomically: a reader sees all of it or none."""
        temporary = state_dir / f".{FILE}.{self.pid}"
        temporary.write_text(json.dumps(asdict(self)))
        temporary.chmod(0o600)
        temporary.replace(state_dir / FILE)


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None when there is none (a zombie is none)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])


def recorded(state_dir: Path) -> RunningHub | None:
    """What the discovery file says, provided that its process lives. It may not answer (yet, or any more)."""
    try:
        wire = json.loads((state_dir / FILE).read_text())
        known = {each.name for each in fields(RunningHub)}
        hub = RunningHub(**{name: value for name, value in wire.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return hub if start_time(hub.pid) == hub.start_time else None


def find(state_dir: Path, timeout_s: float = 5.0) -> RunningHub | None:
    """The hub that runs on this state directory and answers; None when there is none."""
    hub = recorded(state_dir)
    return hub if hub is not None and healthy(hub, timeout_s) else None


def healthy(hub: RunningHub, timeout_s: float = 5.0) -> bool:
    return answers(hub.here, timeout_s)


def answers(url: str, timeout_s: float = 5.0) -> bool:
    """Whether a hub that is well serves this address."""
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
    connection: http.client.HTTPConnection
    if address.scheme == "https":
        # Only asks whether it is there; nothing secret is sent, so the pin is not needed here.
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=_no_verification())
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", f"{address.path.rstrip('/')}/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _no_verification() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def find_or_start(settings: HubSettings, deadline_s: float = 20.0) -> tuple[RunningHub, bool]:
    """The hub of this state directory, and whether it was started now. Two callers at once get the same hub."""
    hub = find(settings.state_dir)
    return (hub, False) if hub is not None else (start(settings, deadline_s), True)


def start(settings: HubSettings, deadline_s: float = 20.0) -> RunningHub:
    """Starts a hub as a process of its own and waits until it is ready. Raises HubDidNotStart with the end of its log.
    Settings travel in a 0600 file, because a database URL may hold a password."""
    state_dir = settings.state_dir
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(state_dir / SETTINGS, settings.to_json())
        log_start = _size(state_dir / LOG)
        log = os.open(state_dir / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the state directory {state_dir} cannot be used: {error.strerror}") from None
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker_manager.hub", str(state_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=_environment(),
        )
    finally:
        os.close(log)
    return _until_ready(process, state_dir, log_start, deadline_s)


def _environment() -> dict[str, str]:
    """As ours, but able to find this very installation from `/`; the caller's service manager is not the hub's."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _until_ready(process: "subprocess.Popen[bytes]", state_dir: Path, log_start: int, deadline_s: float) -> RunningHub:
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        hub = recorded(state_dir)
        if hub is not None and healthy(hub, 1.0):
            return hub
        code = process.poll()
        if code is not None:
            if code == LOCK_HELD and (hub := _others(state_dir, until)) is not None:
                return hub
            raise HubDidNotStart(
                _with_tail(f"the hub ended with exit code {code} before it was ready", state_dir, log_start), code
            )
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()
    raise HubDidNotStart(_with_tail(f"the hub was not ready within {deadline_s:g} s", state_dir, log_start))


LOCK_HELD = 75  # exit code: another hub serves this state directory


def _others(state_dir: Path, until: float) -> RunningHub | None:
    """Somebody else started one at the same moment: wait for theirs."""
    while time.monotonic() < until:
        hub = find(state_dir, 1.0)
        if hub is not None:
            return hub
        time.sleep(0.02)
    return None


def stop(state_dir: Path, deadline_s: float = 30.0) -> bool:
    """Asks the hub to end and waits until its process is gone. False when none ran."""
    hub = recorded(state_dir)
    if hub is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(hub.pid, signal.SIGTERM)
    if not _wait(lambda: start_time(hub.pid) != hub.start_time, deadline_s):
        raise WorkerManagerError(f"the hub (pid {hub.pid}) did not end within {deadline_s:g} s; see {state_dir / LOG}")
    return True


def token_file(state_dir: Path, name: str) -> Path:
    """Where the tokens made at the first start lie: `operator`, `manager`."""
    return state_dir / "tokens" / f"{name}.token"


def read_token(state_dir: Path, name: str) -> str:
    path = token_file(state_dir, name)
    try:
        return path.read_text().strip()
    except OSError as error:
        raise UsageError(f"the token file {path} cannot be read: {error.strerror}") from None


def tail(state_dir: Path, since: int = 0) -> str:
    """The end of the hub's own log, not before `since`."""
    try:
        with (state_dir / LOG).open("rb") as file:
            file.seek(max(since, _size(state_dir / LOG) - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def _with_tail(text: str, state_dir: Path, since: int) -> str:
    said = tail(state_dir, since)
    return f"{text}; {state_dir / LOG} says:\n{said}" if said else f"{text}; {state_dir / LOG} is silent"


def _wait(done: Callable[[], bool], deadline_s: float) -> bool:
    until = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
