"""The agent as one file, as launches elsewhere name it: by the hub's address of it and its digest."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import AgentFile

if TYPE_CHECKING:
    from worker_manager.hub_client import HubClient

FOLDER = "agents"


def from_hub(client: "HubClient", state_dir: Path) -> AgentFile:
    """What the hub serves now. It goes on serving it under its digest, so that a worker which starts days after its
    launch gets the agent that its launch named."""
    with client.stream("/v1/worker.pyz") as stream:
        data = b"".join(stream.chunks)
    return _kept(data, client.url, state_dir)


def from_here(url: str, state_dir: Path) -> AgentFile:
    """That of this installation, for a preview without a hub."""
    from worker_manager.hub.pyz import build

    return _kept(build(), url, state_dir)


def _kept(data: bytes, url: str, state_dir: Path) -> AgentFile:
    """With a copy here, for backends that bring the file along."""
    digest = hashlib.sha256(data).hexdigest()
    folder = state_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{digest}.pyz"
    if not path.exists():
        temporary = folder / f".{digest}.new"
        temporary.write_bytes(data)
        temporary.replace(path)
    return AgentFile(f"{url}/v1/worker/{digest}.pyz", digest, str(path))
