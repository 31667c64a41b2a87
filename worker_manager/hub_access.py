"""How this program and its workers get at a hub: one that a URL names, or the embedded one of the state directory.

This program speaks to its own hub over this machine's own address. Workers on other machines are told the one that
`--advertise-url` gives; without it there is none that could lead to us, and nothing is started.
"""

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from backends import registry
from backends.base import AgentFile
from worker_manager import agent_file
from worker_manager.config.reach import is_loopback, own_hub, reachable, same
from worker_manager.config.settings import Settings
from worker_manager.errors import UsageError, WorkerManagerError
from worker_manager.hub import discovery
from worker_manager.hub_client import HubClient

if TYPE_CHECKING:
    from worker_manager.hub.settings import HubSettings

PATIENCE_S = 3.0
USUAL_PORT = 8443
NOWHERE = f"https://hub.invalid:{USUAL_PORT}"  # stands for an address that nobody has given yet
_ADDRESS = ("listen", "advertise_url", "tls", "tls_certificate", "tls_key", "behind_proxy")
_PROMISED = ("storages", "blob_keep_ms", "blob_limit")  # jobs were submitted by them
NO_FINGERPRINT = "0" * 64  # likewise


class NoHub(WorkerManagerError):
    """No hub runs where one was looked for."""


def hub_settings(settings: Settings, **over: object) -> "HubSettings":
    """Of the hub that we would start ourselves. Where nobody says otherwise it is to be found where the hub before it
    was: workers and clients of other machines look for it there."""
    from worker_manager.hub.settings import HubSettings

    own = {**settings.hub.own, **over}
    kept = _address_kept(settings.manager.state_dir) if not own.keys() & {"listen", "advertise_url"} else {}
    return HubSettings(state_dir=settings.manager.state_dir, **own_hub({**kept, **own}))


def _address_kept(state_dir: Path) -> dict[str, object]:
    """Of the hub that was started here last, if it had an address that somebody gave it."""
    before = _before(state_dir, _ADDRESS)
    return before if before.get("advertise_url") else {}


def _before(state_dir: Path, names: Iterable[str]) -> dict[str, object]:
    """Settings of the hub that was started here last."""
    from worker_manager.hub.settings import HubSettings

    try:
        before = HubSettings.from_json((state_dir / discovery.SETTINGS).read_text())
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {name: getattr(before, name) for name in names}


def hub_as_it_was(settings: Settings, hub: discovery.RunningHub | None) -> "HubSettings":
    """To start it again when it has died: workers know its address."""
    told = {"advertise_url": hub.url} if hub is not None and hub.advertised else {}
    promised = {
        name: value
        for name, value in _before(settings.manager.state_dir, _PROMISED).items()
        if name not in settings.hub.own
    }
    kept = hub_settings(settings, **promised)
    if not told or same(kept.advertise_url, hub.url if hub else ""):
        return kept
    return hub_settings(settings, **promised, **told)


def client_of(settings: Settings, role: str = "operator") -> HubClient:
    """A client of the hub that is configured, or of the embedded one that runs. Starts none."""
    if settings.hub.server:
        return _remote(settings)
    hub = _found(settings.manager.state_dir)
    if hub is None:
        raise NoHub(
            f"no hub runs on {settings.manager.state_dir}: start one with `worker-manager up` or "
            "`worker-manager hub start`, or name one with --server"
        )
    return _embedded(settings, hub, role)


def _found(state_dir: Path) -> discovery.RunningHub | None:
    """One that has died a moment ago is likely to be started again by its manager: it is worth a little patience."""
    until = time.monotonic() + PATIENCE_S
    while True:
        hub = discovery.find(state_dir)
        if hub is not None or not (state_dir / discovery.FILE).exists() or time.monotonic() > until:
            return hub
        time.sleep(0.1)


def hub_for_manager(settings: Settings) -> tuple[HubClient, bool]:
    """The same for a manager, which starts the embedded hub when none runs. And whether it was started now. Raises
    UsageError, before anything is started, where the workers could not reach it."""
    if settings.hub.server:
        return _remote(settings), False
    for obstacle in obstacles(settings):
        raise UsageError(obstacle)
    hub, started = discovery.find_or_start(hub_settings(settings))
    return _embedded(settings, hub, "manager"), started


def _remote(settings: Settings) -> HubClient:
    hub = settings.hub
    own = None if hub.ca else hub.fingerprint  # beside a CA it is the agents' pin
    return HubClient(str(hub.server), token_file=hub.token_file, ca=hub.ca, fingerprint=own)


def _embedded(settings: Settings, hub: discovery.RunningHub, role: str) -> HubClient:
    token = settings.hub.token_file or discovery.token_file(settings.manager.state_dir, role)
    if hub.ca is not None:  # its certificate may be renewed while we run
        return HubClient(hub.here, token_file=token, ca=Path(hub.ca))
    return HubClient(hub.here, token_file=token, fingerprint=hub.fingerprint)


