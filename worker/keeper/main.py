"""The keeper begins: it hears from its agent where it is to work, and takes the directory for itself alone."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time

from worker import processes
from worker.channel import CHANNEL_FD, DONE, LOCK_FD, WORK_DIR_IN_USE, Channel
from worker.keeper.ending import LAST_SWEEP_MS, SWEEP_MS
from worker.keeper.loop import Keeper
from worker.keeper.packing import Room
from worker.processes import boot_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from worker.keeper.packing import Asks
    from worker.machine.sharing import Sharing


def lock(work_dir: str) -> bool:
    """Two keepers in one directory would remove each other's slots. A predecessor may still be ending its jobs."""
    os.makedirs(work_dir, 0o700, exist_ok=True)
    descriptor = os.open(os.path.join(work_dir, "keeper.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = boot_ms() + LAST_SWEEP_MS
    while boot_ms() < until:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(SWEEP_MS / 1000)
    return False


def close_all_but(last: int) -> None:
    """Whatever the agent was started with must reach no job; what it gave us neither."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > last:
            try:  # noqa: SIM105  # contextlib costs the keeper a millisecond to import
                os.close(int(name))
            except OSError:
                pass  # the one that listed them
    for ours in range(CHANNEL_FD, last + 1):
        os.set_inheritable(ours, False)


def _sharing(told: Any, has: Asks | None, gpus: list[str]) -> Sharing:
    from worker.machine.sharing import Sharing  # most keepers have no neighbours

    return Sharing(told, LOCK_FD, has, gpus)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # ends are the agent's to decide; it tells us, or it dies
    processes.adopt_orphans("wm-keeper")
    channel = Channel(CHANNEL_FD)
    messages: list[tuple[Any, ...]] = []
    while not messages and not channel.closed:
        select.select([CHANNEL_FD], [], [])
        messages += channel.receive()
    if not messages:
        return DONE
    _, work_dir, has, gpus, env, places, isolation, share = messages.pop(0)
    close_all_but(CHANNEL_FD if share is None else LOCK_FD)
    if not lock(work_dir):
        return WORK_DIR_IN_USE
    sharing = None if share is None else _sharing(share, has, gpus)
    room = Room(has, gpus) if sharing is None else sharing.room
    keeper = Keeper(channel, work_dir, room, env, places, isolation, sharing)
    keeper.obey(messages)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
