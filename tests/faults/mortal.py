"""The real manager, wired as the program wires it, that dies, stops or is lied to where it is told.

    python -m tests.faults.mortal CONFIG [--die STEP:N] [--stop STEP:N] [--lies FILE] [--stand-by] [--lease-ms N] …

STEP is one of control.pool.STEPS, N the time that it is reached: `--die` is a kill -9 of itself there, `--stop` a
SIGSTOP. While the file of `--lies` exists, every listing is what the file says: `raises`, `nonsense` or `nothing`.
Exit codes are the program's own.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection

from backends.base import Backend, Listing
from worker_manager import assemble
from worker_manager.cli import log
from worker_manager.clock import Clock, SystemClock
from worker_manager.config.catalogue import Installed
from worker_manager.config.request import Request
from worker_manager.config.resolve import resolve
from worker_manager.config.settings import Settings
from worker_manager.config.yaml_file import read
from worker_manager.control.ledger import BUSY_S, Ledger
from worker_manager.control.loop import LEASE_MS, Manager
from worker_manager.control.pool import STEPS, ManagedPool, Reach
from worker_manager.errors import WorkerManagerError
from worker_manager.sources.hub import HubSource


class Liar:
    """A backend whose listings are what a file says, while there is one; it counts them beside it."""

    def __init__(self, backend: Backend, file: Path) -> None:
        self._backend = backend
        self._file = file
        self._told = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def list(self) -> Listing:
        if not self._file.exists():
            return self._backend.list()
        lie = self._file.read_text()
        self._told += 1
        self._file.with_suffix(".told").write_text(str(self._told))
        if lie == "raises":
            raise ValueError("Expecting value: line 1 column 1 (char 0)")
        return cast(Listing, {"workers": "many"} if lie == "nonsense" else None)


class Unlocked(Ledger):
    """One whose process can be told to stop outside every transaction: it would keep the file locked in its sleep."""

    def __init__(self, path: Path, manager: str, clock: Clock, busy_s: float) -> None:
        self.gate = threading.RLock()
        super().__init__(path, manager, clock, busy_s)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.gate, super()._transaction() as connection:
            yield connection


def reach_of(fates: Sequence[tuple[str, int]], gate: AbstractContextManager[Any]) -> Reach:
    """`announced:2` and a signal: sent to ourselves when `announced` is reached the second time."""
    left: dict[tuple[str, int], int] = {}
    for place, number in fates:
        step, _, nth = place.partition(":")
        if step not in STEPS:
            raise SystemExit(f"{step!r} is no step of {', '.join(STEPS)}")
        left[step, number] = int(nth or 1)

    def reach(reached: str) -> None:
        for step, number in left:
            if step == reached:
                left[step, number] -= 1
                if left[step, number] == 0:
                    with gate:
                        signal.pthread_kill(threading.get_ident(), number)  # this thread goes no step further

    return reach


def options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--die", action="append", default=[])
    parser.add_argument("--stop", action="append", default=[])
    parser.add_argument("--lies", type=Path)
    parser.add_argument("--stand-by", action="store_true")
    parser.add_argument("--lease-ms", type=int, default=LEASE_MS)
    parser.add_argument("--call-ms", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--busy-s", type=float, default=BUSY_S)
    return parser.parse_args(words)


def settings_of(config: Path) -> Settings:
    request = Request(document=read(config.read_text(), str(config)), environment=os.environ, needs_pools=True)
    return resolve(request, Installed())


def pool_of(pool: ManagedPool, told: argparse.Namespace) -> ManagedPool:
    settings = replace(pool.settings, max_batch=told.batch)
    backend = cast(Backend, Liar(pool.backend, told.lies)) if told.lies else pool.backend
    return replace(pool, settings=settings, backend=backend, call_timeout_ms=told.call_ms)


def on_signals(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())


def main(words: Sequence[str]) -> int:
    told = options(words)
    settings = settings_of(told.config)
    log.configure("text", False, False)
    clock = SystemClock()
    client, _ = assemble.hub_for_manager(settings)
    managed = assemble.managed_pools(settings, assemble.hub_for_agents(settings, client), clock)
    pools = [pool_of(pool, told) for pool in managed.values()]
    id = settings.manager.id
    ledger = Unlocked.in_folder(settings.manager.state_dir, id, clock, told.busy_s)
    fates = [*((place, signal.SIGKILL) for place in told.die), *((place, signal.SIGSTOP) for place in told.stop)]
    source = HubSource(client, id, tuple(managed), clock.now_ms)
    manager = Manager(
        id,
        assemble.holder(),
        clock,
        ledger,
        source,
        pools,
        tick_ms=settings.manager.tick_ms,
        lease_ms=told.lease_ms,
        reach=reach_of(fates, ledger.gate),
    )
    on_signals(manager.stop)
    try:
        manager.run(stand_by=told.stand_by)
    finally:
        ledger.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except WorkerManagerError as error:
        print(f"mortal manager: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
