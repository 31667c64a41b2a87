"""The only wiring: Settings → the objects that run. Nothing is decided here, and nothing else knows all rooms."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backends import registry
from backends.base import Backend, BackendUnusable, Context, Finding
from backends.options import MASK, Secret
from worker_manager.clock import Clock, SystemClock
from worker_manager.config.agent import agent_command
from worker_manager.config.settings import PoolConfig, Settings
from worker_manager.errors import HubError, UsageError
from worker_manager.hub import discovery
from worker_manager.hub_access import (
    HubForAgents,
    NoHub,
    client_of,
    hub_as_it_was,
    hub_for_agents,
    hub_for_manager,
    hub_to_preview,
    obstacles,
    stand_ins,
)
from worker_manager.hub_client import HubClient
from worker_manager.policy.facts import PoolSettings

if TYPE_CHECKING:
    from worker_manager.control.ledger import Ledger
    from worker_manager.control.loop import Manager
    from worker_manager.control.pool import ManagedPool
    from worker_manager.sources.base import Source


# ---------------------------------------------------------------- pools


def managed_pools(settings: Settings, hub: HubForAgents, clock: Clock) -> "dict[str, ManagedPool]":
    return {pool.name: managed_pool(settings, pool, hub, clock) for pool in settings.pools}


def managed_pool(settings: Settings, pool: PoolConfig, hub: HubForAgents, clock: Clock) -> "ManagedPool":
    from worker_manager.control.pool import ManagedPool

    kind = registry.load(pool.backend)
    capabilities = kind.capabilities
    as_one_file = capabilities.elsewhere and not pool.worker.executable
    url, fingerprint = hub.address(capabilities.elsewhere)
    return ManagedPool(
        settings=PoolSettings(
            name=pool.name,
            backend=pool.backend,
            shape=pool.shape,
            limits=pool.limits,
            law=pool.law,
            law_options=pool.law_options,
            owners=pool.owners,
            queues=pool.queues,
            max_batch=capabilities.max_batch,
            list_lag_ms=int(capabilities.list_lag_s * 1000),
            confirms_end=capabilities.confirms_end,
            config=pool.launch_digest(),
            runs_per_worker=pool.worker.max_runs,
        ),
        backend=create_backend(settings, pool, clock),
        capabilities=capabilities,
        command=agent_command(pool, url, fingerprint, as_one_file, capabilities.identity),
        environment={},
        setup=pool.worker.setup,
        work_dir=pool.worker.work_dir,
        agent=hub.agent if as_one_file else None,
    )


def create_backend(settings: Settings, pool: PoolConfig, clock: Clock) -> Backend:
    """Raises BackendUnusable with the line that mends it."""
    if pool.worker.share and not registry.load(pool.backend).capabilities.shared_machine:
        text = f"pool {pool.name}: each worker of {pool.backend} has its part of a machine for itself: leave out share"
        raise BackendUnusable(text)
    folder = pool_dir(settings, pool.name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    context = Context(
        manager=settings.manager.id,
        pool=pool.name,
        state_dir=str(folder),
        now_ms=clock.now_ms,
        shape=pool.shape,
        max_workers=1 if pool.worker.share else pool.limits.max_workers,  # together they need what one may have
        server=_told_of_hub(settings),
    )
    return registry.load(pool.backend).create(pool.options, context)


def _told_of_hub(settings: Settings) -> str:
    """Whether or not it runs now."""
    running = None if settings.hub.server else discovery.recorded(settings.manager.state_dir)
    return settings.hub.server or (running.url if running else str(settings.hub.own.get("advertise_url") or ""))


def checked(settings: Settings, pool: PoolConfig) -> tuple[Finding, ...]:
    """What the pool's backend has to say of itself. Nothing is made: a pool that has no folder yet is looked at from
    one that is thrown away."""
    if pool_dir(settings, pool.name).exists():
        return create_backend(settings, pool, SystemClock()).check()
    with TemporaryDirectory(prefix="worker-manager-") as folder:
        elsewhere = replace(settings, manager=replace(settings.manager, state_dir=Path(folder)))
        return create_backend(elsewhere, pool, SystemClock()).check()


def pool_dir(settings: Settings, pool: str) -> Path:
    return settings.manager.state_dir / "managers" / settings.manager.id / "pools" / pool


def holder() -> str:
    """Who holds the lease, for the person who meets it."""
    return f"{socket.gethostname()}:{os.getpid()}"


# ---------------------------------------------------------------- all of it


@contextmanager
def house(settings: Settings) -> Iterator["House"]:
    """Hub, ledger, pools and manager, ready to run; let go of in order."""
    from worker_manager.control.ledger import Ledger
    from worker_manager.control.loop import Manager
    from worker_manager.sources.hub import HubSource

    clock = SystemClock()
    client, started = hub_for_manager(settings)
    id = settings.manager.id
    pools = managed_pools(settings, hub_for_agents(settings, client), clock)
    ledger = Ledger.in_folder(settings.manager.state_dir, id, clock)
    try:
        source = HubSource(client, id, tuple(pools), clock.now_ms)
        manager = Manager(id, holder(), clock, ledger, source, list(pools.values()), tick_ms=settings.manager.tick_ms)
        yield House(settings, clock, client, started, ledger, manager, pools)
    finally:
        ledger.close()


@contextmanager
def preview(settings: Settings) -> "Iterator[Manager]":
    """A manager to ask for its plan and nothing else. What does not exist yet is not made: a ledger and a pool that
    are not there are taken to be empty, in a folder that is thrown away."""
    from worker_manager.control.ledger import Ledger
    from worker_manager.control.loop import Manager

    clock = SystemClock()
    id = settings.manager.id
    source = _source_to_look_at(settings, clock)
    hub = hub_to_preview(settings)
    with TemporaryDirectory(prefix="worker-manager-") as folder:
        elsewhere = replace(settings, manager=replace(settings.manager, state_dir=Path(folder)))
        pools = [
            managed_pool(
                settings if pool_dir(settings, pool.name).exists() else elsewhere,
                pool,
                hub,
                clock,
            )
            for pool in settings.pools
        ]
        there = (settings.manager.state_dir / f"ledger-{id}.db").exists()
        ledger = Ledger.in_folder((settings if there else elsewhere).manager.state_dir, id, clock)
        try:
            yield Manager(id, holder(), clock, ledger, source, pools)
        finally:
            ledger.close()


def _source_to_look_at(settings: Settings, clock: Clock) -> "Source":
    from worker_manager.sources.hub import HubSource
    from worker_manager.sources.memory import MemorySource

    state_dir = settings.manager.state_dir
    try:
        client = client_of(settings, "manager")
    except NoHub:
        if (state_dir / discovery.SETTINGS).exists():
            raise NoHub(
                f"the hub of {state_dir} does not run, so its backlog is unknown: start it with "
                "`worker-manager hub start`, then look again"
            ) from None
        return MemorySource(clock.now_ms)
    names = tuple(pool.name for pool in settings.pools)
    return HubSource(client, settings.manager.id, names, clock.now_ms)


class House:
    """A manager and what belongs to it."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        client: HubClient,
        started_hub: bool,
        ledger: "Ledger",
        manager: "Manager",
        pools: "Mapping[str, ManagedPool]",
    ) -> None:
        self.settings = settings
        self.client = client
        self.started_hub = started_hub
        self.manager = manager
        self._clock = clock
        self._ledger = ledger
        self._pools = pools
        self._hub = None if settings.hub.server else discovery.recorded(settings.manager.state_dir)
        self._operator = client if settings.hub.server else client_of(settings)

    def take(self, settings: Settings) -> None:
        """A new configuration, for the pools. What names the manager and its places stays until it is restarted."""
        fixed = [name for name in ("manager", "hub") if getattr(settings, name) != getattr(self.settings, name)]
        if fixed:
            raise UsageError(f"{' and '.join(fixed)}: these settings are only read when the program starts")
        for obstacle in obstacles(settings):
            raise UsageError(obstacle)
        self._put(managed_pools(settings, hub_for_agents(settings, self.client), self._clock))
        self.settings = settings

    def close_pools(self, at_once: bool = False) -> None:
        """Nothing is launched any more. `at_once`: what has not registered is not waited for either."""
        self._put({name: _closed(pool, at_once) for name, pool in self._pools.items()})

    def _put(self, pools: "Mapping[str, ManagedPool]") -> None:
        self._pools = pools
        self.manager.reload(list(pools.values()))

    def last_decision(self) -> int:
        return self._ledger.last_decision()

    def decisions(self, after: int) -> tuple[dict[str, Any], ...]:
        """Those since then, oldest first: {id, at_ms, pool, action, subject, reason, outcome, text}."""
        return self._ledger.decisions(after)

    def hub_died(self) -> bool:
        """Ours, and not by being told to: then its record would be gone."""
        folder = self.settings.manager.state_dir
        if self.settings.hub.server or not (folder / discovery.FILE).exists():
            return False
        return discovery.recorded(folder) is None

    def restart_hub(self) -> None:
        hub = self._hub = discovery.start(hub_as_it_was(self.settings, self._hub))
        self.client.url = self._operator.url = hub.here

    # ------------------------------------------------------------ for those that take their workers with them

    def empty(self) -> bool:
        """No worker of ours is left, nor one on its way."""
        return not self._ledger.memory().intents

    def drain_workers(self) -> None:
        """Those that still take jobs are told to finish; repeated, because one may register at any time."""
        for worker in self._workers("ready"):
            self._tell("POST", f"/v1/workers/{worker}/drain", {"reason": "the manager ends"})

    def end_workers(self) -> None:
        """Their jobs go back to the queue at once, without spending a retry."""
        for worker in self._workers("ready", "draining", "lost"):
            self._tell("DELETE", f"/v1/workers/{worker}?force=true", None)

    def ready_workers(self) -> list[str]:
        return self._workers("ready")

    def withdraw(self) -> None:
        """Nobody is told of these pools any more."""
        self.client.post(f"/v1/managers/{self.settings.manager.id}/publish", {"pools": [], "verdicts": []})

    def _workers(self, *states: str) -> list[str]:
        found = self._operator.get("/v1/workers")["workers"]
        return [w["id"] for w in found if w["state"] in states and w["pool"] in self._pools]

    def _tell(self, method: str, path: str, body: Any) -> None:
        try:
            self._operator.request(method, path, json=body, idempotent=True)
        except HubError as error:
            if error.status not in (404, 409, 410):  # it went in this moment, which is what was wanted
                raise


