"""The first tokens of a hub: one for its operator, one for its managers, each in a 0600 file beside the database."""

import getpass
import os
import re
from pathlib import Path

from worker_manager.errors import ConfigError
from worker_manager.hub.auth import new_secret, sha256_of
from worker_manager.hub.contract import HubStore
from worker_manager.hub.discovery import token_file
from worker_manager.hub.settings import HubSettings

SCOPES = {"operator": ("operator",), "manager": ("manager",)}
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}")


def make_tokens(store: HubStore, settings: HubSettings) -> None:
    """Makes what is missing. A token that was revoked stays revoked; only a database without any token takes the
    files' ones again (it is a new database beside old files)."""
    owner = owner_of(settings)
    fresh = not store.list_tokens()
    for name, scopes in SCOPES.items():
        path = token_file(settings.state_dir, name)
        known = path.exists()
        if known and not fresh:
            continue
        secret = path.read_text().strip() if known else new_secret()
        store.create_token(sha256_of(secret), owner, scopes, None, owner).result()
        if not known:
            _write(path, secret)


def owner_of(settings: HubSettings) -> str:
    if settings.owner:
        if not _OWNER.fullmatch(settings.owner):
            raise ConfigError([f"owner: {settings.owner!r} may hold letters, digits and ._@+- only"])
        return settings.owner
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = ""
    return name if _OWNER.fullmatch(name) else f"uid-{os.geteuid()}"


def _write(path: Path, secret: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
