"""Files that go to the hub or come from it: several at a time, with a bar on a terminal and silence elsewhere."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from worker_manager.cli.world import Invocation
from worker_manager.errors import WorkerManagerError

T = TypeVar("T")
AT_A_TIME = 4
Tell = Callable[[int, int | None], None]  # bytes done, bytes in all


class Stopped(WorkerManagerError):
    """It was broken off."""


class Meter:
    """How far all of it is. Safe for use from several threads."""

    def __init__(self, bar: Any = None, task: Any = None) -> None:
        self._bar = bar
        self._task = task
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def of_one(self) -> Tell:
        """For one file. What was done before and is done again counts once."""
        done = 0

        def tell(now: int, _whole: int | None) -> None:
            nonlocal done
            if self._stopped.is_set():
                raise Stopped("it was broken off")
            if self._bar is not None and now != done:
                self._bar.advance(self._task, now - done)
            done = now

        return tell


@contextmanager
def metered(inv: Invocation, what: str, total: int) -> Iterator[Meter]:
    if not inv.world.watched() or not total:
        yield Meter()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True, no_color=not inv.colored)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        yield Meter(bar, bar.add_task(what, total=total))


def all_of(meter: Meter, things: Sequence[T], act: Callable[[T], Any], go_on: bool = False) -> dict[T, Any]:
    """`act` for each, several at a time. The first error ends it all, or with `go_on` is that one's result."""
    left = deque(things)
    ended: SimpleQueue[tuple[T, Any, BaseException | None]] = SimpleQueue()
    for _ in range(min(AT_A_TIME, len(things))):
        # Who breaks off does not wait for a file to be read to its end.
        threading.Thread(target=_work, args=(left, act, ended), name="transfer", daemon=True).start()
    done: dict[T, Any] = {}
    try:
        while len(done) < len(things):
            thing, result, error = ended.get()
            if error is not None and not (go_on and isinstance(error, WorkerManagerError)):
                raise error
            done[thing] = result if error is None else error
    except BaseException:
        left.clear()
        meter.stop()
        raise
    return done


def _work(left: deque[T], act: Callable[[T], Any], ended: "SimpleQueue[tuple[T, Any, BaseException | None]]") -> None:
    while True:
        try:
            thing = left.popleft()
        except IndexError:
            return
        try:
            ended.put((thing, act(thing), None))
        except BaseException as error:
            ended.put((thing, None, error))
