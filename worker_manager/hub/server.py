"""The hub as a process: takes its state directory for itself, opens the store, listens, says that it is ready, and
ends cleanly.

    lock → certificates → store → tokens → socket → serve (chores beside) → answer every long poll → close

SIGTERM, SIGINT and SIGHUP end it; what was acknowledged is on disk long before.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import uvicorn
from starlette.types import ASGIApp

from worker.protocol import PROTOCOL_VERSION
from worker_manager.clock import Clock, SystemClock
from worker_manager.errors import ConfigError, StoreError
from worker_manager.hub import connection, discovery, loglines, notify, tls
from worker_manager.hub.app import make_app
from worker_manager.hub.auth import Tokens
from worker_manager.hub.blobs.service import Blobs
from worker_manager.hub.bootstrap import make_tokens
from worker_manager.hub.chores.run import run as run_chores
from worker_manager.hub.contract import HubStore
from worker_manager.hub.contract import Settings as StoreSettings
from worker_manager.hub.files.names import BadName, Storages
from worker_manager.hub.ground import allow_many_connections, listener_for, names_of, only_one, own_folder
from worker_manager.hub.identity import OwnNames
from worker_manager.hub.logs import LogFolder
from worker_manager.hub.logwriter import LogWriter
from worker_manager.hub.longpoll import Waiters
from worker_manager.hub.metrics import Metrics
from worker_manager.hub.outputlimits import OutputLimits
from worker_manager.hub.overload import Gate
from worker_manager.hub.pyz import WorkerFiles
from worker_manager.hub.routes.table import ENDPOINTS
from worker_manager.hub.services import Services
from worker_manager.hub.settings import HubSettings
from worker_manager.hub.storages.desk import Desk
from worker_manager.hub.store import open_store
from worker_manager.hub.vouching import Vouching

log = logging.getLogger("worker_manager.hub")

READERS = 4
KEEP_ALIVE_S = 75  # longer than a long poll and a heartbeat: connections are kept
GRACE_S = 10  # for requests in progress when it ends
BACKLOG = 4096
SHORTEST_LEASE_MS = 1000
SHORTEST_KEEP_MS = 60_000
HEARTBEATS_IN_A_LEASE = 4


def serve(settings: HubSettings) -> None:
    """Runs the hub until it is told to end. Raises ConfigError, StoreError, HubRuns before it serves, StoreError when
    the database must not be used any more."""
    loglines.configure(settings.log_level)
    os.umask(0o077)
    allow_many_connections()
    own_folder(settings.state_dir)
    named_storages(settings)
    with only_one(settings.state_dir), contextlib.ExitStack() as stack:
        listener = stack.enter_context(listener_for(settings))
        identity = tls.identity_for(settings, names_of(settings))
        clock = SystemClock()
        store = open_store(settings.database or settings.state_dir, clock, _store_settings(settings))
        stack.callback(store.close)
        make_tokens(store, settings)
        process = HubProcess(settings, store, clock, listener, identity)
        with asyncio.Runner(loop_factory=process.loop_factory) as runner:
            runner.run(process.run())


class HubProcess:
    """What lives while the hub serves."""

    def __init__(
        self,
        settings: HubSettings,
        store: HubStore,
        clock: Clock,
        listener: socket.socket,
        identity: tls.Identity | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._listener = listener
        self._identity = identity
        self._fatal: BaseException | None = None
        self.loop_factory = _config(_unready, None).get_loop_factory()

    async def run(self) -> None:
        hub = self._services(asyncio.get_running_loop())
        self._store.listen(lambda topics: _wake_soon(hub, topics))
        self._store.count_commits(hub.metrics.committed)
        context = self._identity.context() if self._identity else None
        server = Server(_config(make_app(hub, ENDPOINTS), context, self._settings.body_seconds), self._announce)
        stop = self._stopper(hub, server)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            hub.loop.add_signal_handler(number, stop)
        self._store.failed().add_done_callback(lambda done: self._fail(hub, stop, done))
        chores = asyncio.create_task(run_chores(hub))
        try:
            await server.serve(sockets=[self._listener])
        finally:
            chores.cancel()
            self._withdraw()
            hub.readers.shutdown(wait=True)
            hub.vouching.close()
            hub.blobs.close()
            hub.storages.close()
            hub.logs.close()
        if self._fatal is not None:
            raise self._fatal

    def _services(self, loop: asyncio.AbstractEventLoop) -> Services:
        settings, metrics = self._settings, Metrics()
        folder = LogFolder(settings.state_dir / "logs", settings.log_segment_bytes)
        return Services(
            settings=settings,
            store=self._store,
            clock=self._clock,
            waiters=Waiters(loop),
            logs=LogWriter(folder, self._clock, metrics.took_output),
            output_limits=OutputLimits(),
            worker_files=WorkerFiles(settings.state_dir / "worker"),
            tokens=Tokens(self._store.authenticate, self._clock),
            metrics=metrics,
            gate=Gate(settings.max_requests),
            readers=ThreadPoolExecutor(READERS, "hub-read"),
            loop=loop,
            version=own_version(),
            vouching=Vouching(settings.sts_url),
            own_names=self._own_names(),
            blobs=Blobs(settings, self._store, self._clock),
            storages=Desk(named_storages(settings)),
            authority=self._authority(),
        )

    def _own_names(self) -> OwnNames:
        urls = tuple(url for url in (self._settings.advertise_url, self._local_url()) if url)
        if self._identity is None:
            return OwnNames(urls, ())
        authority = self._identity.authority
        pins = (self._identity.fingerprint, tls.fingerprint_of(authority) if authority else "")
        return OwnNames(urls, tuple(pin for pin in pins if pin))

    def _authority(self) -> bytes | None:
        own = self._identity.authority if self._identity else None
        return own.read_bytes() if own else None

    def _stopper(self, hub: Services, server: "Server") -> Callable[[], None]:
        def stop() -> None:
            if not server.should_exit:
                log.info("the hub ends: answering %d requests that wait", len(hub.waiters))
                notify.send("STOPPING=1")
                self._withdraw()
                hub.waiters.close()
                hub.blobs.end_transfers()
                server.should_exit = True

        return stop

    def _fail(self, hub: Services, stop: Callable[[], None], done: "Future[None]") -> None:
        """From the store's thread: the database must not be used any more."""
        error = None if done.cancelled() else done.exception()
        if error is not None:
            log.critical("the store failed, the hub ends: %s", error)
            self._fatal = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: it ends already
                hub.loop.call_soon_threadsafe(stop)

    def _announce(self) -> None:
        """It accepts requests now: whoever looks finds it."""
        gc.freeze()  # what was made until now stays, and need not be looked through again and again
        hub = self.as_found()
        hub.write(self._settings.state_dir)
        log.info("the hub serves %s from %s", hub.url, self._settings.state_dir)
        notify.send("READY=1")

    def as_found(self) -> discovery.RunningHub:
        pid = os.getpid()
        started = discovery.start_time(pid)
        if started is None:
            raise StoreError("/proc is not mounted: the hub cannot tell its process from another one of the same pid")
        return discovery.RunningHub(
            url=self._settings.advertise_url or self._local_url(),
            pid=pid,
            start_time=started,
            version=own_version(),
            protocol=PROTOCOL_VERSION,
            fingerprint=self._identity.fingerprint if self._identity else None,
            ca=str(self._identity.authority) if self._identity and self._identity.authority else None,
            local_url=self._local_url(),
            advertised=bool(self._settings.advertise_url),
        )

    def _local_url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # named here, not bound
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._identity else 'http'}://{shown}:{port}"

    def _withdraw(self) -> None:
        (self._settings.state_dir / discovery.FILE).unlink(missing_ok=True)


