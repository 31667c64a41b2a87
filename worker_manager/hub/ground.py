"""What a hub stands on: its folder, its lock, its socket, its names. Each refused with what to do about it."""

import contextlib
import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from worker_manager.errors import ConfigError, LeaseHeld, StoreError
from worker_manager.hub.discovery import LOCK
from worker_manager.hub.settings import HubSettings

PORT = "port"  # the file that keeps it


class HubRuns(LeaseHeld):
    """Exit 75: another hub serves this state directory."""


def allow_many_connections() -> None:
    """Every idle worker holds two: take as many descriptors as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def own_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError as error:
        raise StoreError(f"the state directory {folder} cannot be used: {error.strerror}") from None
    if folder.stat().st_uid != os.geteuid():
        raise StoreError(f"the state directory {folder} belongs to another user")


@contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Held by the process, so it ends with it however it ends."""
    descriptor = os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HubRuns(f"another hub serves {state_dir}") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def listener_for(settings: HubSettings) -> Iterator[socket.socket]:
    try:
        port = settings.port
        family = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)[0][0]
    except (ValueError, OverflowError, socket.gaierror):
        raise ConfigError([f"listen: {settings.listen!r} is not HOST:PORT"]) from None
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            _bind(listener, settings, port)
        except (OSError, OverflowError) as error:
            raise ConfigError([f"listen: {settings.listen} cannot be used: {error}"]) from None
        yield listener


def _bind(listener: socket.socket, settings: HubSettings, port: int) -> None:
    """A free port is taken once and kept for the next start: workers of before look for the hub where it was."""
    kept = settings.state_dir / PORT
    if port == 0:
        with contextlib.suppress(OSError, ValueError, OverflowError):
            listener.bind((settings.host, int(kept.read_text())))
            return
    listener.bind((settings.host, port))
    with contextlib.suppress(OSError):  # without it the next start takes another one
        kept.write_text(str(listener.getsockname()[1]))


def names_of(settings: HubSettings) -> tuple[str, ...]:
    """By what names a certificate of ours must answer."""
    names = ["localhost", "127.0.0.1", socket.gethostname(), socket.getfqdn()]
    names += [settings.host, urlsplit(settings.advertise_url).hostname or ""]
    unusable = {"", "0.0.0.0", "::"}  # noqa: S104  # named here, not bound
    return tuple(dict.fromkeys(name for name in names if name not in unusable))