def _closed(pool: "ManagedPool", at_once: bool) -> "ManagedPool":
    none = replace(pool.settings.limits, min_workers=0, max_workers=0)
    if at_once:
        none = replace(none, start_timeout_ms=0, queue_timeout_ms=0, end_grace_ms=5_000)
    return replace(pool, settings=replace(pool.settings, limits=none))


def rendered(settings: Settings, pool: PoolConfig, count: int = 1) -> tuple[str, list[str]]:
    """What the pool's backend would be sent for `count` workers, secrets masked; and what a person has to know of it.
    The same every time: no hub is needed, nothing is written, nothing random is in it."""
    hub = hub_to_preview(settings)
    id = f"{settings.manager.id}-example"
    with TemporaryDirectory(prefix="worker-manager-") as folder:
        aside = replace(settings, manager=replace(settings.manager, state_dir=Path(folder)))
        managed = managed_pool(aside, pool, hub, SystemClock())
        most = min(managed.batch, count)
        text = managed.backend.render(managed.submission(settings.manager.id, id, ("***",) * most))
    for secret in [value for value in pool.options.values() if isinstance(value, Secret) and value]:
        text = text.replace(secret, MASK)
    notes = list(stand_ins(hub)) if managed.capabilities.elsewhere else []
    if most < count:
        notes.append(f"{pool.backend} takes at most {most} workers in one call: this is one of {-(-count // most)}")
    return text.replace(folder, str(settings.manager.state_dir)), notes
