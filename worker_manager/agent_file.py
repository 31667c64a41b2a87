"""The agent as one file, as launches elsewhere name it: by the hub's address of it and its digest."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import AgentFile

if TYPE_CHECKING:
    from worker_manager.hub_client import HubClient

FOLDER = "agents"


def from_hub(client: "HubClient", url: str, state_dir: Path) -> AgentFile:
    """What the hub serves now; workers get it at `url`. It goes on serving it under its digest, so that a worker which
    starts days after its launch gets the agent that its launch named. With a copy here, for backends that bring the
    file along."""
    with client.stream("/v1/worker.pyz") as stream:
        data = b"".join(stream.chunks)
    found = _described(data, url, state_dir)
    path = Path(found.path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        temporary = path.with_suffix(".new")
        temporary.write_bytes(data)
        temporary.replace(path)
    return found


def from_here(url: str, state_dir: Path) -> AgentFile:
    """That of this installation, for a preview: nothing is written."""
    from worker_manager.hub.pyz import build

    return _described(build(), url, state_dir)


def _described(data: bytes, url: str, state_dir: Path) -> AgentFile:
    digest = hashlib.sha256(data).hexdigest()
    return AgentFile(f"{url}/v1/worker/{digest}.pyz", digest, str(state_dir / FOLDER / f"{digest}.pyz"))