class Server(uvicorn.Server):
    """uvicorn's, with signals left to us and a word when it listens."""

    def __init__(self, config: uvicorn.Config, listens: Callable[[], None]) -> None:
        super().__init__(config)
        self._listens = listens

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listens()


async def _unready(*_: object) -> None:
    raise RuntimeError("served before it was ready")


def _config(app: ASGIApp, context: object, patience_s: float = 30.0) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=connection.within(patience_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_context_factory=(lambda _config, _default: context) if context is not None else None,  # type: ignore[arg-type,return-value]
    )


def _wake_soon(hub: Services, topics: frozenset[str]) -> None:
    """In the writer's thread, after each commit: one call across for all its topics."""

    def wake() -> None:
        hub.metrics.commits.inc()
        for topic in topics:
            hub.waiters.wake(topic)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        hub.loop.call_soon_threadsafe(wake)


def _store_settings(settings: HubSettings) -> StoreSettings:
    """However short a lease is, workers are heard several times within it."""
    if settings.lease_ms < SHORTEST_LEASE_MS:
        raise ConfigError([f"lease: {settings.lease_ms} ms is too short: at least {SHORTEST_LEASE_MS} ms"])
    if settings.blob_keep_ms < SHORTEST_KEEP_MS:
        text = f"blob-keep: {settings.blob_keep_ms} ms is too short: at least {SHORTEST_KEEP_MS} ms"
        raise ConfigError([f"{text}, or files would go before the jobs come that need them"])
    return StoreSettings(
        lease_ms=settings.lease_ms,
        poll_ms=settings.poll_ms,
        heartbeat_ms=min(settings.heartbeat_ms, settings.lease_ms // HEARTBEATS_IN_A_LEASE),
        silent_manager_ms=settings.silent_manager_ms,
        busy_ms=settings.busy_ms,
        retention_ms=settings.retention_ms,
    )


def named_storages(settings: HubSettings) -> Storages:
    try:
        return Storages(settings.storages)
    except BadName as error:
        raise ConfigError([f"storage: {error}"]) from None


def own_version() -> str:
    try:
        return version("worker-manager")
    except PackageNotFoundError:
        return "0+source"