# ---------------------------------------------------------------- whether workers can reach it


def obstacles(settings: Settings) -> Iterator[str]:
    """Why workers could not reach the hub that we would use, each with what to say instead."""
    if settings.hub.server:
        return
    wished = str(settings.hub.own.get("advertise_url") or "")
    state_dir = settings.manager.state_dir
    running = discovery.find(state_dir)
    stop = f"worker-manager --state-dir {state_dir} hub stop"
    if running is not None and wished and not same(wished, running.url):
        yield (
            f"the hub that runs on {state_dir} is known to workers as {running.url}, not as {wished}: end it with "
            f"`{stop}`, then say this again (jobs stay; workers that run now lose it and end)"
        )
        return
    pool = next((pool for pool in settings.pools if registry.load(pool.backend).capabilities.elsewhere), None)
    if pool is None:
        return
    if running is None and reachable({**_address_kept(state_dir), **settings.hub.own}):
        return
    if running is not None and (running.advertised or not is_loopback(urlsplit(running.url).hostname or "")):
        return
    first = f"`{stop}` first, for one runs there already; then add" if running is not None else "add"
    yield (
        f"workers of the pool {pool.name} ({pool.backend}) run on other machines, and a hub on loopback is not to be "
        f"reached from there: {first} --advertise-url {proposal()} (or use a hub elsewhere: --server URL)"
    )


def proposal() -> str:
    """An address that is likely to be right."""
    full = socket.getfqdn()
    name = socket.gethostname() if full.partition(".")[0] == "localhost" else full
    return f"https://{name}:{USUAL_PORT}"


# ---------------------------------------------------------------- what workers are told


@dataclass(frozen=True)
class HubForAgents:
    """What the agents of a launch are told of the hub: those elsewhere, and those on this machine."""

    url: str
    fingerprint: str | None
    agent: AgentFile | None = None  # for nodes that have nothing of ours
    here: str = ""

    def address(self, elsewhere: bool) -> tuple[str, str | None]:
        url = self.url if elsewhere or not self.here else self.here
        return url, self.fingerprint if url.startswith("https:") else None


def hub_for_agents(settings: Settings, client: HubClient) -> HubForAgents:
    url = _told(settings) or client.url
    agent = agent_file.from_hub(client, url, settings.manager.state_dir) if any_elsewhere(settings) else None
    return HubForAgents(url, fingerprint_of(settings), agent, client.url)


def hub_to_preview(settings: Settings) -> HubForAgents:
    """The same where perhaps none runs, and nothing may be started or written."""
    state_dir = settings.manager.state_dir
    running = discovery.recorded(state_dir) if not settings.hub.server else None
    wished = str({**_address_kept(state_dir), **settings.hub.own}.get("advertise_url") or "")
    here = running.here if running else "http://127.0.0.1:0"
    url = settings.hub.server or (running.url if running else wished.rstrip("/"))
    elsewhere = any_elsewhere(settings)
    if not url:
        url = NOWHERE if elsewhere else here
    pin = fingerprint_of(settings) or (None if settings.hub.server or running else _of_the_authority(state_dir))
    if pin is None and not settings.hub.server and running is None and not settings.hub.own.get("behind_proxy"):
        pin = NO_FINGERPRINT
    agent = agent_file.from_here(url, state_dir) if elsewhere else None
    return HubForAgents(url, pin if url.startswith("https:") else None, agent, "" if settings.hub.server else here)


def stand_ins(hub: HubForAgents) -> Iterator[str]:
    """What in a preview only stands for something that will be known later."""
    if hub.url == NOWHERE:
        yield f"{NOWHERE} stands for the hub's address, which --advertise-url or --server gives"
    if hub.fingerprint == NO_FINGERPRINT:
        yield "the fingerprint of zeros stands for that of the hub's authority, which it makes at its first start"


def any_elsewhere(settings: Settings) -> bool:
    return any(registry.load(pool.backend).capabilities.elsewhere for pool in settings.pools)


def _told(settings: Settings) -> str:
    running = None if settings.hub.server else discovery.recorded(settings.manager.state_dir)
    return running.url if running else ""


def fingerprint_of(settings: Settings) -> str | None:
    """What the agents are told to expect: the hub's own authority, or a certificate that came from outside."""
    if settings.hub.server:
        return settings.hub.fingerprint
    hub = discovery.recorded(settings.manager.state_dir)
    if hub is None or hub.ca is None:
        return hub.fingerprint if hub else None
    return _of_file(Path(hub.ca))


def _of_the_authority(state_dir: Path) -> str | None:
    """Of a hub that ran here before, and will have the same when it runs again."""
    root = state_dir / "tls" / "ca.pem"
    return _of_file(root) if root.exists() else None


def _of_file(certificate: Path) -> str:
    from worker_manager.hub.tls import fingerprint_of as fingerprint_of_file

    return fingerprint_of_file(certificate)
