"""`up`: hub and local workers on this machine, in the foreground; `down` ends what was left running."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from worker_manager.cli.attend import attended
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.run import pool_command
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.config.layers import SinglePool
from worker_manager.errors import HubError, LeaseHeld, UsageError, WorkerManagerError

if TYPE_CHECKING:
    from worker_manager.assemble import House

POLL_S = 0.1
PATIENCE_S = 60.0  # of `down`, until workers that were told to stop are gone
RECORD = "up"
LIVE = ("ready", "draining", "lost")


def _up(inv: Invocation, single: SinglePool) -> int:
    from worker_manager import assemble
    from worker_manager.cli import log
    from worker_manager.cli.manage import dry_run, once
    from worker_manager.hub import discovery

    settings = inv.settings(single=single, form=form_of_this_machine(), form_name="this machine")
    log.configure(inv.log_format, inv.verbose, inv.colored)
    if inv.dry_run:
        return dry_run(inv, settings)
    pid = running(settings.manager.state_dir)
    if pid is not None:
        raise LeaseHeld(f"`up` runs already on {settings.manager.state_dir}: pid {pid}; worker-manager down ends it")
    with assemble.house(settings) as house:
        if inv.once:
            return once(house)
        inv.say(f"the hub is {house.client.url}; submit with: {_submit(inv)}")
        inv.say("Ctrl-C lets the workers finish; a second time hands their jobs back")
        end = Ending(inv, house)
        with recorded(settings.manager.state_dir):
            code = end.stand()
    if house.started_hub and end.all_gone:
        discovery.stop(settings.manager.state_dir)
    return code


def _submit(inv: Invocation) -> str:
    folder = inv.flags.get("state_dir")
    return f"worker-manager {f'--state-dir {folder} ' if folder else ''}submit -- COMMAND"


def form_of_this_machine() -> Mapping[tuple[str | int, ...], Any]:
    """A worker for each CPU, with its part of the memory; none when there is nothing to do."""
    cpus = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        ("pool", "min-workers"): 0,
        ("pool", "max-workers"): cpus,
        ("pool", "shape", "cpus"): 1,
        ("pool", "shape", "memory"): memory * 9 // 10 // cpus,
        ("pool", "limits", "idle"): "30s",
        ("pool", "limits", "stabilise"): "30s",
    }


class Ending:
    """How `up` ends. First signal: nothing new is launched, the workers finish what they run and go. Second: they hand
    their jobs back at once. Third: the manager goes, and leaves the rest to `down`."""

    def __init__(self, inv: Invocation, house: "House") -> None:
        self._inv = inv
        self._house = house
        self._signals: list[int] = []
        self._thread: threading.Thread | None = None
        self.all_gone = False

    def stand(self) -> int:
        before = {
            number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            with attended(self._house):
                self._house.manager.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0 if self.all_gone and len(self._signals) == 1 else 128 + self._signals[0] if self._signals else 0

    def _heard(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)
        if len(self._signals) == 1:
            self._thread = threading.Thread(target=self._drain, name="drain", daemon=True)
            self._thread.start()
        elif len(self._signals) > 2:
            self._house.manager.stop()

    def _drain(self) -> None:
        """Beside the manager, which goes on deciding: it sees the workers go, and closes their intents."""
        handed_back = False
        try:
            self._inv.say("the workers finish what they run; Ctrl-C again hands their jobs back")
            self._house.close_pools()
            while not self._house.empty():
                if len(self._signals) == 1:
                    self._house.drain_workers()
                elif not handed_back:
                    handed_back = True
                    self._inv.say("the workers hand their jobs back")
                    self._house.end_workers()
                self._inv.world.sleep(POLL_S)
            self.all_gone = True
        except WorkerManagerError as error:
            self._inv.say(f"worker-manager: {error}; worker-manager down --now ends what is left")
        finally:
            self._house.manager.stop()


up = pool_command(
    "up",
    "local",
    "Hub and local workers on this machine, in the foreground; nothing to configure. Unless told otherwise at most one "
    "worker for each CPU, with its part of nine tenths of the memory; none while nothing waits.",
    _up,
    codalab=False,
)


@contextmanager
def recorded(state_dir: Path) -> Iterator[None]:
    """While `up` runs, `down` can find it: pid and start time, because pids are used again."""
    from worker_manager.hub.discovery import start_time

    record = state_dir / RECORD
    ours = f"{os.getpid()} {start_time(os.getpid())}"
    record.write_text(ours)
    try:
        yield
    finally:
        if record.exists() and record.read_text() == ours:
            record.unlink(missing_ok=True)


def running(state_dir: Path) -> int | None:
    """The pid of the `up` of this state directory."""
    from worker_manager.hub.discovery import start_time

    try:
        pid, started = map(int, (state_dir / RECORD).read_text().split())
    except (OSError, ValueError):
        return None
    return pid if start_time(pid) == started else None


@click.command(cls=OurCommand)
@click.option("--now", is_flag=True, help="Workers hand their jobs back at once instead of finishing them.")
@with_connection
@takes_invocation
def down(inv: Invocation, now: bool, **connection: Any) -> int:
    """End what `up` began, and stop the hub that was left running. Jobs and results stay."""
    from worker_manager.control.lease import leading
    from worker_manager.hub import discovery
    from worker_manager.hub_access import NoHub, hub_settings

    inv = inv.plus(**connection)
    settings = inv.settings()
    left: list[str] = []
    if settings.hub.server:
        raise UsageError("a hub elsewhere is stopped where it runs")
    state_dir = settings.manager.state_dir
    was_up = _end_up(inv, state_dir, now)
    for manager in leading(state_dir):
        raise WorkerManagerError(
            f"the manager {manager!r} still runs on {state_dir}: end it where it was started (Ctrl-C, systemctl stop), "
            "then say this again; `worker-manager hub stop` stops the hub alone"
        )
    if now and discovery.find(state_dir) is None and (state_dir / discovery.SETTINGS).exists():
        # Only through a hub can workers that still run be told to stop and to hand their jobs back.
        discovery.find_or_start(hub_settings(settings))
    with suppress(NoHub):
        left = _end_workers(inv, inv.client(), now)
    stopped = discovery.stop(state_dir)
    inv.say("the hub has ended" if stopped or was_up else f"no hub runs on {state_dir}")
    for worker in left:
        inv.say(f"worker-manager: {worker} still runs; it goes by itself when its lease is over")
    return 1 if left else 0


def _end_up(inv: Invocation, state_dir: Path, now: bool) -> bool:
    """Waits until its process is gone; says whether there was one."""
    from worker_manager.hub.discovery import start_time

    pid = running(state_dir)
    if pid is None:
        return False
    inv.say(f"`up` (pid {pid}) ends: its workers {'hand their jobs back' if now else 'finish what they run'}")
    if not now:
        inv.say("(worker-manager down --now would not wait for that)")
    began = start_time(pid)
    for _ in range(2 if now else 1):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        inv.world.sleep(POLL_S)  # two signals at once would count as one
    while start_time(pid) == began:
        inv.world.sleep(POLL_S)
    return True


def _end_workers(inv: Invocation, client: Any, now: bool) -> list[str]:
    """Those that no manager of ours took with it. Which of them do not go."""
    workers = _live(client)
    if workers and not now:
        inv.say(f"{_told(workers)} left: without a hub they go on for as long as their lease lasts, then give up")
        inv.say("worker-manager down --now ends them too; the next `up` finds them again")
    if not workers or not now:
        return []
    for worker in workers:
        with suppress(HubError):
            client.request("DELETE", f"/v1/workers/{worker['id']}", params={"force": "true"}, idempotent=True)
    inv.say(f"{_told(workers)} told to stop; what they ran goes back to the queue")
    return _until_gone(inv, [worker for worker in workers if _runs_here(worker)])


def _until_gone(inv: Invocation, workers: list[dict[str, Any]]) -> list[str]:
    """The hub must not go before its workers have heard it."""
    for _ in range(int(PATIENCE_S / POLL_S)):
        workers = [worker for worker in workers if _runs_here(worker)]
        if not workers:
            break
        inv.world.sleep(POLL_S)
    return [str(worker["id"]) for worker in workers]


def _runs_here(worker: Mapping[str, Any]) -> bool:
    """Its process lives on this machine. Of one elsewhere nothing can be seen from here."""
    host = worker.get("host") or {}
    try:
        words = Path(f"/proc/{int(host['pid'])}/cmdline").read_bytes().split(b"\0")
    except (KeyError, TypeError, ValueError, OSError):
        return False
    return host.get("hostname") == os.uname().nodename and str(worker["id"]).encode() in words


def _live(client: Any) -> list[dict[str, Any]]:
    return [worker for worker in client.get("/v1/workers")["workers"] if worker.get("state") in LIVE]


def _told(workers: list[dict[str, Any]]) -> str:
    jobs = sum(worker.get("running") or 0 for worker in workers)
    verb = "is" if len(workers) == 1 else "are"
    return f"{len(workers)} worker{'s' * (len(workers) != 1)} with {jobs} running job{'s' * (jobs != 1)} {verb}"
